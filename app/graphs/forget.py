"""Graphs and somebody who is to be forgotten: what was built from their data is gone at once, and built again without.

The step comes behind that of archives, and can be repeated.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from app.graphs.service import QUEUE, Graphs
from app.graphs.sweep import NAMED
from app.mirrors.forget import Erasure, Step

# With all that take in what is theirs, and what those take in turn; these are built again whatever they were built
# from. Of an archive that is not clean yet, nothing is built before it moves: until then it holds them.
_CONCERNED = """
WITH RECURSIVE concerned AS (
    SELECT g.id, i.plugin, g.source IS NULL OR ($3::jsonb ->> g.source) IS NOT NULL AS clean
    FROM graphs g JOIN instances i ON i.id = g.instance_id
    WHERE g.community_id = $1 AND (g.source IS NULL OR split_part(g.source, '.', 1) = $2)
      AND (g.source IS NULL OR g.snapshot IS DISTINCT FROM ($3::jsonb ->> g.source))
      AND (g.files IS NOT NULL OR g.lease_until > clock_timestamp())
    UNION
    SELECT g.id, i.plugin, split_part(g.source, '.', 1) <> $2 OR ($3::jsonb ->> g.source) IS NOT NULL
    FROM graphs g JOIN instances i ON i.id = g.instance_id JOIN concerned c ON g.reads ? c.plugin
    WHERE g.community_id = $1
), dropped AS (
    UPDATE graphs g SET files = NULL, snapshot = NULL, fingerprint = NULL, nodes = NULL, edges = NULL, built_at = NULL,
        state = 'waiting', attempt = 0, forced = c.clean, next_at = CASE WHEN c.clean THEN clock_timestamp() END,
        error = CASE WHEN NOT c.clean THEN 'somebody was forgotten, and the archive still holds them' END,
        generation = i.generation, head = (
            SELECT h.snapshot FROM archive_heads h
            WHERE (h.community_id, h.provider, h.url) = (g.community_id, g.source, $4)),
        -- What is in hand has read the old snapshot: it names no files any more.
        lease_until = NULL, epoch = g.epoch + 1
    FROM graphs old JOIN instances i ON i.id = old.instance_id
    JOIN (SELECT id, bool_and(clean) AS clean FROM concerned GROUP BY id) c ON c.id = old.id
    WHERE old.id = g.id
    RETURNING old.files::text AS files
)
SELECT files FROM dropped
"""


def graph_step(use: Graphs) -> Step:
    """What graphs add to forgetting somebody."""

    async def forget_built(erasure: Erasure) -> None:
        await forget_in_graphs(use, erasure.community_id, erasure.plugin, erasure.report.snapshots)

    return Step("graphs", forget_built)


async def forget_in_graphs(use: Graphs, community_id: str, provider: str, clean: Mapping[str, str]) -> int:
    """Drop the community's graphs that were built from a provider's archives, and have them built anew.

    clean: by an archive's name, its snapshot that has nothing of the person; what was built from that stays. Files are
    removed at once, also those that somebody is reading. Returns how many graphs went.
    """
    rows = await use.db.pool.fetch(_CONCERNED, community_id, provider, json.dumps(dict(clean)), use.archives.url)
    use.wake.poke(QUEUE)
    dropped = [json.loads(row["files"]) for row in rows if row["files"]]
    if use.files is not None and dropped:
        named = {row["name"] for row in await use.db.pool.fetch(NAMED)}
        gone = {name for files in dropped for name in _names(files)} - named
        await asyncio.to_thread(use.files.remove, gone)
    return len(rows)


def _names(files: Mapping[str, Any]) -> list[str]:
    return [*(f"{files[name]['sha256']}.gz" for name in ("graph", "declaration", "identities")), files["index"]]
