"""When a process may close: once nothing can come any more that is to be counted.

Whoever stores a webhook or a signal takes a transaction id before reading the clock. So what is stamped before
`closing_at` belongs to a transaction that had its id when that moment came. The closer waits until all transactions
that had one are over, and then, at a deadline, until the instance's webhooks of before it are handled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.core.db import Pool
from metagov_sdk import CloseReason

_PATIENCE = 0.1
"""Seconds that are waited here; transactions that take longer are looked at again later."""
_FIRST_PAUSE = 0.001

# An id of its own: a snapshot's xmax is next to the last that is over, and one that is open may lie beyond it.
_NEXT_XID = "SELECT pg_current_xact_id()::text::bigint"
_OLDEST_XID = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
_UNREAD = """
SELECT t.id,
    EXISTS (SELECT FROM receipts r WHERE r.instance_id = t.instance_id AND r.next_at IS NOT NULL
        AND r.received_at < t.closing_at) AS waits,
    (SELECT count(*) FROM receipts r WHERE r.instance_id = t.instance_id AND r.status = 'dead'
        AND r.received_at >= t.created_at AND r.received_at < t.closing_at) AS dead
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[]) AS t(id, instance_id, created_at, closing_at)
"""
_WAITING = """
SELECT count(*) FROM receipts WHERE instance_id = $1 AND next_at IS NOT NULL AND received_at < $2
"""


@dataclass(frozen=True, slots=True)
class Closing:
    """A process that is to close. `mark` is where an earlier look has drawn its line, and `since` when that was.

    `now` is the database's time.
    """

    id: str
    instance_id: str
    reason: CloseReason
    created_at: datetime
    closing_at: datetime | None
    mark: int | None
    since: datetime | None
    now: datetime


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether it may close. `mark` is what to come back with if not; `unread` counts webhooks that were not handled."""

    closing: Closing
    open: bool
    mark: int
    unread: int = 0


async def look(pool: Pool, closings: Sequence[Closing], patience: timedelta) -> dict[str, Gate]:
    """Wait a moment for those transactions if this is the first look, then say which of the processes may close.

    `patience` is how long after the first look a process waits for webhooks to be handled. What is read of the mailbox
    after this holds all that is to be counted. Call it outside of any transaction, whose own id it would wait for.
    """
    if not closings:
        return {}
    if any(closing.mark is None for closing in closings):
        fresh: int = await pool.fetchval(_NEXT_XID)
        oldest = await _wait(pool, fresh)
    else:
        fresh, oldest = 0, await pool.fetchval(_OLDEST_XID)
    marks = {closing.id: fresh if closing.mark is None else closing.mark for closing in closings}
    crossed = [closing for closing in closings if marks[closing.id] <= oldest]
    unread = await _count_unread(pool, crossed, patience)
    return {
        closing.id: Gate(closing, unread.get(closing.id) is not None, marks[closing.id], unread.get(closing.id) or 0)
        for closing in closings
    }


async def _wait(pool: Pool, mark: int) -> int:
    """Until no transaction before `mark` is open, or the patience is over. Returns the oldest that is."""
    pause = _FIRST_PAUSE
    loop = asyncio.get_running_loop()
    give_up = loop.time() + _PATIENCE
    while True:
        oldest: int = await pool.fetchval(_OLDEST_XID)
        if oldest >= mark or loop.time() > give_up:
            return oldest
        await asyncio.sleep(pause)
        pause *= 2


async def _count_unread(pool: Pool, closings: Sequence[Closing], patience: timedelta) -> dict[str, int | None]:
    """Webhooks of before the closing that nobody could read; None where they are still waited for."""
    if not closings:
        return {}
    rows = await pool.fetch(
        _UNREAD,
        [closing.id for closing in closings],
        [closing.instance_id for closing in closings],
        [closing.created_at for closing in closings],
        [closing.closing_at or closing.now for closing in closings],
    )
    by_id = {closing.id: closing for closing in closings}
    found: dict[str, int | None] = {}
    for row in rows:
        closing = by_id[row["id"]]
        until = closing.closing_at or closing.now
        waited = closing.now - (closing.since or closing.now)
        if row["waits"] and closing.reason == "deadline" and waited < patience:
            found[closing.id] = None
        else:
            waiting = await pool.fetchval(_WAITING, closing.instance_id, until) if row["waits"] else 0
            found[closing.id] = row["dead"] + waiting
    return found
