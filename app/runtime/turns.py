"""Turns: exclusive actions of an instance go one at a time, by a lease on its state row."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

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
_LONGEST_WAIT = 0.25


@contextlib.asynccontextmanager
async def turn(db: Database, instance_id: str, *, lease: float, patience: float) -> AsyncIterator[int]:
    """Hold the instance's turn, for `lease` seconds at most; yields its epoch.

    Raises Conflict when the turn does not come within `patience` seconds.
    """
    wait = _FIRST_WAIT
    give_up = time.monotonic() + patience
    while (epoch := await db.pool.fetchval(_TAKE, instance_id, lease)) is None:
        if time.monotonic() > give_up:
            raise Conflict("the instance is busy with other exclusive actions; try again", slug="busy")
        await asyncio.sleep(wait)
        wait = min(wait * 2, _LONGEST_WAIT)
    try:
        yield epoch
    finally:
        await db.pool.execute(_GIVE_BACK, instance_id, epoch)
