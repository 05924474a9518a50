"""Writing and reading heartbeats."""

from __future__ import annotations

from app.core.db import Database

_BEAT = """
INSERT INTO heartbeats (id, role, digest) VALUES ($1, $2, $3)
ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp(), digest = excluded.digest
"""
_FORGET = "DELETE FROM heartbeats WHERE seen_at < clock_timestamp() - interval '1 hour'"
_ALIVE = "SELECT role, digest FROM heartbeats WHERE seen_at > clock_timestamp() - interval '30 seconds'"


async def beat(db: Database, process_id: str, role: str, digest: str) -> None:
    """Say that a process is alive and which plugins it has."""
    await db.pool.execute(_BEAT, process_id, role, digest)
    await db.pool.execute(_FORGET)


async def alive(db: Database) -> list[tuple[str, str]]:
    """(role, digest) of every process heard of in the last 30 seconds."""
    return [(row["role"], row["digest"]) for row in await db.pool.fetch(_ALIVE)]
