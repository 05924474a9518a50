"""Signals whose writers made nothing due are found, and what waits for nobody is not looked at for ever."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from app.gateway import Gateway
from app.processes import news
from app.processes.advance import advance_due
from app.processes.runner import Runner
from app.worker import Drains
from tests.conftest import Driver
from tests.processes.conftest import open_ballot

# As a writer leaves it that found the process due, while a worker had read the mailbox and was about to leave.
_SLIPPED = """
INSERT INTO signals (position, instance_id, process, key, kind, data, at)
SELECT nextval('positions'), instance_id, name, key, 'vote', '{"voter": "ada", "choice": "yes"}', now()
FROM processes WHERE id = $1
"""
_OF_NOBODY = """
INSERT INTO signals (position, instance_id, process, key, kind, data, at)
SELECT nextval('positions'), i.id, 'vote', 'a message ' || n, 'vote', '{}', now()
FROM instances i, generate_series(1, $1::int) n WHERE i.plugin = 'ballot'
"""


@pytest.fixture
def worker(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """A worker that has just started, and looks for everything each time."""
    monkeypatch.setattr(news, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(news, "_SWEEP_SECONDS", 0.0)
    return replace(gateway.runner, news=news.News())


@pytest.fixture
def without_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all mailboxes only the first is looked into, beside those with new signals."""
    monkeypatch.setattr(news, "_AT_ONCE", -1)


async def waiting(gateway: Gateway) -> int:
    count: int = await gateway.db.pool.fetchval("SELECT count(*) FROM signals WHERE applied_at IS NULL")
    return count


async def opened(town: Driver, drains: Drains, gateway: Gateway) -> str:
    """A vote that nothing is due of."""
    process: str = (await open_ballot(town)).json()["id"]
    await drains.until_idle()
    await gateway.db.pool.execute("UPDATE processes SET next_at = NULL, lease_until = NULL")
    return process


async def test_a_signal_that_slipped_through_is_found(
    town: Driver, drains: Drains, gateway: Gateway, worker: Runner, without_round: None
) -> None:
    process = await opened(town, drains, gateway)
    await gateway.db.pool.execute(_OF_NOBODY, 1)
    for _ in range(3):
        await advance_due(worker)
    await gateway.db.pool.execute(_SLIPPED, process)
    await advance_due(worker)
    assert await waiting(gateway) == 1


async def test_one_that_was_begun_before_others_and_committed_after_them_is_found(
    town: Driver, drains: Drains, gateway: Gateway, worker: Runner, without_round: None
) -> None:
    """Ids are drawn in one order and committed in another."""
    process = await opened(town, drains, gateway)
    await advance_due(worker)
    async with gateway.db.pool.acquire() as slow:
        begun = slow.transaction()
        await begun.start()
        await slow.execute(_SLIPPED, process)
        await gateway.db.pool.execute(_OF_NOBODY, 300)
        for _ in range(4):
            await advance_due(worker)
        assert await waiting(gateway) == 300
        await begun.commit()
    await advance_due(worker)
    assert await waiting(gateway) == 300


async def test_one_from_before_the_worker_is_found_on_the_round(
    town: Driver, drains: Drains, gateway: Gateway, worker: Runner
) -> None:
    process = await opened(town, drains, gateway)
    await gateway.db.pool.execute(_SLIPPED, process)
    await gateway.db.pool.execute(_OF_NOBODY, 1000)
    for _ in range(8):
        await advance_due(worker)
    assert await waiting(gateway) == 1000


async def test_one_that_nobody_waits_for_stops_being_new(
    town: Driver, drains: Drains, gateway: Gateway, worker: Runner, without_round: None
) -> None:
    """Nothing is looked at again and again because it waits for nobody."""
    await opened(town, drains, gateway)
    await gateway.db.pool.execute(_OF_NOBODY, 50)
    mailboxes = worker.news._mailboxes
    newest = await gateway.db.pool.fetchval("SELECT max(id) FROM signals")
    for _ in range(3):
        await advance_due(worker)
    # A transaction of a test beside this one holds the line back while it is open.
    async with asyncio.timeout(30):
        while (mailboxes._floor, len(mailboxes._lines)) != (newest, 1):
            await asyncio.sleep(0.1)
            await advance_due(worker)
