"""Times the gateway's own functions on a full database, a process of its own: a JSON job on stdin, JSON on stdout.

It fills the tables with rows of the last four weeks that are done with, then reads pages of the log and takes work.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import uvloop

from app.core import partitions
from app.core.db import Database, plain_dsn
from app.core.log import configure_logging
from app.core.settings import load_settings
from app.events.claim import claim as claim_deliveries
from app.events.log import Filter, Position, read_page
from app.events.retention import ATTEMPTS, EVENTS
from app.inbound.claim import claim_receipts
from app.inbound.retention import RECEIPTS
from benchmarks.apart import answer, read_job, say
from benchmarks.rows import time_of_id
from benchmarks.tally import quantile

PAGE = 500
_WEEKS = timedelta(weeks=4)
_KEEP = timedelta(days=30)
_BATCHES = 100
"""Transactions that the rows come in."""
_PAGE_SECONDS = 2.0
"""A kind of page that takes long is read less often."""
AT_A_TIME = 20
"""Rows that one claim takes."""
WARM_UP = 10
"""Claims that are not timed."""
_LEASE = timedelta(seconds=60)

FILTERS = {
    "any event": Filter(),
    "one source of four": Filter(source="source-1"),
    "one type of five": Filter(event_type="type-1"),
    "one community of eight": Filter(community="community-1"),
}
RARE = "one community of a thousand"

# Seven of ten events are the driver's own, the others those of three more. $1 is the driver, $2 the beginnings of ids
# in their order, $3 and $4 the first and the last number of a batch's rows.
_ROWS = "generate_series($3::int, $4::int) n"
_ID = "($2::text[])[1 + (n - $3) * cardinality($2::text[]) / ($4 - $3 + 1)] || substr(md5(n::text), 1, 16)"
_QUIET = "n % 1000 = 505"
_COMMUNITY = "abs(hashint4(-n)) % 8"
_EVENTS = f"""
WITH made AS (
    INSERT INTO events (id, driver_id, community_id, community, source, event_type, timestamp, data)
    SELECT 'evt_' || {_ID},
           CASE WHEN n % 10 < 7 THEN $1 ELSE 'drv_other' || n % 10 END,
           'com_' || CASE WHEN {_QUIET} THEN 'quiet' ELSE ({_COMMUNITY})::text END,
           CASE WHEN {_QUIET} THEN 'quiet' ELSE 'community-' || {_COMMUNITY} END,
           'source-' || abs(hashint4(n)) % 4, 'type-' || abs(hashint4(n + 1)) % 5, now(),
           json_build_object('n', n, 'text', repeat('x', 150))
    FROM {_ROWS} RETURNING id, community_id
)
INSERT INTO deliveries (id, endpoint_id, event_id, lane, status, next_at, attempt)
SELECT 'dlv_' || substr(id, 5), ($5::text[])[1 + row_number() OVER () % cardinality($5::text[])], id, community_id,
       'delivered', NULL, 1
FROM made
"""
_RECEIPTS = f"""
INSERT INTO receipts (id, community_id, instance_id, plugin, hook, status, next_at, headers, body)
SELECT 'rcp_' || {_ID}, 'com_' || {_COMMUNITY}, $1, 'benchmark', '', 'done', NULL, '[]',
       convert_to(repeat('x', 200), 'UTF8')
FROM {_ROWS}
"""
_TABLES = "receipts, events, deliveries, attempts"
# Due work is of now, and is the newest there is.
_DUE = {
    "receipts": "UPDATE receipts SET next_at = clock_timestamp(), status = 'stored' WHERE id IN "
    "(SELECT id FROM receipts ORDER BY id DESC LIMIT $1)",
    "deliveries": "UPDATE deliveries SET next_at = clock_timestamp(), status = 'pending' WHERE id IN "
    "(SELECT id FROM deliveries ORDER BY id DESC LIMIT $1)",
}
_PLACE = """
SELECT era, xid::text AS xid, seq FROM events
WHERE driver_id = $1 AND ($2::text IS NULL OR source = $2) AND ($3::text IS NULL OR event_type = $3)
  AND ($4::text IS NULL OR community = $4)
ORDER BY era DESC, xid DESC, seq DESC OFFSET $5 LIMIT 1
"""


async def fill(db: Database, connection: asyncpg.Connection[asyncpg.Record], job: dict[str, Any], rows: int) -> None:
    """So many rows in each table, nothing else, spread over four weeks; vacuumed, with statistics."""
    await connection.execute(f"TRUNCATE {_TABLES}")
    # Foreign keys are not asked about each row: they hold, and it takes as long as the rows.
    await connection.execute("SET session_replication_role = replica")
    batch, start = max(1, rows // _BATCHES), datetime.now(UTC) - _WEEKS
    step = _WEEKS / _BATCHES
    for number in range(_BATCHES):
        heads = [time_of_id(start + step * (number + part / 100)) for part in range(100)]
        first, last = number * batch + 1, (number + 1) * batch
        await connection.execute(_EVENTS, job["driver"], heads, first, last, job["endpoints"])
        await connection.execute(_RECEIPTS, job["driver"], heads, first, last)
    await connection.execute("RESET session_replication_role")
    for partitioned in (EVENTS, ATTEMPTS, RECEIPTS):
        await partitions.make_ahead(db, partitioned, _KEEP)
    for table in _TABLES.split(", "):
        await connection.execute(f"VACUUM ANALYZE {table}")


async def read_pages(
    db: Database, connection: asyncpg.Connection[asyncpg.Record], job: dict[str, Any]
) -> dict[str, float]:
    """Milliseconds that a page takes, the median, by what is read where."""
    driver, found = job["driver"], dict[str, float]()
    for name, wanted in {**FILTERS, RARE: Filter(community="quiet")}.items():
        total = await _count(connection, driver, wanted)
        for place, left in (("middle", total // 2), ("end", PAGE)):
            found[f"{name}, {place}"] = await _time_page(db, connection, job, wanted, max(0, min(left, total - 1)))
    return found


async def _count(connection: asyncpg.Connection[asyncpg.Record], driver: str, wanted: Filter) -> int:
    query = _PLACE.replace("era, xid::text AS xid, seq", "count(*)").partition("ORDER")[0]
    return int(await connection.fetchval(query, driver, wanted.source, wanted.event_type, wanted.community))


async def _time_page(
    db: Database, connection: asyncpg.Connection[asyncpg.Record], job: dict[str, Any], wanted: Filter, left: int
) -> float:
    """The page that begins `left` fitting events before the end."""
    driver = job["driver"]
    row = await connection.fetchrow(_PLACE, driver, wanted.source, wanted.event_type, wanted.community, left)
    cursor = None if row is None else Position(row["era"], int(row["xid"]), row["seq"]).cursor

    async def read() -> None:
        await read_page(
            db.pool,
            driver,
            after=cursor,
            limit=PAGE,
            event_type=wanted.event_type,
            source=wanted.source,
            community=wanted.community,
        )

    times: list[float] = []
    await read()
    end = time.perf_counter() + _PAGE_SECONDS
    while len(times) < job["pages"] and (len(times) < 3 or time.perf_counter() < end):
        started = time.perf_counter()
        await read()
        times.append(time.perf_counter() - started)
    return 1000 * quantile(times, 0.5)


async def take_work(db: Database, connection: asyncpg.Connection[asyncpg.Record], claims: int) -> dict[str, float]:
    """Milliseconds that taking twenty due rows takes, the 99th percentile, while more are due."""

    async def take_receipts() -> list[str]:
        async with db.begin() as session:
            return [row.id for row in await claim_receipts(session, limit=AT_A_TIME, lease=_LEASE)]

    async def take_deliveries() -> list[str]:
        async with db.begin() as session:
            return [row.id for row in await claim_deliveries(session, room=AT_A_TIME, busy={})]

    return {
        "receipts": await _time_claims(connection, "receipts", take_receipts, claims),
        "deliveries": await _time_claims(connection, "deliveries", take_deliveries, claims),
    }


async def _time_claims(
    connection: asyncpg.Connection[asyncpg.Record], table: str, take: Callable[[], Awaitable[list[str]]], claims: int
) -> float:
    await connection.execute(_DUE[table], (claims + WARM_UP) * AT_A_TIME)
    await connection.execute(f"ANALYZE {table}")
    times: list[float] = []
    for _ in range(claims + WARM_UP):
        started = time.perf_counter()
        taken = await take()
        times.append(time.perf_counter() - started)
        if not taken:
            break
        done = f"UPDATE {table} SET next_at = NULL, lease_until = NULL WHERE id = ANY($1)"
        await connection.execute(done, taken)
    return 1000 * quantile(times[WARM_UP:], 0.99)


async def probe(job: dict[str, Any]) -> dict[str, Any]:
    """What takes how long, by number of rows.

    The job: `driver`; `endpoints` of it; `rows`, several numbers of them; how many `pages` of each kind and how many
    `claims` of each queue are timed.
    """
    settings = load_settings()
    configure_logging(settings)
    found: dict[str, Any] = {}
    connection = await asyncpg.connect(plain_dsn(settings.database_url))
    async with Database(settings) as db:
        for rows in job["rows"]:
            say(f"filling the tables with {rows:,} rows each")
            await fill(db, connection, job, rows)
            say(f"reading the log of {rows:,} events")
            pages = await read_pages(db, connection, job)
            say(f"taking work beside {rows:,} rows that are done")
            found[str(rows)] = {"pages": pages, "claims": await take_work(db, connection, job["claims"])}
    await connection.close()
    return found


if __name__ == "__main__":
    answer(uvloop.run(probe(read_job())))
