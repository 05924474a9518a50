"""Linked accounts: whose they are, how well that is known, and how they are found."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from typing import Any

import pytest

from tests.identity.conftest import People
from tests.support.problems import pointers, problem

QUALITIES = ["unknown", "unconfirmed", "confirmed (weak)", "confirmed (strong)"]
TYPES = ["oauth", "manual admin", "email matching", "unknown"]


async def test_a_link_with_nothing_said(people: People) -> None:
    (ada,) = await people.create()
    account = await people.link(ada, "u1")
    assert account == {
        "external_id": ada,
        "community": "town",
        "community_slug": "town",
        "platform_type": "probe",
        "platform_identifier": "u1",
        "community_platform_id": None,
        "custom_data": {},
        "link_type": "unknown",
        "link_quality": "unknown",
    }
    assert (await people.user(ada))["linked_accounts"] == [account]


async def test_a_link_with_everything_said(people: People) -> None:
    (ada,) = await people.create()
    said: dict[str, Any] = {
        "community_platform_id": "T1",
        "custom_data": {"name": "Ada", "nested": [1, {"a": None}]},
        "link_type": "oauth",
        "link_quality": "confirmed (strong)",
    }
    account = await people.link(ada, "u1", **said)
    assert said.items() <= account.items()
    fetched = await people.get("get_linked_account", external_id=ada, platform_type="probe")
    assert (fetched.status_code, fetched.json()) == (200, account)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(QUALITIES, QUALITIES)))
async def test_quality_only_rises(people: People, before: str, after: str) -> None:
    (ada,) = await people.create()
    await people.link(ada, "u1", link_quality=before, link_type="oauth")
    account = await people.link(ada, "u1", link_quality=after, link_type="email matching")
    higher = QUALITIES.index(after) >= QUALITIES.index(before)
    assert account["link_quality"] == (after if higher else before)
    # How it is known goes with how well.
    assert account["link_type"] == ("email matching" if higher else "oauth")
    assert (await people.user(ada))["linked_accounts"] == [account]
    forced = await people.link(ada, "u1", link_quality=after, link_type="manual admin", force=True)
    assert (forced["link_quality"], forced["link_type"]) == (after, "manual admin")


async def test_what_is_not_said_stays(people: People) -> None:
    (ada,) = await people.create()
    full = await people.link(ada, "u1", link_type="oauth", link_quality="confirmed (weak)", custom_data={"a": 1})
    assert await people.link(ada, "u1") == full
    assert await people.link(ada, "u1", force=True) == full
    assert await people.link(ada, "u1", custom_data=None, link_type=None, link_quality=None) == full
    assert (await people.link(ada, "u1", custom_data={"a": True}))["custom_data"] == {"a": True}
    emptied = await people.link(ada, "u1", custom_data={})
    assert emptied == {**full, "custom_data": {}}
    assert await people.rows("linked_accounts") == 1


async def test_another_persons_account_is_not_taken_without_force(people: People) -> None:
    ada, bo = await people.create(2)
    before = await people.link(ada, "u1", link_type="oauth", link_quality="confirmed (strong)", custom_data={"a": 1})
    refused = await people.try_link(bo, "u1", link_quality="confirmed (strong)", custom_data={"b": 2})
    assert ada in problem(refused, 409, "linked-to-another")["detail"]
    assert (await people.user(ada))["linked_accounts"] == [before]
    assert (await people.user(bo))["linked_accounts"] == []
    # What was known was about Ada: nothing of it goes with the account.
    taken = await people.link(bo, "u1", link_quality="unconfirmed", force=True)
    assert taken == {
        **before,
        "external_id": bo,
        "custom_data": {},
        "link_type": "unknown",
        "link_quality": "unconfirmed",
    }
    assert (await people.user(ada))["linked_accounts"] == []
    assert (await people.user(bo))["linked_accounts"] == [taken]


async def test_an_account_of_a_merged_person_is_not_anothers(people: People) -> None:
    ada, countess = await people.create(2)
    await people.link(countess, "u1", link_quality="unconfirmed")
    await people.merge(ada, countess)
    account = await people.link(ada, "u1", link_quality="confirmed (weak)")
    assert (account["external_id"], account["link_quality"]) == (ada, "confirmed (weak)")
    assert await people.rows("linked_accounts") == 1


async def test_a_hundred_equal_links_at_once_are_one(people: People) -> None:
    (ada,) = await people.create()
    said = [QUALITIES[number % 4] for number in range(100)]
    answers = await asyncio.gather(*(people.try_link(ada, "u1", link_quality=quality) for quality in said))
    assert {answer.status_code for answer in answers} == {200}
    assert await people.rows("linked_accounts") == 1
    (account,) = (await people.user(ada))["linked_accounts"]
    assert account["link_quality"] == "confirmed (strong)"


async def test_of_many_who_claim_an_account_one_gets_it(people: People) -> None:
    ids = await people.create(50)
    answers = await asyncio.gather(*(people.try_link(external_id, "u1") for external_id in ids))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 49
    (winner,) = [answer.json()["external_id"] for answer in answers if answer.is_success]
    assert [len((await people.user(one))["linked_accounts"]) for one in ids] == [int(one == winner) for one in ids]


async def test_links_unlinks_and_force_at_once_end_in_one_row_or_none(people: People) -> None:
    ids = await people.create(3)
    answers = await asyncio.gather(
        *(people.try_link(external_id, "u1", force=True) for external_id in ids * 10),
        *(people.try_unlink("u1") for _ in range(30)),
    )
    assert {answer.status_code for answer in answers} <= {200, 404, 409}
    assert await people.rows("linked_accounts") in (0, 1)


async def test_unlinking(people: People) -> None:
    (ada,) = await people.create()
    account = await people.link(ada, "u1", custom_data={"a": 1})
    gone = await people.try_unlink("u1")
    assert (gone.status_code, gone.json()) == (200, account)
    assert await people.user(ada) == {"source_ID": ada, "primary_ID": ada, "linked_accounts": []}
    problem(await people.try_unlink("u1"), 404)


async def test_unlinking_takes_what_linking_took(people: People) -> None:
    ada, countess, bo = await people.create(3)
    await people.merge(ada, countess)
    body = {"link_type": "oauth", "link_quality": "confirmed (weak)", "custom_data": {"a": 1}}
    await people.link(ada, "u1", **body)
    problem(await people.try_unlink("u1", external_id=bo, **body), 404)
    problem(await people.try_unlink("u1", external_id="mid_nonesuch", **body), 404)
    assert (await people.try_unlink("u1", external_id=countess, **body)).status_code == 200


async def test_unlinking_where_the_account_is_linked_in_several_places(people: People) -> None:
    (ada,) = await people.create()
    for team in ("T1", "T2"):
        await people.link(ada, "u1", community_platform_id=team)
    problem(await people.try_unlink("u1"), 409, "ambiguous-account")
    problem(await people.try_unlink("u1", community_platform_id="T3"), 404)
    await people.link(ada, "u1")
    assert (await people.try_unlink("u1")).json()["community_platform_id"] is None
    assert (await people.try_unlink("u1", community_platform_id="T1")).json()["community_platform_id"] == "T1"
    assert (await people.try_unlink("u1")).json()["community_platform_id"] == "T2"


@pytest.fixture
async def crowd(people: People) -> dict[str, str]:
    """Four people: Ada with two accounts, one of them a merged id's; Bo; Cy; Di without any."""
    ada, countess, bo, cy, di = await people.create(5)
    await people.link(ada, "u1", link_type="oauth", link_quality="confirmed (strong)", community_platform_id="T1")
    await people.link(countess, "u2", link_type="manual admin", platform_type="github")
    await people.link(bo, "u3", link_type="oauth", link_quality="unconfirmed")
    await people.link(cy, "u1", platform_type="github", link_quality="confirmed (weak)")
    await people.merge(ada, countess)
    return {"ada": ada, "countess": countess, "bo": bo, "cy": cy, "di": di}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, ["ada", "bo", "cy", "di"]),
        ({"platform_type": "probe"}, ["ada", "bo"]),
        ({"platform_type": "github"}, ["ada", "cy"]),
        ({"link_type": "oauth"}, ["ada", "bo"]),
        ({"link_quality": "confirmed (weak)"}, ["cy"]),
        ({"link_quality": "unknown"}, ["ada"]),
        ({"community_platform_id": "T1"}, ["ada"]),
        ({"platform_identifier": "u1"}, ["ada", "cy"]),
        ({"platform_type": "github", "platform_identifier": "u1"}, ["cy"]),
        ({"platform_type": "probe", "link_type": "manual admin"}, []),
        ({"platform_type": "nonesuch"}, []),
    ],
)
async def test_people_are_found_by_one_account_that_fits_all(
    people: People, crowd: dict[str, str], query: dict[str, str], names: list[str]
) -> None:
    wanted = [crowd[name] for name in names]
    users = await people.users(**query)
    assert [user["primary_ID"] for user in users] == sorted(wanted)
    # Every account is shown, not those alone that fit.
    assert [len(user["linked_accounts"]) for user in users if user["primary_ID"] == crowd["ada"]] in ([], [2])
    chosen = [crowd[name] for name in ("di", "cy", "countess", "ada")]
    filtered = (await people.get("filter_users_by_account", external_id_list=chosen, **query)).json()
    assert [(user["source_ID"], user["primary_ID"]) for user in filtered] == [
        (source, crowd["ada"] if source == crowd["countess"] else source)
        for source in chosen
        if source in wanted or (source == crowd["countess"] and crowd["ada"] in wanted)
    ]


async def test_a_list_of_ids_may_be_written_in_several_ways(people: People, crowd: dict[str, str]) -> None:
    ids = [crowd["bo"], crowd["ada"]]
    for written in (ids, ",".join(ids), ", ".join(ids), json.dumps(ids), str(ids), [*ids, ids[0]]):
        answer = await people.get("filter_users_by_account", external_id_list=written)
        assert [user["source_ID"] for user in answer.json()] == ids
    assert (await people.get("filter_users_by_account", external_id_list="")).json() == []
    assert pointers(await people.get("filter_users_by_account")) == ["/external_id_list"]
    too_many = ",".join(["x"] * 1001)
    assert pointers(await people.get("filter_users_by_account", external_id_list=too_many)) == ["/external_id_list"]


@pytest.mark.parametrize("query", [{"link_type": "guess"}, {"link_quality": "confirmed"}, {"platform_type": "x" * 65}])
async def test_filters_are_checked(people: People, query: dict[str, str]) -> None:
    (name,) = query
    assert pointers(await people.get("get_users", community="town", **query)) == [f"/{name}"]


async def test_the_linked_account_is_the_first_that_fits(people: People) -> None:
    ada, countess = await people.create(2)
    await people.link(countess, "u1", community_platform_id="T1")
    await people.link(ada, "u2", community_platform_id="T2")
    await people.merge(ada, countess)
    query = {"external_id": countess, "platform_type": "probe"}
    assert (await people.get("get_linked_account", **query)).json()["platform_identifier"] == "u1"
    of_team = await people.get("get_linked_account", **query, community_platform_id="T2")
    assert (of_team.json()["platform_identifier"], of_team.json()["external_id"]) == ("u2", ada)
    problem(await people.get("get_linked_account", **query, community_platform_id="T3"), 404)
    problem(await people.get("get_linked_account", external_id=ada, platform_type="github"), 404)


IDENTIFIERS = [
    "\u00e4\u4f60\U0001f3b2",
    "a\u0301",
    "\u202eb\u200b",
    "\uffff\ufffe",
    "\u0001\n\t",
    " ",
    "A",
    "a",
    "'; DROP TABLE linked_accounts;--",
    "\\u0000",
    "%00",
    "x" * 500,
    "\U0001f3b2" * 500,
]


async def test_any_unicode_names_an_account_of_its_own(people: People) -> None:
    ids = await people.create(len(IDENTIFIERS))
    for external_id, name in zip(ids, IDENTIFIERS, strict=True):
        await people.link(external_id, name, community_platform_id="\U0001f3b2" * 500)
    for external_id, name in zip(ids, IDENTIFIERS, strict=True):
        (account,) = (await people.user(external_id))["linked_accounts"]
        assert account["platform_identifier"] == name
        found = await people.users(platform_type="probe", platform_identifier=name)
        assert [user["source_ID"] for user in found] == [external_id]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("platform_identifier", ""),
        ("platform_identifier", "x" * 501),
        ("platform_identifier", "a\0b"),
        ("platform_identifier", "\ud800"),
        ("platform_identifier", 7),
        ("platform_identifier", None),
        ("platform_type", ""),
        ("platform_type", "x" * 65),
        ("platform_type", "a\0"),
        ("community_platform_id", "x" * 501),
        ("community_platform_id", "\udc00"),
        ("external_id", ""),
        ("external_id", 12345),
        ("external_id", "x" * 65),
        ("community_slug", "x" * 65),
        ("link_type", "OAUTH"),
        ("link_quality", "confirmed"),
        ("custom_data", [1]),
        ("custom_data", "text"),
        ("custom_data", {"a": "x" * 16_400}),
        ("force", "perhaps"),
        ("fource", True),
    ],
)
async def test_what_a_link_cannot_be_is_422_at_its_field(people: People, field: str, value: object) -> None:
    (ada,) = await people.create()
    body: dict[str, Any] = {
        "external_id": ada,
        "community_slug": "town",
        "platform_type": "probe",
        "platform_identifier": "u1",
        field: value,
    }
    answer = await people.driver.http.post(
        "/api/internal/identity/link_account",
        content=json.dumps(body),
        headers={"Content-Type": "application/json"},
    )
    assert pointers(answer) == [f"/{field}"]
    assert await people.rows("linked_accounts") == 0


async def test_custom_data_of_many_shapes_comes_back(people: People) -> None:
    (ada,) = await people.create()
    for data in ({"": ""}, {"a": {"b": [None, True, 1.5, -(2**60)]}}, {"\u4f60": "\U0001f3b2"}, {"a": "x" * 16_000}):
        assert (await people.link(ada, "u1", custom_data=data))["custom_data"] == data


async def test_what_is_kept_of_people_is_not_logged(
    people: People, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    (ada,) = await people.create()
    with caplog.at_level(logging.DEBUG):
        await people.link(ada, "u1", custom_data={"name": "Ada Private"})
        await people.try_link("mid_nonesuch", "u2", custom_data={"name": "Ada Private"})
        await people.try_link(ada, "u3", custom_data={"name": "Ada Private" * 10_000})
        await people.get("get_users", community="town", platform_identifier="Ada Private")
    written = capfd.readouterr()
    assert "Ada Private" not in caplog.text + written.out + written.err
