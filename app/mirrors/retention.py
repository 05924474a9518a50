"""How long what is left of mirrors is kept: of instances that are gone, and of runs that are over."""

from __future__ import annotations

from datetime import timedelta

import structlog

from app.core.batches import delete_in_batches
from app.core.db import Database
from app.mirrors.columns import quoted, schema_name

_log = structlog.get_logger(__name__)

# Instances that are deleted, and those of which nothing else is known any more. The tables of records have no foreign
# key to them, and are asked for each instance they have rows of, one look into the primary key's index for each.
_HELD = """
WITH RECURSIVE held(id) AS (
    (SELECT instance_id FROM {table} ORDER BY instance_id LIMIT 1)
    UNION ALL
    SELECT (SELECT t.instance_id FROM {table} t WHERE t.instance_id > held.id ORDER BY t.instance_id LIMIT 1)
    FROM held WHERE held.id IS NOT NULL
)
SELECT held.id FROM held WHERE held.id IS NOT NULL AND NOT EXISTS (
    SELECT FROM instances i WHERE i.id = held.id AND (i.deleted_at IS NULL OR i.deleted_at >= now() - $1::interval))
"""
_OWN = ("mirror_partitions", "mirror_bodies", "mirror_oddities", "mirror_runs", "mirrors", "dirty_marks")
"""Partitions first: with them go the answers that were kept of them."""
_GONE = "instance_id IN (SELECT id FROM instances WHERE deleted_at < now() - CAST(:age AS interval))"


async def drop_gone_mirrors(db: Database, keep: timedelta) -> None:
    """Drop what was mirrored for instances that were deleted longer ago than `keep`, whether their plugin is there."""
    tables = await db.pool.fetch("SELECT provider, table_name FROM mirror_tables ORDER BY provider, table_name")
    for row in tables:
        table = f"{quoted(schema_name(row['provider']))}.{quoted(row['table_name'])}"
        gone = [each["id"] for each in await db.pool.fetch(_HELD.format(table=table), keep)]
        if gone:
            dropped = await delete_in_batches(db, table, "instance_id = ANY(CAST(:gone AS text[]))", gone=gone)
            _log.info("rows of deleted instances dropped", table=table, instances=len(gone), rows=dropped)
    for table in _OWN:
        await delete_in_batches(db, table, _GONE, age=keep)


async def drop_old_runs(db: Database, keep: timedelta) -> None:
    """Drop runs that were over longer ago than `keep`, but of each instance the last, and the last that was archived.

    What archives are asked for is the last run that has not failed.
    """
    await delete_in_batches(
        db,
        "mirror_runs",
        "finished_at < now() - CAST(:age AS interval) AND EXISTS ("
        "SELECT FROM mirror_runs newer WHERE newer.instance_id = mirror_runs.instance_id AND newer.id > mirror_runs.id "
        "AND newer.finished_at IS NOT NULL AND (newer.state <> 'failed' OR mirror_runs.state = 'failed'))",
        age=keep,
    )
