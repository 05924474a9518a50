"""Polls: on their schedule, checkpoint by checkpoint."""

from __future__ import annotations

import httpx
import pytest

from app.gateway import Gateway
from app.inbound.polls import schedule_polls
from app.worker import Drains
from metagov_sdk import Retry
from tests.conftest import Driver
from tests.support import probe


@pytest.fixture
async def town(driver: Driver, gateway: Gateway) -> Driver:
    await driver.put(plugins=[{"name": "probe", "config": {"label": "a"}}])
    await schedule_polls(gateway.inbox)
    return driver


async def texts(driver: Driver) -> list[str]:
    return [event["data"]["text"] for event in (await driver.get("events", type="poked")).json()["events"]]


async def test_a_poll_emits_and_goes_on_from_its_checkpoint(town: Driver, gateway: Gateway, drains: Drains) -> None:
    await drains.until_idle()
    assert await texts(town) == ["poll 0", "poll 1", "poll 2"]
    await drains.until_idle()
    assert len(await texts(town)) == 3, "it is not due again for a minute"
    await gateway.db.pool.execute("UPDATE polls SET next_at = now()")
    await drains.until_idle()
    assert (await texts(town))[3:] == ["poll 3", "poll 4", "poll 5"]


async def test_a_failing_poll_keeps_what_it_committed(town: Driver, gateway: Gateway, drains: Drains) -> None:
    probe.BEHAVIOUR["poll"] = Retry("away", after=30)
    await drains.until_idle()
    assert await texts(town) == []
    row = await gateway.db.pool.fetchrow("SELECT error, last_success_at, next_at > now() AS later FROM polls")
    assert (row["error"], row["last_success_at"], row["later"]) == ("away", None, True)


async def test_a_disabled_instance_is_not_polled_and_again_when_enabled(
    town: Driver, gateway: Gateway, drains: Drains
) -> None:
    await town.put(plugins=[])
    await drains.until_idle()
    assert await texts(town) == []
    await town.put(plugins=[{"name": "probe", "config": {"label": "a"}}])
    await schedule_polls(gateway.inbox)
    await drains.until_idle()
    assert len(await texts(town)) == 3


async def test_a_hint_moves_the_next_poll_forward(
    town: Driver, gateway: Gateway, drains: Drains, anonymous: httpx.AsyncClient
) -> None:
    await drains.until_idle()
    assert (await anonymous.post("/api/hooks/town/probe/hint", content=b"look")).status_code == 202
    soon = await gateway.db.pool.fetchval("SELECT next_at < now() + interval '5 seconds' FROM polls")
    assert soon
