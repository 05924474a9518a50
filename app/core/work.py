"""Work rows: the one pattern by which anything waits to be done.

A table that mixes in `WorkRow` is a queue. A row is due when `next_at` has come and no live lease holds it. Claiming
raises `epoch`; finishing and failing write only under the epoch they claimed, so that a worker that slept past its
lease changes nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

import structlog
from sqlalchemy import Index, func, null, or_, select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Database

_LOOK_AGAIN = 0.25
"""Seconds after which more is claimed beside rows that take their time."""

_log = structlog.get_logger(__name__)


class WorkRow:
    """The columns of a queue. `attempt` counts tries since the row last succeeded."""

    id: Mapped[str]
    next_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    lease_until: Mapped[datetime | None]
    epoch: Mapped[int] = mapped_column(default=0, server_default="0")
    attempt: Mapped[int] = mapped_column(default=0, server_default="0")


def due_index(table: str) -> Index:
    """The index a queue's claims walk: only rows that wait are in it."""
    return Index(f"ix_{table}_due", "next_at", postgresql_where="next_at IS NOT NULL")


RowT = TypeVar("RowT", bound=WorkRow)


async def claim(session: AsyncSession, table: type[RowT], *, limit: int, lease: timedelta) -> Sequence[RowT]:
    """Take up to `limit` due rows, oldest first; rows that others hold are passed over."""
    now = func.clock_timestamp()
    due = (
        select(table.id)
        .where(table.next_at <= now, or_(table.lease_until.is_(None), table.lease_until < now))
        .order_by(table.next_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    rows = await session.scalars(
        update(table)
        .where(table.id.in_(select(due.c.id)))
        .values(lease_until=now + lease, epoch=table.epoch + 1, attempt=table.attempt + 1)
        .returning(table)
        .execution_options(synchronize_session=False)
    )
    return sorted(rows, key=lambda row: row.id)


async def extend(session: AsyncSession, held: WorkRow, lease: timedelta) -> bool:
    """Keep a row for longer. False: another worker has it by now."""
    return await _write(session, held, {"lease_until": func.clock_timestamp() + lease})


async def finish(session: AsyncSession, held: WorkRow, *, next_at: Any = None, **values: Any) -> bool:
    """The work is done (until `next_at`, if given). False: the lease was lost, and the caller must roll back."""
    done = {"next_at": null() if next_at is None else next_at, "lease_until": null(), "attempt": 0, **values}
    return await _write(session, held, done)


async def fail(session: AsyncSession, held: WorkRow, *, retry_in: timedelta | None, **values: Any) -> bool:
    """The try failed: again after `retry_in`, or never (None). False: the lease was lost."""
    next_at = null() if retry_in is None else func.clock_timestamp() + retry_in
    return await _write(session, held, {"next_at": next_at, "lease_until": null(), **values})


async def _write(session: AsyncSession, held: WorkRow, values: dict[str, Any]) -> bool:
    table = type(held)
    result = await session.execute(
        update(table)
        .where(table.id == held.id, table.epoch == held.epoch)
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    return isinstance(result, CursorResult) and result.rowcount == 1


class LostLease(Exception):
    """Raised inside a transaction to undo it: another worker has taken the row over."""


def backoff(attempt: int, *, first: float = 1.0, most: float = 3600.0) -> timedelta:
    """Exponential with ±20 % jitter: `first` seconds after the first try, doubling, at most `most`."""
    seconds = min(most, first * 2.0 ** min(attempt - 1, 30))
    return timedelta(seconds=seconds * random.uniform(0.8, 1.2))  # noqa: S311 -- spreads load, guards nothing


async def drain(
    db: Database,
    table: type[RowT],
    work: Callable[[RowT], Awaitable[None]],
    *,
    limit: int,
    lease: timedelta,
    pull: Callable[[], Awaitable[None]] | None = None,
) -> int:
    """Work on due rows, at most `limit` at once, until none is in hand. Returns how many there were.

    Each row is by itself: one that fails never fails the others, and while one takes its time more are claimed.
    `pull` is called before each claim, to make rows due that have news.
    """
    total = 0
    in_hand: set[asyncio.Task[None]] = set()
    try:
        while True:
            if len(in_hand) < limit:
                if pull is not None:
                    await pull()
                async with db.begin() as session:
                    claimed = await claim(session, table, limit=limit - len(in_hand), lease=lease)
                total += len(claimed)
                in_hand |= {asyncio.create_task(_guarded(work, held)) for held in claimed}
            if in_hand:
                _, in_hand = await asyncio.wait(in_hand, timeout=_LOOK_AGAIN)
            if not in_hand:
                return total
    except Exception:
        # What is in hand is finished all the same: cutting off a call to a platform would leave its outcome unknown.
        if in_hand:
            await asyncio.wait(in_hand)
        raise
    finally:
        for task in in_hand:
            task.cancel()
        await asyncio.gather(*in_hand, return_exceptions=True)


async def _guarded(work: Callable[[RowT], Awaitable[None]], held: RowT) -> None:
    try:
        await work(held)
    except LostLease:
        _log.warning("lease lost, another worker goes on", row=held.id)
    except Exception:
        # The row keeps its lease and is due again when it ends: a failure nobody foresaw is retried, never dropped.
        _log.exception("work failed unexpectedly; it is retried", row=held.id)
