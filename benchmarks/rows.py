"""Rows of the gateway's tables, made and removed past the gateway."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import asyncpg

from app.core.ids import lowest_id
from benchmarks import requests
from benchmarks.stack import Stack

_MOST_SECONDS = 60.0

# Everything becomes visible at once, with statistics, as in a database that has been in use for a while.
_EVENTS = """
INSERT INTO events (id, driver_id, community_id, community, source, event_type, timestamp, data)
SELECT 'evt_' || $1 || substr(md5(n::text || random()::text), 1, 16), driver_id, id, slug, 'benchmark', 'backlog',
       now(), $2::json
FROM communities, generate_series(1, $3::int) n WHERE slug = $4
"""
_DELIVERIES = """
INSERT INTO deliveries (id, endpoint_id, event_id, lane)
SELECT 'dlv_' || $1 || substr(md5(id || random()::text), 1, 16),
       ($2::text[])[1 + row_number() OVER () % cardinality($2::text[])], id, community_id
FROM events WHERE event_type = 'backlog'
"""


def add_deliveries(stack: Stack, endpoints: Sequence[str], count: int) -> None:
    """So many pending deliveries of as many events of 1.5 KB, dealt out to the endpoints."""

    async def add(connection: asyncpg.Connection[asyncpg.Record]) -> None:
        async with connection.transaction():
            head = time_of_id(datetime.now(UTC))
            await connection.execute(_EVENTS, head, requests.issues_opened().decode(), count, requests.COMMUNITY)
            await connection.execute(_DELIVERIES, head, endpoints)
            await connection.execute("ANALYZE events, deliveries")

    stack.connected(add)


def time_of_id(moment: datetime) -> str:
    """The ten characters of an identifier that tell when it was made; sixteen random ones follow."""
    return lowest_id("", moment)[1:11]


def stop_work(stack: Stack) -> None:
    """Have the worker finish what it has in hand, and nothing else."""
    for queue, values in (("receipts", ""), ("deliveries", ", status = 'dead'")):
        drop = f"UPDATE {queue} SET next_at = NULL{values} WHERE next_at IS NOT NULL AND lease_until IS NULL"
        waiting = f"SELECT FROM {queue} WHERE next_at IS NOT NULL"
        end = time.monotonic() + _MOST_SECONDS
        # More than once: what was in hand may fail and be due again.
        while stack.execute(drop) and stack.wait_until_none(waiting, 0.5) is None:
            if time.monotonic() > end:
                raise RuntimeError(f"the worker did not finish the {queue} it had in hand")


def empty_tables(stack: Stack) -> None:
    """Remove all receipts, events and deliveries. Waits for transactions that are under way."""
    stack.execute("TRUNCATE receipts, events, deliveries, attempts")


def drop_work(stack: Stack) -> None:
    """Both: nothing of one load is left to disturb the next."""
    stop_work(stack)
    empty_tables(stack)
