"""Ten thousand votes whose deadlines come within a minute: each closes once, in time, whoever was away meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from app.core.db import plain_dsn
from app.core.embedded import Postgres, Valkey
from benchmarks.copies import copy_vote
from tests.faults.clones import VotesRig, make_template, open_votes
from tests.faults.rig import until

VOTES = int(os.environ.get("METAGOV_FAULT_DEADLINES", "10000"))
SPREAD = timedelta(seconds=60)
SHORT_SPREAD = timedelta(seconds=15)
LEAD = timedelta(seconds=8)
"""From the copying to the first deadline."""
LATEST = 5.0
"""Seconds after its deadline that a vote may close at the latest."""
CAUGHT_UP_PER_SECOND = 500
SETTLE_SECONDS = 90.0
WORKERS = ("worker 1", "worker 2")

ASKED = {"title": "Which tree?", "options": ["apple", "pear"], "eligible_voters": ["ada", "bob"], "quorum": 0.5}

# A deferred trigger runs as the transaction is being committed: nobody can have seen the end any earlier.
_WATCH = """
CREATE TABLE test_ends (process text, at timestamptz, due timestamptz);
CREATE FUNCTION test_note_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO test_ends VALUES (NEW.id, clock_timestamp(), NEW.closing_at);
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER test_note_end AFTER UPDATE ON processes DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (NEW.status = 'completed' AND OLD.status <> 'completed') EXECUTE FUNCTION test_note_end();
"""
_ENDS = "SELECT process, extract(epoch FROM at)::float8 AS at, extract(epoch FROM due)::float8 AS due FROM test_ends"
_OUTCOMES = """
SELECT process_id, count(*) FILTER (WHERE kind = 'close') AS closed, count(*) AS steps,
    min(reason) FILTER (WHERE kind = 'close') AS reason FROM process_transitions GROUP BY process_id
"""
_TOLD = """
SELECT data->>'id' AS process, data->'outcome'->>'total_voters' AS voters FROM events
WHERE source = 'ballot' AND event_type = 'process.updated' AND data->>'status' = 'completed'
"""
_AT_REST = "SELECT count(*) FROM processes WHERE lease_until IS NOT NULL OR next_at IS DISTINCT FROM closing_at"


@dataclass(frozen=True, slots=True)
class End:
    """When a vote ended and when it should have, by the database's clock, in seconds since 1970."""

    process: str
    at: float
    due: float

    @property
    def late(self) -> float:
        return self.at - self.due


@asynccontextmanager
async def polls(servers: tuple[Postgres, Valkey], folder: Path) -> AsyncIterator[VotesRig]:
    """A gateway with the ballot plugin, two workers, and a witness of each end."""
    template = await make_template(*servers)
    async with open_votes(template, folder, METAGOV_DATABASE_POOL="10") as rig:
        async with rig.client() as http:
            enabled = await http.post("/api/internal/plugin/ballot", json={})
            assert enabled.status_code == 201, enabled.text
        await execute(rig, _WATCH)
        for worker in WORKERS:
            rig.start(worker)
        yield rig


async def execute(rig: VotesRig, statements: str) -> None:
    connection = await asyncpg.connect(plain_dsn(rig.database_url))
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


async def start(rig: VotesRig, http: httpx.AsyncClient, closing_at: datetime) -> dict[str, Any]:
    """A vote started over HTTP, and at rest."""
    wanted = {**ASKED, "closing_at": closing_at.isoformat()}
    answer = await http.post("/api/internal/process/ballot.vote", json=wanted)
    assert answer.status_code == 202, answer.text

    async def at_rest() -> bool:
        return await rig.count(_AT_REST) == 0

    await until(at_rest, 30, "the vote is started, and nothing is to be done about it")
    process: dict[str, Any] = answer.json()
    return process


async def copy(rig: VotesRig, original: str, first: datetime, spread: timedelta, count: int) -> list[str]:
    """So many votes like that one, their deadlines spread evenly."""
    connection = await asyncpg.connect(plain_dsn(rig.database_url))
    try:
        async with connection.transaction():
            ids = await copy_vote(connection, original, [first + spread * n / count for n in range(count)])
        await connection.execute("ANALYZE processes")
    finally:
        await connection.close()
    return ids


async def check_copy(rig: VotesRig, http: httpx.AsyncClient, started: dict[str, Any], copied: str) -> None:
    """A copy is, in every column of its row and its history, what a start over HTTP with that deadline has made."""
    query = "SELECT row_to_json(p) FROM processes p WHERE id = $1"
    history = "SELECT row_to_json(t) FROM process_transitions t WHERE process_id = $1"
    found = []
    for process in (started["id"], copied):
        row = json.loads((await rig.rows(query, process))[0][0])
        steps = [json.loads(step[0]) for step in await rig.rows(history, process)]
        shown = await http.get(f"/api/internal/process/ballot.vote/{process}")
        assert shown.status_code == 200, shown.text
        assert row["key"] == row["id"] == process
        own = {"id", "key", "idempotency_key", "created_at", "epoch"}
        found.append(
            (
                {name: value for name, value in row.items() if name not in own},
                [{name: value for name, value in step.items() if name not in ("process_id", "at")} for step in steps],
                {name: value for name, value in shown.json().items() if name not in ("id", "created_at")},
            )
        )
    assert found[0] == found[1]
    assert found[0][0]["status"] == "pending"
    assert len(found[0][1]) == 1


async def crowd(rig: VotesRig, spread: timedelta, count: int) -> list[str]:
    """Votes that close from a few seconds on; one of them is compared with what HTTP makes of the same wish."""
    async with rig.client(timeout=30) as http:
        far = datetime.now(UTC) + timedelta(days=1, microseconds=1)
        original = await start(rig, http, far)
        twin = await start(rig, http, far + timedelta(seconds=1))
        (copied,) = await copy(rig, original["id"], far + timedelta(seconds=1), timedelta(0), 1)
        await check_copy(rig, http, twin, copied)
        return await copy(rig, original["id"], datetime.now(UTC) + LEAD, spread, count)


async def ends(rig: VotesRig) -> list[End]:
    return [End(*row) for row in await rig.rows(_ENDS)]


async def check_ends(rig: VotesRig, ids: Sequence[str]) -> list[End]:
    """Each has ended once, by its deadline, with one outcome, one step and one event. Returns the ends."""
    found = await ends(rig)
    assert sorted(end.process for end in found) == sorted(ids), "each has ended, and once"
    outcomes = {row["process_id"]: row for row in await rig.rows(_OUTCOMES)}
    assert {(outcomes[one]["closed"], outcomes[one]["steps"], outcomes[one]["reason"]) for one in ids} == {
        (1, 2, "deadline")
    }
    told = await rig.rows(_TOLD)
    assert sorted(row["process"] for row in told) == sorted(ids), "one event each"
    assert {row["voters"] for row in told} == {"0"}
    assert await rig.count("SELECT count(*) FROM processes WHERE status = 'completed' AND errors::text <> '{}'") == 0
    assert [end for end in found if end.late < 0] == [], "none early"
    return found


def shares(values: Sequence[float]) -> str:
    """How values are distributed."""
    ordered = sorted(values)
    picked = {share: ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0, 0.5, 0.9, 0.99, 1)}
    return ", ".join(f"{share:.0%} {value:.3f} s" for share, value in picked.items())


async def all_over(rig: VotesRig, count: int, seconds: float) -> float:
    async def over() -> bool:
        return await rig.count("SELECT count(*) FROM test_ends") >= count

    return await until(over, seconds, f"{count} votes are over")


async def test_each_of_many_deadlines_is_kept(servers: tuple[Postgres, Valkey], tmp_path: Path) -> None:
    async with polls(servers, tmp_path) as rig:
        ids = await crowd(rig, SPREAD, VOTES)
        await all_over(rig, len(ids), LEAD.total_seconds() + SPREAD.total_seconds() + SETTLE_SECONDS)
        await asyncio.sleep(1)  # whatever would end or tell one twice has time to
        found = await check_ends(rig, ids)
        print(f"\n{len(found)} votes within {SPREAD.seconds} s, two workers; late by {shares([e.late for e in found])}")
        assert max(end.late for end in found) <= LATEST


async def test_deadlines_that_come_while_no_worker_is_there(servers: tuple[Postgres, Valkey], tmp_path: Path) -> None:
    async with polls(servers, tmp_path) as rig:
        ids = await crowd(rig, SHORT_SPREAD, VOTES)
        for worker in WORKERS:
            rig.kill(worker)
        await execute(rig, "DELETE FROM heartbeats")

        async def passed() -> bool:
            left = "SELECT count(*) FROM processes WHERE closing_at > now() AND id = ANY($1)"
            return await rig.count(left, ids) == 0

        await until(passed, LEAD.total_seconds() + SHORT_SPREAD.total_seconds() + 10, "the last deadline has passed")
        assert await ends(rig) == [], "nobody was there to close them"
        for worker in WORKERS:
            rig.start(worker)

        async def back() -> bool:
            return await rig.count("SELECT count(*) FROM heartbeats WHERE role = 'worker'") > 0

        booted = await until(back, 60, "a worker is back")
        (row,) = await rig.rows("SELECT extract(epoch FROM clock_timestamp())::float8")
        await all_over(rig, len(ids), SETTLE_SECONDS)
        found = await check_ends(rig, ids)
        after = [end.at - row[0] for end in found]
        print(f"\n{len(found)} votes due for up to {SHORT_SPREAD.seconds} s; a worker was back after {booted:.1f} s")
        print(f"closed, after that: {shares(after)}; late by {shares([end.late for end in found])}")
        assert max(after) <= LATEST + len(ids) / CAUGHT_UP_PER_SECOND
