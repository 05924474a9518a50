"""Graphs and somebody who is to be forgotten: what was built from their data is gone at once, and built again without.

To be gone through after the archive's own step, and as often as the request is.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from app.graphs.service import QUEUE, Graphs
from app.graphs.sweep import NAMED

# With all that take in what is theirs, and what those take in turn. `clean` are built from a snapshot without them;
# what takes in others' graphs is built again in any case.
_CONCERNED = """
WITH RECURSIVE concerned AS (
    SELECT g.id, i.plugin FROM graphs g JOIN instances i ON i.id = g.instance_id
    WHERE g.community_id = $1 AND (g.source = $2 OR g.source IS NULL) AND g.snapshot IS DISTINCT FROM $3
      AND (g.files IS NOT NULL OR g.lease_until > clock_timestamp())
    UNION
    SELECT g.id, i.plugin FROM graphs g JOIN instances i ON i.id = g.instance_id
    JOIN concerned c ON g.reads ? c.plugin WHERE g.community_id = $1
), dropped AS (
    UPDATE graphs g SET files = NULL, snapshot = NULL, fingerprint = NULL, nodes = NULL, edges = NULL, built_at = NULL,
        state = 'waiting', error = NULL, forced = true, next_at = clock_timestamp(), attempt = 0,
        -- What is in hand has read the old snapshot: it names no files any more.
        lease_until = NULL, epoch = g.epoch + 1
    FROM graphs old WHERE old.id = g.id AND g.id IN (SELECT id FROM concerned)
    RETURNING old.files::text AS files
)
SELECT files FROM dropped
"""


async def forget_in_graphs(use: Graphs, community_id: str, provider: str, clean: str | None) -> int:
    """Drop the community's graphs that were built from a provider's archive, and have them built anew.

    clean: the archive's snapshot that has nothing of the person; what was built from it stays. None: there is none yet,
    and all go. Their files are removed at once, also those that somebody is reading. Returns how many graphs went.
    """
    rows = await use.db.pool.fetch(_CONCERNED, community_id, provider, clean)
    use.wake.poke(QUEUE)
    dropped = [json.loads(row["files"]) for row in rows if row["files"]]
    if use.files is not None and dropped:
        named = {row["name"] for row in await use.db.pool.fetch(NAMED)}
        gone = {name for files in dropped for name in _names(files)} - named
        await asyncio.to_thread(use.files.remove, gone)
    return len(rows)


def _names(files: Mapping[str, Any]) -> list[str]:
    return [*(f"{files[name]['sha256']}.gz" for name in ("graph", "declaration", "identities")), files["index"]]
