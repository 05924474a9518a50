"""MetagovIDs: created, merged, and read as people."""

from __future__ import annotations

import asyncio
import itertools
import random
import re

import httpx
import pytest

from tests.conftest import Driver
from tests.identity.conftest import People
from tests.support.problems import pointers, problem


async def test_ids_are_created_in_order(people: People) -> None:
    (alone,) = await people.create()
    more = await people.create(3)
    assert len({alone, *more}) == 4
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", external_id) for external_id in more)
    assert [user["source_ID"] for user in await people.users()] == [alone, *more]
    assert await people.user(alone) == {"source_ID": alone, "primary_ID": alone, "linked_accounts": []}


async def test_one_is_created_where_no_number_is_given(people: People) -> None:
    for body in ({}, {"count": None}, {"count": 1}):
        answer = await people.post("create_id", community_slug="town", **body)
        assert (answer.status_code, len(answer.json())) == (201, 1)


@pytest.mark.parametrize("count", [0, -1, 1001, 2**62, 1.5, "many", [1]])
async def test_the_number_is_bounded(people: People, count: object) -> None:
    assert pointers(await people.post("create_id", community_slug="town", count=count)) == ["/count"]
    assert await people.users() == []


async def test_merged_ids_are_one_person_for_good(people: People) -> None:
    ada, countess, lovelace, other = await people.create(4)
    for external_id, name in ((ada, "u1"), (countess, "u2"), (lovelace, "u3"), (other, "u4")):
        await people.link(external_id, name)
    merged = (await people.merge(countess, lovelace)).json()
    assert (merged["source_ID"], merged["primary_ID"]) == (countess, countess)
    assert [account["platform_identifier"] for account in merged["linked_accounts"]] == ["u2", "u3"]
    # A chain: what stood for the countess stands for Ada as well.
    assert (await people.merge(ada, countess)).status_code == 200
    for source in (ada, countess, lovelace):
        user = await people.user(source)
        assert (user["source_ID"], user["primary_ID"]) == (source, ada)
        assert [account["platform_identifier"] for account in user["linked_accounts"]] == ["u1", "u2", "u3"]
        assert {account["external_id"] for account in user["linked_accounts"]} == {ada}
    assert [user["primary_ID"] for user in await people.users()] == [ada, other]
    # A merged id goes on to work: what is linked to it is Ada's.
    assert (await people.link(lovelace, "u5"))["external_id"] == ada


async def test_merging_again_changes_nothing_in_either_direction(people: People) -> None:
    first, second = await people.create(2)
    for primary, secondary in ((first, second), (first, second), (second, first), (second, second)):
        answer = await people.merge(primary, secondary)
        assert (answer.status_code, answer.json()["primary_ID"]) == (200, first)


async def test_merging_into_a_merged_id_merges_into_its_person(people: People) -> None:
    first, second, third = await people.create(3)
    await people.merge(first, second)
    assert (await people.merge(second, third)).json()["primary_ID"] == first
    assert (await people.user(third))["primary_ID"] == first


async def test_communities_keep_their_people_apart(people: People, driver: Driver) -> None:
    await driver.put("village")
    village = People(driver, "village")
    (here,), (there,) = await people.create(), await village.create()
    document = problem(await people.merge(here, there), 409)
    assert "different communities" in document["detail"]
    problem(await people.try_link(there, "u1"), 404)
    problem(await people.get("get_user", external_id=there, community="town"), 404)
    problem(await people.get("filter_users_by_account", external_id_list=there, community="town"), 404)
    assert [user["source_ID"] for user in await people.users()] == [here]
    # The same account can be linked in both: they know nothing of each other.
    await people.link(here, "u1")
    await village.link(there, "u1")
    assert [len((await each.users())[0]["linked_accounts"]) for each in (people, village)] == [1, 1]


@pytest.mark.parametrize("unknown", ["mid_nonesuch", "1", "\u00e4\U0001f3b2", "../etc", "' OR 1=1 --"])
async def test_unknown_ids_are_404(people: People, unknown: str) -> None:
    (known,) = await people.create()
    problem(await people.merge(known, unknown), 404)
    problem(await people.merge(unknown, known), 404)
    problem(await people.try_link(unknown, "u1"), 404)
    problem(await people.get("get_user", external_id=unknown), 404)
    problem(await people.get("filter_users_by_account", external_id_list=[known, unknown]), 404)
    problem(await people.get("get_linked_account", external_id=unknown, platform_type="probe"), 404)


async def test_an_unknown_community_is_404(people: People) -> None:
    problem(await people.post("create_id", community_slug="nonesuch"), 404)
    problem(await people.get("get_users", community="nonesuch"), 404)
    problem(await People(people.driver, "nonesuch").try_link("mid_x", "u1"), 404)
    problem(await People(people.driver, "nonesuch").try_unlink("u1"), 404)


async def test_the_community_has_two_names(people: People) -> None:
    (known,) = await people.create()
    for query in ({"community": "town"}, {"community_slug": "town"}, {"community": "town", "community_slug": "town"}):
        assert [user["source_ID"] for user in (await people.get("get_users", **query)).json()] == [known]
    assert pointers(await people.get("get_users", community="town", community_slug="x")) == ["/community_slug"]
    assert pointers(await people.get("get_users")) == ["/community"]


async def test_people_page_by_page(people: People) -> None:
    await people.create(7)
    everybody = [user["source_ID"] for user in await people.users()]
    seen: list[str] = []
    while page := await people.users(limit=3, **({"after": seen[-1]} if seen else {})):
        assert len(page) <= 3
        seen += [user["source_ID"] for user in page]
    assert seen == everybody
    for limit in (0, 501, "x"):
        problem(await people.get("get_users", community="town", limit=limit), 422)


async def test_more_than_an_answer_holds_is_said_and_not_cut_off(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.identity.queries.MOST_USERS", 3)
    await people.create(3)
    assert len(await people.users()) == 3
    await people.create()
    assert pointers(await people.get("get_users", community="town")) == ["/limit"]
    assert len(await people.users(limit=4)) == 4


@pytest.mark.parametrize("seed", range(3))
async def test_merges_at_once_make_one_person_and_no_circle(people: People, seed: int) -> None:
    ids = await people.create(8)
    for number, external_id in enumerate(ids):
        await people.link(external_id, f"u{number}")
    pairs = list(itertools.permutations(ids, 2))
    random.Random(seed).shuffle(pairs)
    answers = await asyncio.gather(*(people.merge(*pair) for pair in pairs))
    assert {answer.status_code for answer in answers} == {200}
    users = [await people.user(external_id) for external_id in ids]
    (primary,) = {user["primary_ID"] for user in users}
    assert primary in ids
    assert all(len(user["linked_accounts"]) == 8 for user in users)
    assert [user["source_ID"] for user in await people.users()] == [primary]


async def test_links_and_merges_at_once_lose_no_account(people: People) -> None:
    first, second = await people.create(2)
    answers = await asyncio.gather(
        *(people.try_link((first, second)[number % 2], f"u{number}") for number in range(30)),
        people.merge(first, second),
        people.merge(second, first),
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len((await people.user(second))["linked_accounts"]) == 30


async def test_deleting_the_community_deletes_its_people(people: People, driver: Driver) -> None:
    (known,) = await people.create()
    await people.link(known, "u1", custom_data={"name": "private"})
    await driver.http.delete("/api/internal/community/town")
    assert [await people.rows(table) for table in ("metagov_ids", "linked_accounts")] == [0, 0]
    problem(await people.get("get_user", external_id=known), 404)
    assert (await driver.put()).status_code == 201
    assert await people.users() == []


async def test_a_community_that_is_deleted_at_the_same_time_keeps_nobody(people: People, driver: Driver) -> None:
    (known,) = await people.create()

    async def delete() -> int:
        return (await driver.http.delete("/api/internal/community/town")).status_code

    answers = await asyncio.gather(
        *(people.try_link(known, f"u{number}") for number in range(10)),
        delete(),
        *(people.post("create_id", community_slug="town") for _ in range(10)),
        *(people.try_link(known, f"v{number}") for number in range(10)),
    )
    assert 204 in answers
    statuses = {answer.status_code for answer in answers if isinstance(answer, httpx.Response)}
    assert statuses <= {200, 201, 404}
    assert [await people.rows(table) for table in ("metagov_ids", "linked_accounts")] == [0, 0]


async def test_a_repeated_create_with_one_key_creates_once(people: People, driver: Driver) -> None:
    answers = [
        await driver.http.post(
            "/api/internal/identity/create_id",
            json={"community_slug": "town", "count": 2},
            headers={"Idempotency-Key": "k"},
        )
        for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()
    assert len(await people.users()) == 2
