"""How long events, attempts and deliveries are kept."""

from __future__ import annotations

from datetime import timedelta

from app.core import partitions
from app.core.batches import delete_in_batches
from app.core.db import Database
from app.core.ids import lowest_id
from app.core.partitions import Partitioned

EVENTS = Partitioned("events", "evt")
ATTEMPTS = Partitioned("attempts", "att")


async def drop_old_events(db: Database, keep: timedelta) -> None:
    """Drop events and attempts older than `keep`, and the deliveries of events that are gone, whatever their status.

    A delivery is made right after its event. The few of an event just before a partition's end that fall behind that
    end go with the next partition; they are never posted.
    """
    await partitions.drop_old(db, EVENTS, keep)
    await partitions.drop_old(db, ATTEMPTS, keep)
    horizon = await db.now() - keep
    oldest = await partitions.oldest(db.pool, EVENTS)
    lowest = lowest_id("dlv", horizon if oldest is None else min(oldest, horizon))
    await delete_in_batches(db, "deliveries", "id < :lowest", lowest=lowest)
