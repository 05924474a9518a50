"""How long the effects of processes are kept. Processes themselves stay: they are what was decided."""

from __future__ import annotations

from datetime import timedelta

from app.core.batches import delete_in_batches
from app.core.db import Database
from app.core.ids import lowest_id


async def drop_old_effects(db: Database, keep: timedelta) -> None:
    """Drop effects older than `keep` that are performed or given up."""
    lowest = lowest_id("eff", await db.now() - keep)
    await delete_in_batches(db, "effects", 'next_at IS NULL AND id COLLATE "C" < :lowest', lowest=lowest)
