"""Doing again what had failed, by the thousand, while the API is killed over it: deliveries and receipts."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import asyncpg
import httpx
import pytest

from app.core.db import plain_dsn
from app.core.killpoints import KillPoint
from tests.faults.clones import VotesRig
from tests.faults.flows import column, dying, idle
from tests.faults.rig import until
from tests.support.servers import wait_ready

# Failed since: dead, or waiting for another attempt. Not to be touched: delivered since, and dead from before.
_DELIVERIES = """
WITH kinds(kind, number, status, next_at, attempt, created_at) AS (VALUES
    ('dead', $1::int, 'dead', NULL::timestamptz, 10, now()),
    ('waiting', $1::int / 10, 'pending', now() + interval '1 hour', 4, now()),
    ('delivered', $1::int / 5, 'delivered', NULL, 1, now()),
    ('old', $1::int / 10, 'dead', NULL, 10, now() - interval '2 days')
), made AS (
    SELECT kinds.*, kind || '-' || serial AS name FROM kinds, generate_series(1, number) AS serial
), stored AS (
    INSERT INTO events (id, driver_id, community_id, community, instance_id, source, event_type, timestamp, data)
    SELECT name, c.driver_id, c.id, c.slug, i.id, 'votes', 'heard', now(), json_build_object('text', name)
    FROM made, communities c JOIN instances i ON i.community_id = c.id
)
INSERT INTO deliveries (id, endpoint_id, event_id, status, next_at, attempt, created_at)
SELECT name, e.id, name, made.status, made.next_at, made.attempt, made.created_at FROM made, endpoints e
"""
_RECEIPTS = """
WITH kinds(kind, number, status) AS (VALUES ('dead', $1::int, 'dead'), ('done', $1::int / 5, 'done')), made AS (
    SELECT kinds.*, kind || '-' || serial AS name FROM kinds, generate_series(1, number) AS serial
)
INSERT INTO receipts (id, community_id, instance_id, plugin, hook, status, attempt, next_at, headers, body)
SELECT name, i.community_id, i.id, 'votes', '', made.status, 12, NULL, '[]',
       convert_to(json_build_object('text', name)::text, 'UTF8')
FROM made, instances i
"""


@dataclass(frozen=True, slots=True)
class Again:
    """One of the two calls: what it is asked of, what is failed before it, and what shows that it was done."""

    path: str
    body: dict[str, str]
    answer: str
    table: str
    wanted: set[str]


async def failed_deliveries(rig: VotesRig, number: int) -> Again:
    """`number` dead deliveries and a tenth as many that wait, beside others that are not to be sent."""
    await rig.rows(_DELIVERIES, number)
    (endpoint,) = await column(rig, "SELECT id FROM endpoints")
    (since,) = await column(rig, "SELECT now() - interval '1 day'")
    assert isinstance(since, datetime)
    wanted = {f"dead-{n}" for n in range(1, number + 1)} | {f"waiting-{n}" for n in range(1, number // 10 + 1)}
    path = f"/api/internal/driver/endpoints/{endpoint}/recover"
    return Again(path, {"since": since.isoformat()}, "recovered", "deliveries", wanted)


async def dead_receipts(rig: VotesRig, number: int) -> Again:
    """`number` dead receipts, beside some that are done."""
    await rig.rows(_RECEIPTS, number)
    wanted = {f"dead-{n}" for n in range(1, number + 1)}
    return Again("/api/internal/receipts/replay", {"plugin": "votes"}, "replayed", "receipts", wanted)


async def ask(rig: VotesRig, again: Again, key: str = "") -> httpx.Response:
    """The driver's call, with that Idempotency-Key or none."""
    async with rig.client(timeout=30) as http:
        return await http.post(again.path, json=again.body, headers={"Idempotency-Key": key} if key else {})


async def due(rig: VotesRig, again: Again) -> int:
    """How many of the failed are due (or past that) by now."""
    names = sorted(again.wanted)
    before = "next_at <= now() OR status IN ('done', 'delivered')"
    return await rig.count(f"SELECT count(*) FROM {again.table} WHERE id = ANY($1::text[]) AND ({before})", names)


async def killed_at(rig: VotesRig, again: Again, point: KillPoint, *, key: str = "") -> None:
    """The API dies at the point; the driver repeats its call to a healthy one, and the failed set is sent once."""
    async with dying(rig, point):
        await ask(rig, again, key)
    committed = point in (KillPoint.RECOVER_COMMITTED, KillPoint.REPLAY_COMMITTED)
    assert await due(rig, again) == (len(again.wanted) if committed else 0), "all or none"
    await repeat(rig, again, left=0 if committed else len(again.wanted), key=key)


async def killed_midway(rig: VotesRig, again: Again) -> None:
    """The API dies while the statement has done one half and waits for a row of the other half."""
    connection = await asyncpg.connect(plain_dsn(rig.database_url))
    try:
        async with connection.transaction():
            # The last in the table: by then it has changed the others.
            last = f"dead-{len([name for name in again.wanted if name.startswith('dead-')])}"
            await connection.execute(f"SELECT FROM {again.table} WHERE id = $1 FOR UPDATE", last)

            async def blocked() -> bool:
                return await _statements(rig, "wait_event_type = 'Lock'") == 1

            async def waiting() -> None:
                await until(blocked, 20, "the statement is in the middle of its work")
                rig.kill("api")

            async with asyncio.TaskGroup() as group:
                group.create_task(waiting())
                with pytest.raises(httpx.TransportError):
                    await ask(rig, again)
    finally:
        await connection.close()
    settled = await _settled(rig, again)
    assert settled in (0, len(again.wanted)), "all or none"
    print(f"\nkilled in the middle of the statement: {settled} due afterwards")
    await repeat(rig, again, left=len(again.wanted) - settled)


async def _settled(rig: VotesRig, again: Again) -> int:
    async def over() -> bool:
        return await _statements(rig, f"query LIKE '%UPDATE {again.table}%' AND state <> 'idle'") == 0

    await until(over, 30, "the dead API's statement has come to its end")
    return await due(rig, again)


async def _statements(rig: VotesRig, which: str) -> int:
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    return await rig.count(f"SELECT count(*) FROM pg_stat_activity WHERE {others} AND {which}")


async def repeat(rig: VotesRig, again: Again, *, left: int, key: str = "") -> None:
    """The call once more, which finds `left` still to be done; then everything is as it should be."""
    rig.start("api")
    await wait_ready(rig.url, 90)
    if key:
        # The dead API cannot let go of the key: the driver is told to wait, here for less than the two minutes.
        refused = await ask(rig, again, key)
        assert (refused.status_code, refused.headers["retry-after"]) == (409, "1")
        await rig.rows("UPDATE idempotency_keys SET locked_until = clock_timestamp()")
    answer = await ask(rig, again, key)
    assert (answer.status_code, answer.json()) == (202, {again.answer: left})

    async def sent() -> bool:
        if len(rig.sink.posts) < len(again.wanted):
            return False
        return await due(rig, again) == len(again.wanted) and await idle(rig)

    await until(sent, 90, "all of it sent")
    texts = Counter(json.loads(post.body)["data"]["text"] for same in rig.posts_by_id().values() for post in same)
    assert texts == Counter(again.wanted), "exactly what had failed, once each"
    assert len(rig.posts_by_id()) == len(again.wanted), "each under an id of its own"
