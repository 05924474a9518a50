"""Processes that cannot go on for a while: disabled instances, lost credentials, versions that nobody here knows."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.gateway import Gateway
from app.processes.advance import advance_due
from app.processes.news import News
from app.worker import Drains
from tests.conftest import Driver
from tests.processes.conftest import HEADER, VOTE, cast, make_due, state_of
from tests.support import probe


async def enable(driver: Driver, enabled: bool) -> None:
    """Take the probe out of use, or into it again."""
    (instance,) = (row for row in (await driver.get("plugin")).json()["plugins"] if row["name"] == "probe")
    path = f"/api/internal/plugin/probe/{instance['id']}"
    changed = await driver.http.patch(path, json={"enabled": enabled}, headers=HEADER)
    assert changed.status_code == 200, changed.text


async def test_a_disabled_instance_pauses_and_comes_back(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains, gateway: Gateway
) -> None:
    started = await town.post(VOTE, {"title": "V1", "seconds": 0.5})
    await drains.until_idle()
    await cast(anonymous, "V1", "ann", "yes")
    await drains.receipts()
    await enable(town, False)
    await asyncio.sleep(0.6)
    await drains.until_idle()
    paused = await state_of(town, started)
    assert (paused["status"], paused["outcome"]["votes"]) == ("pending", {}), "signals and timers wait"
    await enable(town, True)
    await drains.until_idle()
    revived = await state_of(town, started)
    assert revived["id"] == paused["id"]
    assert (revived["status"], revived["outcome"]) == ("completed", {"votes": {"ann": "yes"}, "why": "deadline"})


async def test_after_the_grace_period_it_is_closed(town: Driver, drains: Drains, gateway: Gateway) -> None:
    started = await town.post(VOTE, {"title": "V1"})
    waiting = await town.post(VOTE, {"title": "V2"}, Prefer="respond-async")
    await enable(town, False)
    await drains.until_idle()
    await make_due(gateway)
    await drains.until_idle()
    assert (await state_of(town, started))["status"] == "pending"
    await make_due(gateway)
    await advance_due(replace(gateway.runner, grace=timedelta(0)))
    closed = await state_of(town, started)
    assert (closed["status"], closed["outcome"]["why"]) == ("completed", "disabled")
    never = await state_of(town, waiting)
    assert (never["status"], list(never["errors"])) == ("completed", ["disabled"])
    assert [line for line in probe.LOG if line.startswith("start")] == [f"start {closed['id']}"]


async def test_what_was_deleted_is_closed_although_it_never_started(town: Driver, drains: Drains) -> None:
    waiting = await town.post(VOTE, {"title": "V1"}, Prefer="respond-async")
    (instance,) = (row for row in (await town.get("plugin")).json()["plugins"] if row["name"] == "probe")
    await town.http.delete(f"/api/internal/plugin/probe/{instance['id']}", headers=HEADER)
    probe.LOG.clear()
    await drains.until_idle()
    assert list((await state_of(town, waiting))["errors"]) == ["deleted"]
    assert probe.LOG == [], "nothing is opened for an instance that is gone"


async def test_without_credentials_votes_count_and_deadlines_hold(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains, gateway: Gateway
) -> None:
    started = await town.post(VOTE, {"title": "V1", "seconds": 0.6})
    await drains.until_idle()
    probe.LOG.clear()
    await cast(anonymous, "V1", "ann", "yes")
    await gateway.db.pool.execute("UPDATE instances SET status = 'needs_auth' WHERE plugin = 'probe'")
    await drains.until_idle()
    assert (await state_of(town, started))["outcome"]["votes"] == {"ann": "yes"}
    await asyncio.sleep(0.7)
    await drains.until_idle()
    assert (await state_of(town, started))["outcome"] == {"votes": {"ann": "yes"}, "why": "deadline"}
    assert [line for line in probe.LOG if line.startswith("render")] == [], "the platform is left alone"
    await gateway.db.pool.execute("UPDATE instances SET status = 'enabled' WHERE plugin = 'probe'")
    await make_due(gateway)
    await drains.until_idle()
    assert probe.LOG[-1] == "render 1 completed"


async def test_effects_wait_for_credentials(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = 0

    async def refuse(self: probe.Vote, voter: str) -> None:
        nonlocal refused
        refused += 1
        raise probe.Unauthorized("the token was revoked")

    await town.post(VOTE, {"title": "V1"})
    await cast(anonymous, "V1", "ann", "yes")
    with monkeypatch.context() as patched:
        patched.setattr(probe.Vote, "tell", refuse)
        await drains.until_idle()
        await gateway.db.pool.execute("UPDATE effects SET next_at = now() WHERE next_at IS NOT NULL")
        await drains.until_idle()
    assert refused == 1, "an instance without credentials is left alone"
    (told,) = (await town.get("events", type="instance.needs_auth")).json()["events"]
    assert told["data"]["reason"] == "the token was revoked"
    await gateway.db.pool.execute("UPDATE instances SET status = 'enabled' WHERE plugin = 'probe'")
    await gateway.db.pool.execute("UPDATE effects SET next_at = now() WHERE next_at IS NOT NULL")
    await drains.until_idle()
    assert [line for line in probe.LOG if line.startswith("tell")] == ["tell ann"]


def newer(monkeypatch: pytest.MonkeyPatch, upgrade: Any) -> None:
    """Have the plugin be of its next version, whose states look otherwise."""
    monkeypatch.setattr(probe.Vote, "version", 2)
    monkeypatch.setattr(probe.Vote, "upgrade", classmethod(upgrade))


async def test_a_state_of_an_older_version_is_migrated(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = await town.post(VOTE, {"title": "V1"})
    await cast(anonymous, "V1", "ann", "yes")
    await drains.until_idle()
    seen: list[int] = []

    def upgrade(cls: type, old: dict[str, Any], from_version: int) -> dict[str, Any]:
        seen.append(from_version)
        return {**old, "votes": {voter: choice.upper() for voter, choice in old["votes"].items()}}

    newer(monkeypatch, upgrade)
    await cast(anonymous, "V1", "bob", "no")
    await make_due(gateway)
    await drains.until_idle()
    closed = await town.http.delete(started.headers["location"], headers=HEADER)
    assert closed.json()["outcome"]["votes"] == {"ann": "YES", "bob": "no"}
    assert set(seen) == {1}


async def test_a_version_that_cannot_be_read_is_parked_until_a_worker_can(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = await town.post(VOTE, {"title": "V1"})
    await drains.until_idle()

    def refuse(cls: type, old: dict[str, Any], from_version: int) -> dict[str, Any]:
        raise ValueError

    with monkeypatch.context() as patch:
        newer(patch, refuse)
        await cast(anonymous, "V1", "ann", "yes")
        await drains.until_idle()
        parked = await state_of(town, started)
        assert parked["status"] == "pending"
        assert "version 1" in parked["parked"]
        closing = await town.http.delete(started.headers["location"], headers=HEADER)
        assert (closing.status_code, closing.json()["type"]) == (409, "urn:metagov:parked")
    # Another worker starts, which knows that version: it need not wait for the next look.
    await advance_due(replace(gateway.runner, news=News()))
    going_on = await state_of(town, started)
    assert (going_on["parked"], going_on["outcome"]["votes"]) == (None, {"ann": "yes"})


async def test_a_signal_that_nobody_announced_is_found(
    town: Driver, drains: Drains, gateway: Gateway, anonymous: httpx.AsyncClient
) -> None:
    started = await town.post(VOTE, {"title": "V1"})
    await make_due(gateway)
    await drains.until_idle()
    await gateway.db.pool.execute("UPDATE processes SET next_at = NULL")
    await gateway.db.pool.execute(
        """INSERT INTO signals (instance_id, process, key, kind, data, at)
        SELECT instance_id, 'vote', 'V1', 'ballot', '{"voter": "ann", "choice": "yes"}', now() FROM processes"""
    )
    await advance_due(replace(gateway.runner, news=News()))
    assert (await state_of(town, started))["outcome"]["votes"] == {"ann": "yes"}
