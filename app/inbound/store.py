"""Storing webhooks: one statement per batch decides, for each, between stored, repeated and out of date."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from app.core.db import Pool
from app.core.ids import new_id

Verdict = Literal["stored", "repeated", "stale"]

_DROPPED_HEADERS = frozenset({"authorization", "cookie"})

# `live` keeps the rows whose instance is still as it was when the signature was checked; `fresh` claims their keys
# (the dedupe table is not partitioned, so the key is unique for good); `stored` writes what is new.
_INGEST = """
WITH input AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::bytea[])
        AS t(id, instance_id, generation, hook, key, headers, body)
), live AS (
    SELECT input.*, i.community_id, i.plugin
    FROM input JOIN instances i ON i.id = input.instance_id AND i.generation = input.generation
    WHERE i.status <> 'disabled' AND i.deleted_at IS NULL
), first AS (
    SELECT DISTINCT ON (instance_id, key) id, instance_id, key FROM live
    WHERE key IS NOT NULL ORDER BY instance_id, key, id
), fresh AS (
    INSERT INTO seen (instance_id, key) SELECT instance_id, key FROM first
    ON CONFLICT DO NOTHING RETURNING instance_id, key
), stored AS (
    INSERT INTO receipts (id, community_id, instance_id, plugin, hook, headers, body)
    SELECT l.id, l.community_id, l.instance_id, l.plugin, l.hook, l.headers::json, l.body
    FROM live l
    WHERE l.key IS NULL OR l.id IN (SELECT f.id FROM first f JOIN fresh USING (instance_id, key))
    RETURNING id
)
SELECT input.id, CASE WHEN s.id IS NOT NULL THEN 'stored' WHEN l.id IS NOT NULL THEN 'repeated' ELSE 'stale' END
FROM input LEFT JOIN live l USING (id) LEFT JOIN stored s USING (id)
"""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A verified webhook on its way in. `generation` is the instance's at which it was verified."""

    instance_id: str
    generation: int
    hook: str
    key: str | None
    headers: Sequence[tuple[str, str]]
    body: bytes


async def ingest(pool: Pool, batch: Sequence[Incoming]) -> list[Verdict]:
    """Store a batch in one committed statement; one verdict each, in order."""
    ids = [new_id("rcp") for _ in batch]
    rows = await pool.fetch(
        _INGEST,
        ids,
        [item.instance_id for item in batch],
        [item.generation for item in batch],
        [item.hook for item in batch],
        [item.key for item in batch],
        [_headers(item.headers) for item in batch],
        [item.body for item in batch],
    )
    verdicts: dict[str, Verdict] = {row[0]: row[1] for row in rows}
    return [verdicts[receipt_id] for receipt_id in ids]


def _headers(headers: Sequence[tuple[str, str]]) -> str:
    return json.dumps([[name, value] for name, value in headers if name.lower() not in _DROPPED_HEADERS])
