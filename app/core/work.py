"""Work rows: the one pattern by which anything waits to be done.

A table that mixes in `WorkRow` is a queue. A row is due when `next_at` has come and no live lease holds it. Claiming
raises `epoch`; finishing and failing write only under the epoch they claimed, so that a worker that slept past its
lease changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

import structlog
from sqlalchemy import Index, Integer, any_, cast, func, null, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY, TEXT
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import Database

LEASE = timedelta(seconds=15)
"""How long a row is held where the lease is renewed while it is in hand (`keeping`): what a worker had in hand that was
killed goes on after this, however long the work may take."""
_KEEP_SECONDS = 5.0
_LOOK_AGAIN = 0.25
"""Seconds after which more is claimed beside items that take their time, whether there is news or not."""

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


class Claimed(Protocol):
    """What `drain` works on: a row, or what stands for one."""

    @property
    def id(self) -> str:
        """The row's id."""

    @property
    def epoch(self) -> int:
        """Of its claim."""


Keep = Callable[[Mapping[str, int]], Awaitable[None]]
ItemT = TypeVar("ItemT", bound=Claimed)


async def claim(session: AsyncSession, table: type[RowT], *, limit: int, lease: timedelta) -> Sequence[RowT]:
    """Take up to `limit` due rows, oldest first; rows that others hold are passed over."""
    now = func.clock_timestamp()
    # now() and not clock_timestamp(), which no index can be searched by: what is due later is not walked past.
    begun = func.now()
    due = (
        select(table.id)
        .where(table.next_at <= begun, or_(table.lease_until.is_(None), table.lease_until < begun))
        .order_by(table.next_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    rows = await session.scalars(
        update(table)
        # As an array: over partitions, the planner may take reading all of them for cheaper than joining the ids.
        .where(table.id == any_(func.array(select(due.c.id).scalar_subquery())))
        .values(lease_until=now + lease, epoch=table.epoch + 1, attempt=table.attempt + 1)
        .returning(table)
        .execution_options(synchronize_session=False)
    )
    return sorted(rows, key=lambda row: row.id)


def claiming(
    db: Database, table: type[RowT], lease: timedelta, *, pull: Callable[[AsyncSession], Awaitable[None]] | None = None
) -> Callable[[int], Awaitable[Sequence[RowT]]]:
    """What `drain` claims a queue's rows by; `pull` runs before, to make rows due that have news."""

    async def take(limit: int) -> Sequence[RowT]:
        async with db.begin() as session:
            if pull is not None:
                await pull(session)
            return await claim(session, table, limit=limit, lease=lease)

    return take


def keeping(db: Database, table: type[WorkRow], lease: timedelta = LEASE) -> Keep:
    """What `drain` renews the leases of rows in hand by: their ids, with the epochs of their claims."""

    async def keep(held: Mapping[str, int]) -> None:
        ids = cast(list(held), ARRAY(TEXT))
        claimed = (
            func.unnest(ids, cast(list(held.values()), ARRAY(Integer)))
            .table_valued("id", "epoch")
            .render_derived(name="claimed")
        )
        async with db.begin() as session:
            await session.execute(
                update(table)
                # Rows that are done and let go of have no lease to renew.
                .where(
                    table.id == claimed.c.id,
                    table.epoch == claimed.c.epoch,
                    table.id == any_(ids),
                    table.lease_until.is_not(None),
                )
                .values(lease_until=func.clock_timestamp() + lease)
                .execution_options(synchronize_session=False)
            )

    return keep


async def extend(session: AsyncSession, held: WorkRow, lease: timedelta) -> bool:
    """Keep a row for longer. False: another worker has it by now."""
    return await _write(session, held, {"lease_until": func.clock_timestamp() + lease})


async def finish(session: AsyncSession, held: WorkRow, *, next_at: Any = None, **values: Any) -> bool:
    """The work is done (until `next_at`, if given). False: the lease was lost, and the caller must roll back."""
    done = {"next_at": null() if next_at is None else next_at, "lease_until": null(), "attempt": 0, **values}
    return await _write(session, held, done)


async def finish_all(session: AsyncSession, held: Sequence[RowT], **values: Any) -> set[str]:
    """The work on these rows of one table is done. Returns the ids of those whose lease was not lost."""
    table = type(held[0])
    ids = cast([row.id for row in held], ARRAY(TEXT))
    claimed = (
        func.unnest(ids, cast([row.epoch for row in held], ARRAY(Integer)))
        .table_valued("id", "epoch")
        .render_derived(name="claimed")
    )
    return set(
        await session.scalars(
            update(table)
            # The ids once more, as an array: it says which partitions to look into.
            .where(table.id == claimed.c.id, table.epoch == claimed.c.epoch, table.id == any_(ids))
            .values(next_at=null(), lease_until=null(), attempt=0, **values)
            .returning(table.id)
            .execution_options(synchronize_session=False)
        )
    )


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
    claim: Callable[[int], Awaitable[Sequence[ItemT]]],
    work: Callable[[ItemT], Awaitable[None]],
    *,
    limit: int,
    news: asyncio.Event | None = None,
    keep: Keep | None = None,
) -> int:
    """Work on what `claim` takes of a queue, at most `limit` at once, until none is in hand. Returns how many.

    Each item is by itself: one that fails never fails the others. More is claimed when half of what there was is
    done, and beside items that take their time when `news` is set (it is cleared here) or some time has passed.
    `keep` renews the leases of what takes longer than a few seconds.
    """
    total = 0
    in_hand: dict[asyncio.Task[None], ItemT] = {}
    enough = 0
    keep_at = time.monotonic() + _KEEP_SECONDS
    changed = asyncio.Event() if news is None else news

    def done(task: asyncio.Task[None]) -> None:
        del in_hand[task]
        if len(in_hand) <= enough:
            changed.set()

    try:
        while True:
            # Before the claim and not after it: what it came too early to see rings again.
            changed.clear()
            if keep is not None and in_hand and time.monotonic() >= keep_at:
                await keep({item.id: item.epoch for item in in_hand.values()})
                keep_at = time.monotonic() + _KEEP_SECONDS
            if len(in_hand) < limit:
                claimed = await claim(limit - len(in_hand))
                total += len(claimed)
                for item in claimed:
                    task = asyncio.create_task(_guarded(work, item))
                    in_hand[task] = item
                    task.add_done_callback(done)
                enough = len(in_hand) // 2 if claimed else 0
            if not in_hand:
                return total
            await _wait_for_room(changed, in_hand, limit // 2)
            if not in_hand and not enough:
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


async def _wait_for_room(changed: asyncio.Event, in_hand: Collection[object], few: int) -> None:
    """Until something has changed and few are in hand, or a moment has passed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LOOK_AGAIN):
            await changed.wait()
            while len(in_hand) > few:
                changed.clear()
                await changed.wait()


async def _guarded(work: Callable[[ItemT], Awaitable[None]], item: ItemT) -> None:
    try:
        await work(item)
    except LostLease:
        _log.warning("lease lost, another worker goes on", row=item.id)
    except Exception:
        # The row keeps its lease and is due again when it ends: a failure nobody foresaw is retried, never dropped.
        _log.exception("work failed unexpectedly; it is retried", row=item.id)
