"""Reading the event log by an opaque cursor that never skips an event, however late its transaction commits.

Readers stop before the oldest transaction still open: what is below that line is complete and in its final order
(era, transaction id, sequence). Ordering by the sequence alone would step over an event that commits late.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, NamedTuple

import asyncpg

from app.core.db import Pool
from app.core.paging import bad_cursor, decode_cursor, encode_cursor
from app.events.schemas import envelope

_BELOW_THE_LINE = "(era < current_era() OR xid < pg_snapshot_xmin(pg_current_snapshot()))"
# The cursor's own era and later ones are read apart: of `(era, xid, seq) > (…)` the planner knows only what it knows of
# `era`, which is the same in nearly all rows, and so would sort the whole rest of the log for one page.
_PAGE = """
SELECT id, community, instance_id AS instance, source, event_type, timestamp, data::text AS data,
       initiator::text AS initiator, page.era, page.xid::text AS xid_text, page.seq
FROM (
    (SELECT * FROM events
     WHERE driver_id = $1 AND era = $2::int AND (xid, seq) > ($3::text::xid8, $4::bigint) AND {conditions}
     ORDER BY era, xid, seq LIMIT $5)
    UNION ALL
    (SELECT * FROM events WHERE driver_id = $1 AND era > $2::int AND {conditions} ORDER BY era, xid, seq LIMIT $5)
) AS page
ORDER BY page.era, page.xid, page.seq LIMIT $5
"""
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
    filters = {name: value for name, value in asdict(wanted).items() if value is not None}
    statement = _page_statement(tuple(filters))
    rows = await pool.fetch(
        statement, driver_id, position.era, str(position.xid), position.seq, limit, *filters.values()
    )
    return [(_position(row), _event(row)) for row in rows]


@cache
def _page_statement(filters: tuple[str, ...]) -> str:
    """The statement for a page filtered by these columns; their values are its arguments from the sixth on.

    One for each set of filters, for a condition that says "or any" cannot be looked up in an index.
    """
    conditions = [_BELOW_THE_LINE, *(f"{name} = ${number}::text" for number, name in enumerate(filters, start=6))]
    return _PAGE.format(conditions=" AND ".join(conditions))


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
