"""Row 20: whose vote is in time is counted once, nobody else's, and there is one outcome, whatever comes together."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from app.core.db import plain_dsn
from app.core.settings import Settings
from app.gateway import Gateway
from app.processes.advance import advance_due
from app.processes.barrier import Closing, look
from app.worker import Drains
from metagov_sdk import Retry
from tests.conftest import Driver
from tests.processes.conftest import HEADER, VOTE, cast, counts, open_ballot, state_of, vote
from tests.support import probe


async def passed(gateway: Gateway, process: str) -> None:
    """Wait, by the database's clock, until the process's closing time has come."""
    due = "SELECT closing_at < clock_timestamp() FROM processes WHERE id = $1"
    async with asyncio.timeout(20):
        while not await gateway.db.pool.fetchval(due, process):
            await asyncio.sleep(0.02)


async def closed(driver: Driver, drains: Drains, answer: httpx.Response) -> dict[str, Any]:
    """Drain until the process has completed."""
    async with asyncio.timeout(20):
        while (process := await state_of(driver, answer))["status"] != "completed":
            await drains.until_idle()
            await asyncio.sleep(0.02)
    return process


async def outcomes(gateway: Gateway) -> int:
    """How often a process was told to have completed."""
    query = "SELECT count(*) FROM events WHERE event_type = 'process.updated' AND data ->> 'status' = 'completed'"
    number: int = await gateway.db.pool.fetchval(query)
    return number


@pytest.mark.parametrize("skew", [-3600, 3600])
async def test_200_votes_around_the_deadline(
    town: Driver,
    anonymous: httpx.AsyncClient,
    drains: Drains,
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
    skew: int,
) -> None:
    wall, wall_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: wall() + skew)
    monkeypatch.setattr(time, "time_ns", lambda: wall_ns() + skew * 1_000_000_000)
    started = await town.post(VOTE, {"title": "V1", "seconds": 1.5})
    over = asyncio.Event()

    async def work() -> None:
        while not over.is_set():
            await drains.until_idle()
            await asyncio.sleep(0.01)

    async def send(number: int) -> None:
        await asyncio.sleep(0.4 + number * 0.01)
        await cast(anonymous, "V1", f"v{number}", "yes")

    async with asyncio.TaskGroup() as group:
        group.create_task(work())
        votes = [group.create_task(send(number)) for number in range(200)]
        await asyncio.wait(votes)
        over.set()
    process = await closed(town, drains, started)
    in_time = await gateway.db.pool.fetch(
        "SELECT convert_from(body, 'UTF8')::json ->> 'voter' AS voter FROM receipts "
        "WHERE received_at < (SELECT closing_at FROM processes)"
    )
    assert set(process["outcome"]["votes"]) == {row["voter"] for row in in_time}
    assert 0 < len(in_time) < 200, "some came in time, some late"
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM receipts WHERE status = 'done'") == 200
    assert await outcomes(gateway) == 1


async def test_nothing_closes_early(town: Driver, drains: Drains, gateway: Gateway) -> None:
    started = await town.post(VOTE, {"title": "V1", "seconds": 0.6})
    process = await closed(town, drains, started)
    at = await gateway.db.pool.fetchval("SELECT at FROM process_transitions WHERE kind = 'close'")
    assert at >= datetime.fromisoformat(process["closing_at"])


async def test_a_webhook_has_its_transactions_id_before_its_time(
    town: Driver, anonymous: httpx.AsyncClient, gateway: Gateway
) -> None:
    """Otherwise its transaction could begin after whoever closes has looked for those that are open."""
    clock = "CASE WHEN pg_current_xact_id_if_assigned() IS NULL THEN 'epoch' ELSE clock_timestamp() END"
    await gateway.db.pool.execute(f"ALTER TABLE receipts ALTER received_at SET DEFAULT {clock}")
    try:
        await cast(anonymous, "V1", "ann", "yes")
        assert await gateway.db.pool.fetchval("SELECT received_at > 'epoch' FROM receipts")
    finally:
        await gateway.db.pool.execute("ALTER TABLE receipts ALTER received_at SET DEFAULT clock_timestamp()")


async def test_a_vote_in_an_open_transaction_is_waited_for(
    town: Driver, drains: Drains, gateway: Gateway, settings: Settings
) -> None:
    started = await town.post(VOTE, {"title": "V1", "seconds": 0.5})
    await drains.until_idle()
    slow = await asyncpg.connect(plain_dsn(settings.database_url))
    try:
        vote = slow.transaction()
        await vote.start()
        await slow.execute("SELECT pg_current_xact_id()")
        await slow.execute(
            """INSERT INTO signals (instance_id, process, key, kind, data, at)
            SELECT instance_id, 'vote', 'V1', 'ballot', '{"voter": "ann", "choice": "yes"}', clock_timestamp()
            FROM processes"""
        )
        await passed(gateway, started.json()["id"])
        for _ in range(5):
            await gateway.db.pool.execute("UPDATE processes SET next_at = now()")
            await drains.processes()
        assert (await state_of(town, started))["status"] == "pending"
        assert (await town.http.delete(started.headers["location"], headers=HEADER)).status_code == 409
        await vote.commit()
    finally:
        await slow.close()
    assert (await closed(town, drains, started))["outcome"] == {"votes": {"ann": "yes"}, "why": "deadline"}


async def test_a_webhook_of_before_the_deadline_is_waited_for(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains, gateway: Gateway
) -> None:
    started = await town.post(VOTE, {"title": "V1", "seconds": 0.5})
    probe.BEHAVIOUR["handler"] = Retry("busy")
    await cast(anonymous, "V1", "ann", "yes")
    await drains.until_idle()
    await passed(gateway, started.json()["id"])
    await drains.until_idle()
    assert (await state_of(town, started))["status"] == "pending"
    probe.BEHAVIOUR.clear()
    await gateway.db.pool.execute("UPDATE receipts SET next_at = now()")
    await drains.until_idle()
    assert (await closed(town, drains, started))["outcome"]["votes"] == {"ann": "yes"}


@pytest.mark.parametrize(("status", "wait"), [("retrying", 0), ("dead", 600)])
async def test_what_cannot_be_read_is_counted(
    town: Driver, drains: Drains, gateway: Gateway, status: str, wait: int
) -> None:
    closing_at = await gateway.db.now() + timedelta(seconds=0.5)
    started = await open_ballot(town, closing_at=closing_at.isoformat())
    await gateway.db.pool.execute(
        """INSERT INTO receipts (id, community_id, instance_id, plugin, hook, headers, body, status, next_at)
        SELECT 'rcp_' || n, community_id, instance_id, plugin, '', '[]', '', $1::text,
               CASE WHEN $1 <> 'dead' THEN now() + interval '1 hour' END FROM processes, generate_series(1, 3) AS n""",
        status,
    )
    await passed(gateway, started.json()["id"])
    use = replace(gateway.runner, barrier=timedelta(seconds=wait))
    async with asyncio.timeout(10):
        while (process := await state_of(town, started))["status"] != "completed":
            await advance_due(use)
    assert process["outcome"]["unread"] == 3


async def test_a_vote_that_came_late_does_not_count(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains, gateway: Gateway
) -> None:
    started = await town.post(VOTE, {"title": "V1", "seconds": 0.3})
    await cast(anonymous, "V1", "ann", "yes")
    await passed(gateway, started.json()["id"])
    await cast(anonymous, "V1", "bob", "yes")
    await drains.receipts()
    assert (await closed(town, drains, started))["outcome"]["votes"] == {"ann": "yes"}
    history = (await town.get(f"process/probe.vote/{started.json()['id']}/history")).json()["transitions"]
    assert (history[-1]["kind"], history[-1]["late"]) == ("close", 1)
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM signals WHERE applied_at IS NULL") == 0


async def test_an_accepted_vote_is_counted_though_the_driver_closes(town: Driver, gateway: Gateway) -> None:
    for number in range(6):
        started = await open_ballot(town, title=f"Round {number}")
        process = started.json()["id"]
        casting = [asyncio.create_task(vote(town, process, f"v{n}", "yes")) for n in range(40)]
        await asyncio.sleep(0.01 * number)
        closing = await town.http.delete(started.headers["location"], headers=HEADER)
        answers = await asyncio.gather(*casting)
        assert closing.status_code == 200
        assert {answer.status_code for answer in answers} <= {200, 409}
        accepted = sum(answer.status_code == 200 for answer in answers)
        assert counts(closing.json()["outcome"])["yes"] == accepted
        assert closing.json()["outcome"] == (await state_of(town, started))["outcome"]


async def test_a_closing_waits_for_a_vote_whose_transaction_is_open(
    town: Driver, gateway: Gateway, settings: Settings
) -> None:
    started = await open_ballot(town)
    slow = await asyncpg.connect(plain_dsn(settings.database_url))
    try:
        ballot = slow.transaction()
        await ballot.start()
        await slow.execute(
            """INSERT INTO signals (instance_id, process, key, kind, data, at)
            SELECT instance_id, 'vote', key, 'vote', '{"voter": "ann", "choice": "yes"}', clock_timestamp()
            FROM processes"""
        )
        closing = asyncio.create_task(town.http.delete(started.headers["location"], headers=HEADER))
        await asyncio.sleep(0.3)
        assert not closing.done()
        assert (await vote(town, started.json()["id"], "bob", "no")).status_code == 409, "it takes no more"
        await ballot.commit()
        answer = await closing
    finally:
        await slow.close()
    assert counts(answer.json()["outcome"]) == {"yes": 1, "no": 0}


async def test_driver_and_deadline_at_once_are_one_outcome(town: Driver, drains: Drains, gateway: Gateway) -> None:
    for number in range(4):
        started = await town.post(VOTE, {"title": f"V{number}", "seconds": 0.3})
        await asyncio.sleep(0.22 + 0.02 * number)
        working = asyncio.create_task(drains.until_idle())
        where = started.headers["location"]
        answers = await asyncio.gather(*(town.http.delete(where, headers=HEADER) for _ in range(4)))
        await working
        process = await closed(town, drains, started)
        assert {answer.status_code for answer in answers} <= {200, 409}
        won = [answer for answer in answers if answer.status_code == 200]
        assert len(won) == (1 if process["outcome"]["why"] == "driver" else 0)
    assert await outcomes(gateway) == 4


async def test_many_deadlines_at_once(town: Driver, drains: Drains, gateway: Gateway) -> None:
    await open_ballot(town)
    await gateway.db.pool.execute(
        """INSERT INTO processes (id, community_id, instance_id, plugin, name, status, params, state, state_version,
            outcome, key, idempotency_key, version, next_at, closing_at)
        SELECT 'prc_' || n, community_id, instance_id, plugin, name, status, params, state, state_version, outcome,
            'prc_' || n, 'key ' || n, version, now(), now() FROM processes, generate_series(1, 450) AS n"""
    )
    while await drains.processes():
        pass
    done = "SELECT count(*) FROM process_transitions WHERE reason = 'deadline'"
    assert await gateway.db.pool.fetchval(done) == 450
    assert await outcomes(gateway) == 450


async def test_the_line_lies_behind_a_transaction_that_began_last_of_all(gateway: Gateway) -> None:
    """Nobody has begun or ended anything since: its id is beyond all that a snapshot knows to be over."""
    pool = gateway.db.pool
    async with pool.acquire() as writer:
        begun = writer.transaction()
        await begun.start()
        await writer.execute("SELECT pg_current_xact_id()")
        now = datetime.now(UTC)
        closing = Closing("prc_1", "ins_1", "deadline", now, now, None, None, now)
        gate = (await look(pool, [closing], timedelta(seconds=1)))["prc_1"]
        assert not gate.open
        await begun.rollback()
    again = replace(closing, mark=gate.mark, since=now)
    assert (await look(pool, [again], timedelta(seconds=1)))["prc_1"].open
