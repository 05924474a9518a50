"""How long receipts are kept."""

from __future__ import annotations

from datetime import timedelta

from app.core import partitions
from app.core.db import Database
from app.core.partitions import Partitioned

RECEIPTS = Partitioned(
    "receipts",
    "rcp",
    # A queue's rows die twice in their first second: room for it in their page, and a vacuum that does not wait for a
    # fifth of a month's receipts to be dead.
    "fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, "
    "autovacuum_vacuum_cost_limit = 1000",
)


async def drop_old_receipts(db: Database, keep: timedelta) -> None:
    """Drop receipts older than `keep`, also those that still wait for a disabled instance."""
    await partitions.drop_old(db, RECEIPTS, keep)
