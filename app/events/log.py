"""Reading the event log by an opaque cursor that never skips an event, however late its transaction commits.

Readers stop before the oldest transaction still open: what is below that line is complete and in its final order
(era, transaction id, sequence). Ordering by the sequence alone would step over an event that commits late.
"""

from __future__ import annotations

import json
from typing import Any

import asyncpg

from app.core.db import Pool
from app.core.paging import bad_cursor, decode_cursor, encode_cursor
from app.events.schemas import envelope

_PAGE = """
SELECT id, community, instance_id AS instance, source, event_type, timestamp, data::text AS data,
       initiator::text AS initiator, era, xid::text AS xid_text, seq
FROM events
WHERE driver_id = $1
  AND (era, xid, seq) > ($2::int, $3::text::xid8, $4::bigint)
  AND (era < current_era() OR xid < pg_snapshot_xmin(pg_current_snapshot()))
  AND ($5::text IS NULL OR event_type = $5)
  AND ($6::text IS NULL OR source = $6)
  AND ($7::text IS NULL OR community = $7)
ORDER BY events.era, events.xid, events.seq
LIMIT $8
"""

_START: list[Any] = [0, "0", 0]


async def read_page(
    pool: Pool,
    driver_id: str,
    *,
    after: str | None,
    limit: int,
    event_type: str | None = None,
    source: str | None = None,
    community: str | None = None,
) -> tuple[list[dict[str, Any]], str]:
    """A page of a driver's events in order, and the cursor to go on from."""
    position = _position(after)
    rows = await pool.fetch(_PAGE, driver_id, *position, event_type, source, community, limit)
    if rows:
        last = rows[-1]
        position = [last["era"], last["xid_text"], last["seq"]]
    return [_event(row) for row in rows], encode_cursor(position)


def _position(after: str | None) -> list[Any]:
    position: list[Any] = decode_cursor(after, (int, str, int)) or _START
    era, xid, _ = position
    if not (0 <= era < 2**31 and xid.isascii() and xid.isdigit() and len(xid) <= 20 and int(xid) < 2**64):
        raise bad_cursor()
    return position


def _event(row: asyncpg.Record) -> dict[str, Any]:
    return envelope(
        id=row["id"],
        community=row["community"],
        instance=row["instance"],
        source=row["source"],
        event_type=row["event_type"],
        timestamp=row["timestamp"],
        data=json.loads(row["data"]),
        initiator=None if row["initiator"] is None else json.loads(row["initiator"]),
    )
