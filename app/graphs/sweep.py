"""What graphs leave behind: files that no row names, rows of instances that are gone, shares that have expired."""

from __future__ import annotations

import asyncio

from app.graphs.service import Graphs

_GONE = """
DELETE FROM graphs g USING instances i JOIN communities c ON c.id = i.community_id
WHERE g.instance_id = i.id AND (i.deleted_at IS NOT NULL OR c.deleted_at IS NOT NULL)
"""
_EXPIRED = "DELETE FROM graph_shares WHERE expires_at < now() - interval '1 day'"
NAMED = """
SELECT (files -> part ->> 'sha256') || '.gz' AS name
FROM graphs, unnest(ARRAY['graph', 'declaration', 'identities']) AS part WHERE files IS NOT NULL
UNION SELECT files ->> 'index' FROM graphs WHERE files IS NOT NULL
UNION SELECT sha256 || '.input' FROM graph_fetches
"""


async def sweep_graphs(use: Graphs) -> int:
    """Drop all that. Returns how many files went."""
    await use.db.pool.execute(_GONE)
    await use.db.pool.execute(_EXPIRED)
    if use.files is None:
        return 0
    # Read before the folder is: what is named later is younger than what the sweep takes.
    named = {row["name"] for row in await use.db.pool.fetch(NAMED)}
    return await asyncio.to_thread(use.files.sweep, named)
