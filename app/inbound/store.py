"""Storing webhooks: one statement per batch decides, for each, between stored, repeated and out of date."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal, NamedTuple

import asyncpg
from pydantic_core import to_json

from app.core.db import Database, Pool
from app.core.group import Group
from app.core.ids import new_ids
from app.core.killpoints import KillPoint, reached

Verdict = Literal["stored", "repeated", "stale"]

MOST_ROWS = 256
MOST_BYTES = 4 * 1024 * 1024
_REFUSED = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)
"""What Postgres says when it is a row that is wrong, and not the moment."""

_DROPPED_HEADERS = frozenset({"authorization", "cookie"})
_TURNS = 1_886_548_085
"""The first half of an advisory lock's key; the second is the instance's."""

# `live` keeps the rows whose instance is still as it was when the signature was checked; `fresh` claims their keys
# (the dedupe table is not partitioned, so the key is unique for good), in one order for all, so that statements cannot
# deadlock; `stored` writes what is new. Row by row it asks a hashed list of keys: joined instead, the planner, which
# expects one row, compares every key with every other. `turns` goes before all else: of an instance whose webhooks keep
# their order, one statement at a time draws positions, and the next one only once its own are committed. The
# transaction has its id before the clock is read: a process that closes waits for all that had one by its deadline.
_INGEST = f"""
WITH input AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::bytea[],
                         $8::bool[])
        WITH ORDINALITY AS t(id, instance_id, generation, hook, key, headers, body, ordered, place)
), turns AS MATERIALIZED (
    SELECT pg_advisory_xact_lock({_TURNS}, lane)
    FROM (SELECT DISTINCT hashtext(instance_id) AS lane FROM input WHERE ordered ORDER BY lane) AS lanes
), live AS (
    SELECT input.*, i.community_id, i.plugin,
           row_number() OVER (PARTITION BY input.instance_id, input.key ORDER BY input.place) = 1 AS leads
    FROM input JOIN instances i ON i.id = input.instance_id AND i.generation = input.generation
    WHERE i.status <> 'disabled' AND i.deleted_at IS NULL AND (SELECT count(*) FROM turns) >= 0
      AND (SELECT pg_current_xact_id()) IS NOT NULL
), fresh AS (
    INSERT INTO seen (instance_id, key)
    SELECT instance_id, key FROM live WHERE key IS NOT NULL AND leads ORDER BY instance_id, key
    ON CONFLICT DO NOTHING RETURNING instance_id, key
), stored AS (
    INSERT INTO receipts (id, community_id, instance_id, plugin, hook, headers, body, ordered)
    SELECT l.id, l.community_id, l.instance_id, l.plugin, l.hook, l.headers::json, l.body, l.ordered
    FROM live l
    WHERE l.key IS NULL OR (l.leads AND (l.instance_id, l.key) IN (SELECT instance_id, key FROM fresh))
    ORDER BY l.place
    RETURNING id
)
SELECT input.place, CASE WHEN l.id IS NOT NULL THEN 'repeated' ELSE 'stale' END
FROM input LEFT JOIN live l USING (id) LEFT JOIN stored s USING (id)
WHERE s.id IS NULL
"""  # noqa: S608 -- constants only


class Incoming(NamedTuple):
    """A verified webhook on its way in. `generation` is the instance's at which it was verified."""

    instance_id: str
    generation: int
    hook: str
    key: str | None
    headers: Sequence[tuple[str, str]]
    body: bytes
    ordered: bool = False


class Intake:
    """Stores webhooks in batches. One per API process."""

    def __init__(self, db: Database) -> None:
        self._group = Group[Incoming, Verdict](
            lambda batch: ingest(db.pool, batch),
            is_ones_fault=lambda error: isinstance(error, _REFUSED),
            most_items=MOST_ROWS,
            weigh=lambda item: len(item.body),
            most_weight=MOST_BYTES,
        )

    def add(self, item: Incoming) -> asyncio.Future[Verdict]:
        """Store one webhook; the future has its verdict after the commit, or what the database raised."""
        return self._group.add(item)

    async def store(self, items: Sequence[Incoming]) -> list[Verdict]:
        """Store webhooks; returns after the commit, with one verdict each, in order.

        Raises what the database raises; data that it refuses fails no webhook but its own.
        """
        answers = [self._group.add(item) for item in items]
        return [await answers[0]] if len(answers) == 1 else await asyncio.gather(*answers)


async def ingest(pool: Pool, batch: Sequence[Incoming]) -> list[Verdict]:
    """Store a batch in one committed statement; one verdict each, in order."""
    reached(KillPoint.WEBHOOKS_TAKEN)
    rows = await pool.fetch(
        _INGEST,
        new_ids("rcp", len(batch)),
        [item.instance_id for item in batch],
        [item.generation for item in batch],
        [item.hook for item in batch],
        [item.key for item in batch],
        [_headers(item.headers) for item in batch],
        [item.body for item in batch],
        [item.ordered for item in batch],
    )
    reached(KillPoint.WEBHOOKS_STORED)
    verdicts: list[Verdict] = ["stored"] * len(batch)
    for place, verdict in rows:
        verdicts[place - 1] = verdict
    return verdicts


def _headers(headers: Sequence[tuple[str, str]]) -> str:
    return to_json([header for header in headers if header[0].lower() not in _DROPPED_HEADERS]).decode()
