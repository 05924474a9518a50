"""Deleting many rows without holding anybody up: in short transactions, passing over what others hold."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from app.core.db import Database

_BATCH = 2000


async def delete_in_batches(db: Database, table: str, condition: str, **values: Any) -> int:
    """Delete a table's rows that meet an SQL condition over `values`. Returns how many.

    Rows that others hold are left for the next time.
    """
    statement = text(
        f"DELETE FROM {table} WHERE ctid = ANY(ARRAY("  # noqa: S608 -- written in the code, never from outside
        f"SELECT ctid FROM {table} WHERE {condition} LIMIT {_BATCH} FOR UPDATE SKIP LOCKED)) RETURNING 1"
    )
    total = 0
    while True:
        async with db.begin() as session:
            deleted = len((await session.execute(statement, values)).all())
        total += deleted
        if deleted < _BATCH:
            return total
