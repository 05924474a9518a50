"""Reading the event log by an opaque cursor that never skips an event, however late its transaction commits.

Readers stop before the oldest transaction still open: what is below that line is complete and in its final order
(era, transaction id, sequence). Ordering by the sequence alone would step over an event that commits late.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import asyncpg

from app.core.db import Pool
from app.core.paging import bad_cursor, decode_cursor, encode_cursor
from app.events.schemas import envelope

_BELOW_THE_LINE = "(era < current_era() OR xid < pg_snapshot_xmin(pg_current_snapshot()))"
_PAGE = f"""
SELECT id, community, instance_id AS instance, source, event_type, timestamp, data::text AS data,
       initiator::text AS initiator, era, xid::text AS xid_text, seq
FROM events
WHERE driver_id = $1
  AND (era, xid, seq) > ($2::int, $3::text::xid8, $4::bigint)
  AND {_BELOW_THE_LINE}
  AND ($5::text IS NULL OR event_type = $5)
  AND ($6::text IS NULL OR source = $6)
  AND ($7::text IS NULL OR community = $7)
ORDER BY events.era, events.xid, events.seq
LIMIT $8
"""  # noqa: S608 -- constants only
_ENDS = f"""
SELECT wanted.driver_id, newest.era, newest.xid::text AS xid_text, newest.seq
FROM unnest($1::text[]) AS wanted(driver_id) CROSS JOIN LATERAL (
    SELECT era, xid, seq FROM events
    WHERE events.driver_id = wanted.driver_id AND {_BELOW_THE_LINE}
    ORDER BY events.era DESC, events.xid DESC, events.seq DESC LIMIT 1
) AS newest
"""  # noqa: S608 -- constants only


class Position(NamedTuple):
    """A place in the log; positions compare as the log is ordered."""

    era: int
    xid: int
    seq: int

    @property
    def cursor(self) -> str:
        """The opaque cursor that names it."""
        return encode_cursor([self.era, str(self.xid), self.seq])


START = Position(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which of a driver's events to read; None is any."""

    event_type: str | None = None
    source: str | None = None
    community: str | None = None


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
    position = parse_cursor(after)
    page = await read_after(pool, driver_id, position, Filter(event_type, source, community), limit=limit)
    return [event for _, event in page], (page[-1][0] if page else position).cursor


async def read_after(
    pool: Pool, driver_id: str, position: Position, wanted: Filter, *, limit: int
) -> list[tuple[Position, dict[str, Any]]]:
    """A driver's next events after a position, in order, each with its own position."""
    rows = await pool.fetch(
        _PAGE,
        driver_id,
        position.era,
        str(position.xid),
        position.seq,
        wanted.event_type,
        wanted.source,
        wanted.community,
        limit,
    )
    return [(_position(row), _event(row)) for row in rows]


async def find_ends(pool: Pool, drivers: Sequence[str]) -> dict[str, Position]:
    """For each driver the position of its newest event that readers may see; drivers without events are left out.

    Everything up to there is complete: what commits later comes after it.
    """
    return {row["driver_id"]: _position(row) for row in await pool.fetch(_ENDS, drivers)}


def parse_cursor(cursor: str | None) -> Position:
    """The position a cursor names; without one, the log's start. Raises Invalid for what is no cursor of the log."""
    era, xid, seq = decode_cursor(cursor, (int, str, int)) or (0, "0", 0)
    if not (0 <= era < 2**31 and xid.isascii() and xid.isdigit() and len(xid) <= 20 and int(xid) < 2**64):
        raise bad_cursor()
    return Position(era, int(xid), seq)


def _position(row: asyncpg.Record) -> Position:
    return Position(row["era"], int(row["xid_text"]), row["seq"])


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
