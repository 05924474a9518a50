"""Turns: exclusive actions of an instance go one at a time, by a lease on its state row."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from weakref import WeakValueDictionary

from app.core.db import Database
from app.core.errors import Conflict

_TAKE = """
INSERT INTO instance_states AS s (instance_id, state_version, lease_until, epoch)
VALUES ($1, 0, clock_timestamp() + make_interval(secs => $2), 1)
ON CONFLICT (instance_id) DO UPDATE SET lease_until = excluded.lease_until, epoch = s.epoch + 1
    WHERE s.lease_until IS NULL OR s.lease_until < clock_timestamp()
RETURNING epoch
"""
_GIVE_BACK = "UPDATE instance_states SET lease_until = NULL WHERE instance_id = $1 AND epoch = $2"
_FIRST_WAIT = 0.01
_LONGEST_WAIT = 0.1


class Turns:
    """The turns that one process takes. Its own calls queue up in order, so that only their first asks the database."""

    def __init__(self) -> None:
        self._queues: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def take(self, db: Database, instance_id: str, *, lease: float, patience: float) -> AsyncIterator[int]:
        """Hold the instance's turn, for `lease` seconds at most; yields its epoch.

        Raises Conflict when the turn does not come within `patience` seconds.
        """
        give_up = time.monotonic() + patience
        queue = self._queues.setdefault(instance_id, asyncio.Lock())
        try:
            async with asyncio.timeout(patience):
                await queue.acquire()
        except TimeoutError:
            raise _busy() from None
        try:
            epoch = await _take(db, instance_id, lease, give_up)
            try:
                yield epoch
            finally:
                await db.pool.execute(_GIVE_BACK, instance_id, epoch)
        finally:
            queue.release()


async def _take(db: Database, instance_id: str, lease: float, give_up: float) -> int:
    wait = _FIRST_WAIT
    while True:
        epoch: int | None = await db.pool.fetchval(_TAKE, instance_id, lease)
        if epoch is not None:
            return epoch
        if time.monotonic() > give_up:
            raise _busy()
        await asyncio.sleep(wait)
        wait = min(wait * 2, _LONGEST_WAIT)


def _busy() -> Conflict:
    return Conflict("the instance is busy with other exclusive actions; try again", slug="busy")
