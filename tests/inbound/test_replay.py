"""Replaying receipts: handled again from the first try on, by whoever owns them and nobody else."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.core import work
from app.gateway import Gateway
from app.inbound.models import Receipt
from app.worker import Drains
from metagov_sdk import Rejected, Retry
from tests.conftest import Driver
from tests.support import probe

SECRET = "the instance's own secret"


async def post(anonymous: httpx.AsyncClient, slug: str = "town", **fields: Any) -> None:
    body = json.dumps({"text": "news", **fields}).encode()
    signature = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    answer = await anonymous.post(f"/api/hooks/{slug}/probe", content=body, headers={"X-Signature": signature})
    assert answer.status_code == 202


async def receipts(driver: Driver, **query: Any) -> list[Any]:
    listed: list[Any] = (await driver.get("receipts", **query)).json()["receipts"]
    return listed


async def texts(driver: Driver) -> list[str]:
    return [event["data"]["text"] for event in (await driver.get("events", type="poked")).json()["events"]]


@pytest.fixture
async def town(driver: Driver) -> Driver:
    assert (
        await driver.put(plugins=[{"name": "probe", "config": {"label": "a", "webhook_secret": SECRET}}])
    ).status_code == 201
    return driver


@pytest.fixture
async def dead(town: Driver, anonymous: httpx.AsyncClient, drains: Drains) -> str:
    """The id of a receipt that its handler refused."""
    probe.BEHAVIOUR["handler"] = Rejected("not today")
    await post(anonymous)
    await drains.until_idle()
    probe.BEHAVIOUR.clear()
    [row] = await receipts(town)
    assert (row["status"], row["error"]) == ("dead", "not today")
    return str(row["id"])


async def test_a_dead_receipt_is_handled_again(town: Driver, dead: str, drains: Drains) -> None:
    answer = await town.post(f"receipts/{dead}/replay")
    assert answer.status_code == 202
    assert answer.json() | {"status": "stored", "attempts": 0, "error": None} == answer.json()
    assert answer.json()["id"] == dead
    assert answer.json().keys() == (await town.get(f"receipts/{dead}")).json().keys()
    await drains.until_idle()
    assert await texts(town) == ["news"]
    assert [(row["status"], row["error"]) for row in await receipts(town)] == [("done", None)]


async def test_a_replay_has_all_its_tries(town: Driver, anonymous: httpx.AsyncClient, drains: Drains) -> None:
    probe.BEHAVIOUR["handler"] = Retry(after=3600)
    await post(anonymous)
    await drains.until_idle()
    [row] = await receipts(town)
    assert (row["status"], row["attempts"]) == ("retrying", 1)
    await drains.until_idle()
    await town.post(f"receipts/{row['id']}/replay")
    await drains.until_idle()
    [row] = await receipts(town)
    assert (row["status"], row["attempts"]) == ("retrying", 1), "due at once, not in an hour; and counted anew"


async def test_events_with_a_key_are_not_sent_twice(town: Driver, anonymous: httpx.AsyncClient, drains: Drains) -> None:
    await post(anonymous, text="keyed", key="k")
    await post(anonymous, text="keyless")
    await drains.until_idle()
    for row in await receipts(town):
        assert (await town.post(f"receipts/{row['id']}/replay")).status_code == 202
    await drains.until_idle()
    assert sorted(await texts(town)) == ["keyed", "keyless", "keyless"]


async def test_what_is_running_is_left_alone(town: Driver, anonymous: httpx.AsyncClient, drains: Drains) -> None:
    probe.BEHAVIOUR["handler"] = 0.5
    await post(anonymous)
    working = asyncio.create_task(drains.until_idle())
    async with asyncio.timeout(10):
        while (row := (await receipts(town))[0])["status"] != "running":
            await asyncio.sleep(0.01)
    answer = await town.post(f"receipts/{row['id']}/replay")
    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
    assert (await town.post("receipts/replay", {"status": "stored"})).json() == {"replayed": 0}
    await working
    assert await texts(town) == ["news"]


async def test_a_worker_past_its_lease_cannot_finish_a_replay(
    town: Driver, gateway: Gateway, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    await post(anonymous)
    async with gateway.db.begin() as session:
        (held,) = await work.claim(session, Receipt, limit=1, lease=timedelta(seconds=30))
    (row,) = await receipts(town)
    assert row["status"] == "running"
    await gateway.db.pool.execute("UPDATE receipts SET lease_until = now() - interval '1 second'")
    assert (await town.post(f"receipts/{row['id']}/replay")).status_code == 202
    async with gateway.db.begin() as session:
        assert not await work.finish(session, held, status="done")
    assert [row["status"] for row in await receipts(town)] == ["stored"]
    await drains.until_idle()
    assert await texts(town) == ["news"]


async def test_foreign_and_unknown_receipts_look_alike(
    town: Driver, dead: str, other_driver: Driver, drains: Drains
) -> None:
    foreign = await other_driver.post(f"receipts/{dead}/replay")
    unknown = await other_driver.post("receipts/rcp_none/replay")
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.json()["detail"] == unknown.json()["detail"]
    await other_driver.put("village")
    assert (await other_driver.post("receipts/replay", {}, "village")).json() == {"replayed": 0}
    assert (await other_driver.post("receipts/replay", {}, "town")).status_code == 400
    assert [row["status"] for row in await receipts(town)] == ["dead"]


async def test_replay_by_filter(town: Driver, dead: str, anonymous: httpx.AsyncClient, drains: Drains) -> None:
    await post(anonymous, text="fine")
    await drains.until_idle()
    before, later = ((datetime.now(UTC) + timedelta(hours=hours)).isoformat() for hours in (-1, 1))
    for other in ({"plugin": "github"}, {"since": later}, {"until": before}, {"status": "retrying"}):
        assert (await town.post("receipts/replay", other)).json() == {"replayed": 0}, other
    every = {"status": "dead", "plugin": "probe", "since": before, "until": later}
    answer = await town.post("receipts/replay", every)
    assert (answer.status_code, answer.json()) == (202, {"replayed": 1})
    await drains.until_idle()
    assert sorted(await texts(town)) == ["fine", "news"]
    assert (await town.post("receipts/replay", {"status": "done"})).json() == {"replayed": 2}


async def test_without_a_body_the_dead_are_replayed(town: Driver, dead: str) -> None:
    assert (await town.post("receipts/replay")).json() == {"replayed": 1}
    assert (await town.post("receipts/replay")).json() == {"replayed": 0}


@pytest.mark.parametrize("wrong", [{"status": "running"}, {"since": "2026-01-02T03:04:05"}, {"states": "dead"}])
async def test_wrong_filters(town: Driver, wrong: dict[str, Any]) -> None:
    answer = await town.post("receipts/replay", wrong)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == f"/{next(iter(wrong))}"


async def test_the_worker_is_woken(town: Driver, dead: str, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[str] = []
    monkeypatch.setattr("app.core.wake.Wake.poke", lambda _, *queues: woken.extend(queues))
    await town.post(f"receipts/{dead}/replay")
    await town.post("receipts/replay")
    assert woken == ["receipts", "receipts"]
