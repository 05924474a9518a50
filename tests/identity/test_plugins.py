"""Links that plugins make, and events that name the person who caused them."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from app.gateway import Gateway
from app.runtime.emissions import Emission, commit
from app.runtime.instances import by_slug
from app.worker import Drains
from metagov_sdk import AccountLink, Emitted, Initiator
from metagov_sdk.plugin import EmittedEvent
from tests.conftest import Driver
from tests.identity.conftest import SECRET, People
from tests.support import probe
from tests.support.sink import Sink

_deliveries = itertools.count()


async def arrive(anonymous: httpx.AsyncClient, slug: str = "town", **body: Any) -> httpx.Response:
    """A webhook for the community's probe."""
    content = json.dumps(body).encode()
    signature = hmac.new(SECRET.encode(), content, hashlib.sha256).hexdigest()
    headers = {"X-Signature": f"sha256={signature}", "X-Delivery": f"identity-{next(_deliveries)}"}
    answer = await anonymous.post(f"/api/hooks/{slug}/probe", content=content, headers=headers)
    assert answer.status_code == 202
    return answer


async def initiators(driver: Driver) -> list[Any]:
    """Who caused the community's events, in order."""
    return [event["initiator"] for event in (await driver.get("events", type="poked")).json()["events"]]


async def test_a_plugins_link_makes_a_person(people: People, anonymous: httpx.AsyncClient, drains: Drains) -> None:
    link = {"platform_identifier": "u1", "link_quality": "unconfirmed", "custom_data": {"name": "Ada"}}
    for _ in range(3):
        await arrive(anonymous, text="hi", links=[link, link])
        await drains.until_idle()
    (user,) = await people.users()
    (account,) = user["linked_accounts"]
    assert account == {
        "external_id": user["primary_ID"],
        "community": "town",
        "community_slug": "town",
        "platform_type": "probe",
        "platform_identifier": "u1",
        "community_platform_id": None,
        "custom_data": {"name": "Ada"},
        "link_type": "unknown",
        "link_quality": "unconfirmed",
    }


async def test_many_webhooks_of_one_person_at_once_make_one(
    people: People, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    for number in range(40):
        await arrive(anonymous, text="hi", links=[{"platform_identifier": f"u{number % 4}"}])
    await drains.until_idle()
    users = await people.users()
    assert sorted(user["linked_accounts"][0]["platform_identifier"] for user in users) == ["u0", "u1", "u2", "u3"]
    assert await people.rows("metagov_ids") == 4


async def test_a_plugins_link_lowers_nothing_and_takes_nobodys_account(
    people: People, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    ada, bo = await people.create(2)
    before = await people.link(ada, "u1", link_type="oauth", link_quality="confirmed (strong)")
    await arrive(anonymous, text="a", links=[{"platform_identifier": "u1", "link_quality": "unconfirmed"}])
    await arrive(anonymous, text="b", links=[{"platform_identifier": "u1", "external_id": bo}])
    await drains.until_idle()
    assert (await people.user(ada))["linked_accounts"] == [before]
    assert (await people.user(bo))["linked_accounts"] == []
    assert await people.rows("metagov_ids") == 2


async def test_a_plugin_links_to_a_person_it_names(
    people: People, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    ada, countess = await people.create(2)
    await people.merge(ada, countess)
    strong = {"link_type": "oauth", "link_quality": "confirmed (strong)"}
    await arrive(anonymous, text="a", links=[{"platform_identifier": "u1", "external_id": countess, **strong}])
    await drains.until_idle()
    (account,) = (await people.user(ada))["linked_accounts"]
    assert (account["external_id"], account["link_type"], account["link_quality"]) == (ada, *strong.values())


async def test_a_link_to_nobody_is_the_plugins_fault_and_no_other_webhooks(
    people: People, driver: Driver, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    await driver.put("village")
    (foreign,) = await People(driver, "village").create()
    await arrive(anonymous, text="bad", links=[{"platform_identifier": "u1", "external_id": foreign}])
    await arrive(anonymous, text="good", links=[{"platform_identifier": "u2"}])
    await drains.receipts()
    assert [user["linked_accounts"][0]["platform_identifier"] for user in await people.users()] == ["u2"]
    receipts = (await driver.get("receipts")).json()["receipts"]
    assert sorted(receipt["status"] for receipt in receipts) == ["done", "retrying"]
    (failed,) = [receipt for receipt in receipts if receipt["status"] == "retrying"]
    assert "MetagovID" in failed["error"]


async def test_a_handler_that_fails_links_nothing(
    people: People, driver: Driver, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    # `link` refuses the second: nothing of the call is kept.
    await arrive(anonymous, text="x", links=[{"platform_identifier": "u1"}, {"platform_identifier": "a\0b"}])
    await drains.receipts()
    assert await people.users() == []
    assert (await driver.get("events", type="poked")).json()["events"] == []


async def test_events_name_the_person(
    people: People, driver: Driver, anonymous: httpx.AsyncClient, drains: Drains, sink: Sink
) -> None:
    ada, countess = await people.create(2)
    endpoint = {"url": sink.url, "events": ["probe.poked"]}
    assert (await driver.http.post("/api/internal/driver/endpoints", json=endpoint)).status_code == 201
    await arrive(anonymous, text="before", by="u1")
    await drains.until_idle()
    await people.link(countess, "u1")
    await arrive(anonymous, text="linked", by="u1")
    await drains.until_idle()
    await people.merge(ada, countess)
    await arrive(anonymous, text="merged", by="u1")
    await arrive(anonymous, text="stranger", by="u2")
    await arrive(anonymous, text="nobody")
    await drains.until_idle()
    await people.try_unlink("u1")
    await arrive(anonymous, text="unlinked", by="u1")
    await drains.until_idle()
    named = {"user_id": "u1", "provider": "probe", "is_metagov_bot": False}
    assert await initiators(driver) == [
        named,
        {**named, "external_id": countess},
        {**named, "external_id": ada},
        {**named, "user_id": "u2"},
        None,
        named,
    ]
    delivered = {post.json["data"]["text"]: post.json["initiator"] for post in sink.posts}
    assert delivered["merged"]["external_id"] == ada
    assert "external_id" not in delivered["stranger"]


async def test_an_event_names_the_person_its_own_call_linked(
    people: People, driver: Driver, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    await arrive(anonymous, text="hi", by="u1", links=[{"platform_identifier": "u1"}])
    await drains.until_idle()
    (user,) = await people.users()
    assert [each["external_id"] for each in await initiators(driver)] == [user["primary_ID"]]


async def test_the_same_identifier_elsewhere_is_somebody_else(
    people: People, driver: Driver, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    (ada,) = await people.create()
    await people.link(ada, "u1", platform_type="github")
    await people.link(ada, "U1")
    await people.link(ada, "u1", community_platform_id="T9")
    await driver.put("village", plugins=[{"name": "probe", "config": {"label": "a", "webhook_secret": SECRET}}])
    village = People(driver, "village")
    (there,) = await village.create()
    await village.link(there, "u1")
    await arrive(anonymous, text="here", by="u1")
    await arrive(anonymous, slug="village", text="there", by="u1")
    await drains.until_idle()
    assert [each.get("external_id") for each in await initiators(driver)] == [None, there]


async def test_the_link_to_the_very_team_counts_before_the_platforms(
    driver: Driver, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    config = {"label": "a", "webhook_secret": SECRET, "team": "T1"}
    await driver.put(plugins=[{"name": "probe", "config": config}])
    people = People(driver)
    whole, team, other = await people.create(3)
    await people.link(other, "u1", community_platform_id="T2")
    await people.link(whole, "u1")
    signed_for = {"text": "hi", "by": "u1"}
    for expected in (whole, team, whole):
        if expected == team:
            await people.link(team, "u1", community_platform_id="T1")
        elif (await people.user(team))["linked_accounts"]:
            await people.try_unlink("u1", community_platform_id="T1")
        content = json.dumps(signed_for).encode()
        signature = hmac.new(SECRET.encode(), content, hashlib.sha256).hexdigest()
        headers = {"X-Signature": f"sha256={signature}", "X-Team": "T1", "X-Delivery": f"team-{next(_deliveries)}"}
        assert (await anonymous.post("/api/hooks/town/probe", content=content, headers=headers)).status_code == 202
        await drains.until_idle()
        assert (await initiators(driver))[-1]["external_id"] == expected


@pytest.mark.parametrize("user_id", ["", "a\0b", "\ud800", "x" * 5000, "\U0001f3b2"])
async def test_whatever_a_platform_calls_its_people_events_are_recorded(
    people: People, driver: Driver, gateway: Gateway, user_id: str
) -> None:
    (instance,) = await by_slug(gateway.db.pool, gateway.vault, "town", "probe")
    emitted = Emitted(
        events=[EmittedEvent(probe.Poked(text="t"), Initiator(user_id=user_id, provider="probe"), None, None)]
    )
    async with gateway.db.begin() as session:
        await commit(session, gateway.host, [Emission(instance, emitted)])
    (initiator,) = await initiators(driver)
    assert initiator["user_id"] == user_id
    assert "external_id" not in initiator


async def test_a_batch_costs_a_few_statements_and_nothing_without_people(people: People, gateway: Gateway) -> None:
    (instance,) = await by_slug(gateway.db.pool, gateway.vault, "town", "probe")

    async def statements(emitted: list[Emitted]) -> list[str]:
        said: list[str] = []

        def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
            said.append(statement)

        event.listen(gateway.db.engine.sync_engine, "before_cursor_execute", note)
        try:
            async with gateway.db.begin() as session:
                await commit(session, gateway.host, [Emission(instance, each) for each in emitted])
        finally:
            event.remove(gateway.db.engine.sync_engine, "before_cursor_execute", note)
        return [statement for statement in said if "linked_accounts" in statement or "metagov_ids" in statement]

    def poked(initiator: Initiator | None) -> Emitted:
        return Emitted(events=[EmittedEvent(probe.Poked(text="t"), initiator, None, None)])

    def linking(number: int) -> Emitted:
        return Emitted(links=[AccountLink(f"u{number}")])

    assert await statements([poked(None)] * 50) == []
    by_somebody = [poked(Initiator(user_id=f"u{number}", provider="probe")) for number in range(50)]
    assert len(await statements(by_somebody)) == 1
    assert len(await statements([linking(number) for number in range(50)])) <= 4
    # Those who are known already: one look, and nothing is written.
    again = await statements([linking(number) for number in range(50)])
    assert len(again) == 1
    assert again[0].lstrip().startswith("SELECT")


async def test_links_of_a_community_that_was_deleted_meanwhile_are_dropped(
    people: People, driver: Driver, gateway: Gateway
) -> None:
    (instance,) = await by_slug(gateway.db.pool, gateway.vault, "town", "probe")
    await driver.http.delete("/api/internal/community/town")
    async with gateway.db.begin() as session:
        await commit(session, gateway.host, [Emission(instance, Emitted(links=[AccountLink("u1")]))])
    assert [await people.rows(table) for table in ("metagov_ids", "linked_accounts")] == [0, 0]


def links_of(*links: AccountLink) -> Emitted:
    """A call that made these links."""
    return Emitted(links=list(links))


async def test_several_links_of_one_account_in_one_batch_are_one(people: People, gateway: Gateway) -> None:
    ada, bo = await people.create(2)
    (instance,) = await by_slug(gateway.db.pool, gateway.vault, "town", "probe")
    emissions = [
        Emission(instance, links_of(AccountLink("u1", None, "email matching", "confirmed (weak)", {"n": 1}))),
        Emission(instance, links_of(AccountLink("u1", ada, None, "unconfirmed", {"n": 2}), AccountLink("u1", bo))),
    ]
    async with gateway.db.begin() as session:
        await commit(session, gateway.host, emissions)
    (account,) = (await people.user(ada))["linked_accounts"]
    assert (account["link_type"], account["link_quality"]) == ("email matching", "confirmed (weak)")
    assert account["custom_data"] == {"n": 2}
    assert await people.rows("metagov_ids") == 2
