"""Copies of a process that was started over HTTP, many at once, each as it would stand after a start of its own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from app.core.ids import new_ids

# The columns that are not named are the original's, whichever they are.
_COPY = """
WITH made AS MATERIALIZED (SELECT * FROM unnest($2::text[], $3::timestamptz[]) AS made(id, closing_at)),
copied AS (
    INSERT INTO processes
    SELECT new.* FROM processes p CROSS JOIN made CROSS JOIN LATERAL json_populate_record(p, json_build_object(
        'id', made.id, 'key', made.id, 'idempotency_key', made.id,
        'closing_at', made.closing_at, 'next_at', made.closing_at, 'created_at', clock_timestamp(),
        'params', p.params::jsonb || jsonb_build_object('closing_at',
            to_char(made.closing_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
    )) AS new WHERE p.id = $1
)
INSERT INTO process_transitions
SELECT new.* FROM process_transitions t CROSS JOIN made
CROSS JOIN LATERAL json_populate_record(t, json_build_object('process_id', made.id)) AS new WHERE t.process_id = $1
"""


async def copy_vote(
    connection: asyncpg.Connection[asyncpg.Record], original: str, closings: Sequence[datetime | None]
) -> list[str]:
    """A copy of a `ballot.vote` for each closing time (None: no deadline). Returns their ids, in that order.

    The original has to be at rest: no worker holds it, and nothing is due about it before it closes.
    """
    ids = new_ids("prc", len(closings))
    await connection.execute(_COPY, original, ids, closings)
    return ids
