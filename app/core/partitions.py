"""Tables partitioned by time: partitions made ahead, old ones dropped, and a DEFAULT partition as the net below them.

Such a table is `PARTITION BY RANGE (id)`: ids sort by the time they were made at, so the primary key stays the id and a
look-up by id opens one partition. Whatever finds no partition lands in the DEFAULT one: an insert never fails for want
of a partition, and the row moves when its partition is made.

Each step is one short transaction under an advisory lock, so that any number of processes may do this at once. A step
waits for the locks that keep others out no longer than `_SHORT`, which is how long it can hold others up; then it gives
way and is tried again. Only moving rows out of the DEFAULT partition takes as long as there are rows.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.batches import delete_in_batches
from app.core.db import Database, Pool
from app.core.ids import lowest_id, moment_of

AHEAD = timedelta(days=14)
"""For how long partitions are there in advance: so long may no worker run before rows land in the DEFAULT one."""
_MOST_KEPT = 14
"""About how many partitions a table has, besides those ahead: each costs every statement that cannot name one."""
_MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
_LOCK = 1_886_548_084
"""The first half of the advisory lock's key; the second is the table's."""
_SHORT = "250ms"
_PATIENT = "5s"
_TRIES = 8
_PAUSE = 0.5
_GAVE_WAY = frozenset({"55P03", "40P01", "23514"})
"""lock_not_available, deadlock_detected, and check_violation: a row slipped into the DEFAULT partition meanwhile."""
_BOUNDS = re.compile(r"FOR VALUES FROM \('([^']+)'\) TO \('([^']+)'\)")

_log = structlog.get_logger(__name__)

_PARTITIONS = """
SELECT c.relname AS name, pg_get_expr(c.relpartbound, c.oid) AS bounds
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = CAST(CAST($1 AS text) AS regclass)
"""
_HAS = text("""
SELECT EXISTS (
    SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = CAST(CAST(:parent AS text) AS regclass) AND c.relname = :name
)
""")


@dataclass(frozen=True, slots=True)
class Partitioned:
    """A table, the prefix of its ids, and the storage parameters of its partitions, which a parent cannot carry."""

    table: str
    prefix: str
    storage: str = ""

    @property
    def default(self) -> str:
        """The partition of what has no other."""
        return f"{self.table}_default"


class Span(NamedTuple):
    """A partition's time, `end` not included. Spans sort by time."""

    start: datetime
    end: datetime


def width(keep: timedelta) -> timedelta:
    """How long a partition's time is, so that keeping takes some fourteen of them at most.

    A day, a week where more than fourteen days are kept, and several weeks where more than that makes too many.
    """
    if keep <= timedelta(days=_MOST_KEPT):
        return timedelta(days=1)
    return timedelta(weeks=math.ceil(keep / timedelta(weeks=_MOST_KEPT)))


def missing(present: Sequence[Span], since: datetime, until: datetime, wide: timedelta) -> list[Span]:
    """The spans between `since` and `until` that no partition covers, cut at multiples of `wide` from a Monday on."""
    start = since - (since - _MONDAY) % wide
    spans: list[Span] = []
    while start < until:
        spans += _uncovered(Span(start, start + wide), sorted(present))
        start += wide
    return spans


def _uncovered(span: Span, present: Sequence[Span]) -> Iterator[Span]:
    start = span.start
    for other in present:
        if other.end <= start or other.start >= span.end:
            continue
        if other.start > start:
            yield Span(start, other.start)
        start = other.end
    if start < span.end:
        yield Span(start, span.end)


async def oldest(pool: Pool, table: Partitioned) -> datetime | None:
    """From when on the table has partitions; None while it has only the DEFAULT one."""
    present = await _present(pool, table)
    return min(present.values()).start if present else None


async def make_ahead(db: Database, table: Partitioned, keep: timedelta) -> int:
    """Make the partitions that are missing from now to `AHEAD`, and those for rows to keep that lie in the DEFAULT one.

    Returns how many were made. Those whose locks were not to be had are left for the next time.
    """
    now = await db.now()
    present = await _present(db.pool, table)
    wanted = missing(list(present.values()), now - keep, now + AHEAD, width(keep))
    strays = await _with_strays(db.pool, table, [span for span in wanted if span.end <= now])
    made = 0
    for span in wanted:
        if span.end > now or span in strays:
            made += await _insist(partial(_make, db, table, span, now), _name(table, span))
    return made


async def drop_old(db: Database, table: Partitioned, keep: timedelta) -> int:
    """Drop the partitions that hold nothing younger than `keep`, and delete such rows from the DEFAULT one.

    Returns how many partitions were dropped. Those whose locks were not to be had are left for the next time.
    """
    before = await db.now() - keep
    dropped = 0
    for name, span in (await _present(db.pool, table)).items():
        if span.end <= before:
            dropped += await _insist(partial(_drop, db, table, name), name)
    await delete_in_batches(db, table.default, "id < :lowest", lowest=lowest_id(table.prefix, before))
    return dropped


async def _present(pool: Pool, table: Partitioned) -> dict[str, Span]:
    """The partitions by name, without the DEFAULT one."""
    rows = await pool.fetch(_PARTITIONS, table.table)
    # One that somebody has just dropped may be listed still, and has no bounds any more.
    found = {row["name"]: _BOUNDS.fullmatch(row["bounds"] or "") for row in rows}
    return {name: Span(moment_of(match[1]), moment_of(match[2])) for name, match in found.items() if match}


async def _with_strays(pool: Pool, table: Partitioned, spans: Sequence[Span]) -> set[Span]:
    """Those of the spans that rows in the DEFAULT partition belong to."""
    bounds = [[lowest_id(table.prefix, moment) for moment in side] for side in zip(*spans, strict=True)] or [[], []]
    rows = await pool.fetch(
        "SELECT s.place FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS s(lowest, beyond, place) "  # noqa: S608
        f"WHERE EXISTS (SELECT FROM {table.default} d WHERE d.id >= s.lowest AND d.id < s.beyond)",
        *bounds,
    )
    return {spans[row["place"] - 1] for row in rows}


async def _insist(step: Callable[[], Awaitable[bool]], what: str) -> bool:
    """Try a step again while others hold its locks, a little later each time."""
    for attempt in range(1, _TRIES + 1):
        try:
            return await step()
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _GAVE_WAY:
                raise
        await asyncio.sleep(_PAUSE * attempt)
    _log.warning("a partition is left for the next time: others held its table", partition=what)
    return False


async def _make(db: Database, table: Partitioned, span: Span, now: datetime) -> bool:
    name = _name(table, span)
    lowest, beyond = (lowest_id(table.prefix, moment) for moment in span)
    with_storage = f" WITH ({table.storage})" if table.storage else ""
    async with db.begin() as session:
        if await _take_turn(session, table, name):
            return False
        await _hold_off_vacuum(session, table.default)
        # Beside the table and then attached, which locks the parent against no reader or writer, while CREATE TABLE …
        # PARTITION OF locks everybody out. ATTACH looks through the DEFAULT partition under a lock; it is empty.
        await session.execute(text(f"CREATE TABLE {name} (LIKE {table.table} INCLUDING DEFAULTS){with_storage}"))
        if span.start <= now:
            # Rows may be on their way into the DEFAULT partition: an insert that has chosen it already would fail when
            # it finds the partition made. So this once everybody waits, for as long as the move takes.
            await session.execute(text(f"LOCK TABLE ONLY {table.table} IN ACCESS EXCLUSIVE MODE"))
        await session.execute(
            text(
                f"WITH moved AS (DELETE FROM {table.default} WHERE id >= :lowest AND id < :beyond RETURNING *) "  # noqa: S608
                f"INSERT INTO {name} SELECT * FROM moved"
            ),
            {"lowest": lowest, "beyond": beyond},
        )
        await session.execute(
            text(f"ALTER TABLE {table.table} ATTACH PARTITION {name} FOR VALUES FROM ('{lowest}') TO ('{beyond}')")
        )
    _log.info("partition made", partition=name)
    return True


def _name(table: Partitioned, span: Span) -> str:
    return f"{table.table}_{span.start:%Y%m%d}"


async def _drop(db: Database, table: Partitioned, name: str) -> bool:
    async with db.begin() as session:
        if not await _take_turn(session, table, name):
            return False
        await _hold_off_vacuum(session, name, table.default)
        # Detaches and drops in one; the files are removed after the locks are given back. DETACH CONCURRENTLY is not
        # to be had beside a DEFAULT partition, and locks as much for its second half.
        await session.execute(text(f"DROP TABLE {name}"))
    _log.info("partition dropped", partition=name)
    return True


async def _take_turn(session: AsyncSession, table: Partitioned, name: str) -> bool:
    """Wait until nobody else changes the table's partitions. Returns whether it has this one by then."""
    await session.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK}, hashtext('{table.table}'))"))
    # Read from the catalogue itself: names looked up by to_regclass() may be as they were before the wait.
    return bool(await session.scalar(_HAS, {"parent": table.table, "name": name}))


async def _hold_off_vacuum(session: AsyncSession, *names: str) -> None:
    """Keep autovacuum from these partitions, and from here on wait but shortly for locks.

    Autovacuum gives way only to who has waited for a second, which nobody else should have to. The lock taken here
    keeps out autovacuum and no statement.
    """
    await session.execute(text(f"SET LOCAL lock_timeout = '{_PATIENT}'"))
    await session.execute(text(f"LOCK TABLE ONLY {', ONLY '.join(names)} IN SHARE UPDATE EXCLUSIVE MODE"))
    await session.execute(text(f"SET LOCAL lock_timeout = '{_SHORT}'"))
