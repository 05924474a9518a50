"""Writing a page's rows, and taking away what is gone: one statement per table, however many rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.host.binding import InstanceData
from app.mirrors.columns import Table, quoted
from metagov_sdk import Record
from metagov_sdk.provider import Key

_AHEAD = timedelta(minutes=5)
"""How far a platform's clock may be ahead of ours before it is odd."""
_LONGEST_KEY_BYTES = 2000
_GONE = (
    "status = 'gone', next_at = NULL, lease_until = NULL, epoch = p.epoch + 1, error = NULL, again = false, "
    "cursor = NULL"
)
"""With another epoch: whoever is reading it just now writes nothing more."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from: a partition's number and pass. `number` None leaves rows with the one they have."""

    instance: InstanceData
    number: int | None
    pass_number: int
    now: datetime


@dataclass(slots=True)
class Growth:
    """By how many live rows each table has grown, and the latest time in them."""

    rows: dict[str, int] = field(default_factory=dict)
    high_water: datetime | None = None

    def add(self, table: str, count: int) -> None:
        """Count rows in, or out."""
        if count:
            self.rows[table] = self.rows.get(table, 0) + count


async def write_rows(
    session: AsyncSession,
    tables: Mapping[str, Table],
    source: Source,
    rows: Iterable[Record],
    growth: Growth,
    *,
    revive: bool = True,
) -> None:
    """Insert or update rows; of several with one key the last counts. Those without a usable key are kept as they are.

    `growth` is added to. `revive`: what is there as deleted is there again.
    """
    by_table: dict[str, dict[Key, Record]] = {}
    odd: list[Record] = []
    for row in rows:
        key = row.key_values
        if key is None or sum(len(str(value).encode()) for value in key) > _LONGEST_KEY_BYTES:
            odd.append(row)
        else:
            by_table.setdefault(row.table, {})[key] = row
    for name in sorted(by_table):
        table = tables[name]
        written = list(by_table[name].values())
        parameters = _parameters(table, written, source, growth)
        growth.add(name, (await session.execute(text(table.upsert), {**parameters, "revive": revive})).scalar_one())
    if odd:
        await _keep_oddities(session, source.instance.id, odd)


def _parameters(table: Table, rows: Sequence[Record], source: Source, growth: Growth) -> dict[str, Any]:
    flags = [row.flags for row in rows]
    if table.record.time is not None:
        latest = source.now + _AHEAD
        for place, row in enumerate(rows):
            moment: datetime | None = getattr(row, table.record.time)
            if moment is None:
                continue
            if moment > latest:
                flags[place] = (*flags[place], f"future:{table.record.time}")
            elif growth.high_water is None or moment > growth.high_water:
                growth.high_water = moment
    return {
        "rows": _document(rows, flags),
        "instance": source.instance.id,
        "community": source.instance.community_id,
        "source": source.number,
        "pass": source.pass_number,
        "now": source.now,
    }


def _document(rows: Sequence[Record], flags: Sequence[Sequence[str]]) -> str:
    """Rows as `Table.upsert` takes them."""
    try:
        return orjson.dumps(
            [
                {**row.__dict__, "extra": orjson.Fragment(row.extra_json), "mirror_flags": flag or None}
                for row, flag in zip(rows, flags, strict=True)
            ]
        ).decode()
    except TypeError:
        # Deeper, or with greater numbers, than orjson takes.
        plain = [
            {**row.__dict__, "extra": row.extra, "mirror_flags": flag or None}
            for row, flag in zip(rows, flags, strict=True)
        ]
        return json.dumps(plain, default=datetime.isoformat, ensure_ascii=False)


_KEEP = text("""
INSERT INTO mirror_oddities (instance_id, table_name, sha256, body)
SELECT :instance, * FROM unnest(CAST(:tables AS text[]), CAST(:hashes AS bytea[]), CAST(:bodies AS json[]))
ON CONFLICT DO NOTHING
""")


async def _keep_oddities(session: AsyncSession, instance_id: str, rows: Sequence[Record]) -> None:
    found = {}
    for row in rows:
        values = {column.name: getattr(row, column.name) for column in row.columns}
        body = json.dumps({"fields": values, "extra": row.extra, "flags": row.flags}, default=str, sort_keys=True)
        found[row.table, hashlib.sha256(body.encode()).digest()] = body
    await session.execute(
        _KEEP,
        {
            "instance": instance_id,
            "tables": [table for table, _ in found],
            "hashes": [digest for _, digest in found],
            "bodies": list(found.values()),
        },
    )


async def take_away_keys(
    session: AsyncSession,
    tables: Mapping[str, Table],
    source: Source,
    gone: Iterable[tuple[type[Record], Key]],
    growth: Growth,
) -> None:
    """Tombstone rows by their keys, with all that hangs on them."""
    by_table: dict[str, set[Key]] = {}
    for record, key in gone:
        by_table.setdefault(record.table, set()).add(key)
    for name in sorted(by_table):
        table, keys = tables[name], sorted(by_table[name], key=str)
        kinds = {column.name: column.kind for column in table.columns}
        arrays = ", ".join(
            f"CAST(:k{place} AS {'bigint' if kinds[name_] == 'integer' else 'text'}[])"
            for place, name_ in enumerate(table.record.key)
        )
        names = [quoted(each) for each in table.record.key]
        mine, theirs = ", ".join(f"t.{each}" for each in names), ", ".join(names)
        where = f"({mine}) IN (SELECT * FROM unnest({arrays}) AS gone({theirs}))"  # noqa: S608 -- our own names
        columns = {
            f"k{place}": [int(key[place]) if kinds[each] == "integer" else str(key[place]) for key in keys]
            for place, each in enumerate(table.record.key)
        }
        await _take_away(session, tables, table, where, columns, source, growth)


async def take_away_unseen(
    session: AsyncSession, tables: Mapping[str, Table], names: Iterable[str], source: Source, growth: Growth
) -> None:
    """Tombstone what a partition held, and what a reading of all of it has not found."""
    where = "t.mirror_source = :source AND t.mirror_pass < :pass"
    values = {"source": source.number, "pass": source.pass_number}
    for name in sorted(names):
        await _take_away(session, tables, tables[name], where, values, source, growth)


async def take_away_unclaimed(
    session: AsyncSession, tables: Mapping[str, Table], source: Source, before: datetime, growth: Growth
) -> None:
    """Tombstone what no partition has read, of what was there before a reading of everything began."""
    for name in sorted(tables):
        where = "t.mirror_source IS NULL AND t.first_seen < :before"
        await _take_away(session, tables, tables[name], where, {"before": before}, source, growth)


async def find_unseen(session: AsyncSession, table: Table, source: Source) -> list[Key]:
    """The keys of what `take_away_unseen` would take of one table."""
    names = ", ".join(f"t.{quoted(name)}" for name in table.record.key)
    rows = await session.execute(
        text(
            f"SELECT {names} FROM {table.sql} t WHERE t.mirror_source = :source AND t.mirror_pass < :pass "  # noqa: S608
            "AND t.deleted_at IS NULL"
        ),
        {"source": source.number, "pass": source.pass_number},
    )
    return [tuple(row) for row in rows]


async def _take_away(
    session: AsyncSession,
    tables: Mapping[str, Table],
    table: Table,
    where: str,
    values: Mapping[str, Any],
    source: Source,
    growth: Growth,
) -> None:
    statement = f"""
        WITH gone AS (
            UPDATE {table.sql} t SET deleted_at = :now, synced_at = :now
            WHERE t.instance_id = :instance AND t.deleted_at IS NULL AND {where}
            RETURNING {table.key_sql} AS key
        ), left_over AS (
            UPDATE mirror_partitions p SET {_GONE}
            FROM gone WHERE p.instance_id = :instance AND p.owner_table = :table AND p.owner_key = gone.key
              AND p.status <> 'gone' RETURNING p.number
        )
        SELECT (SELECT count(*) FROM gone) AS taken, (SELECT array_agg(number) FROM left_over) AS numbers
    """  # noqa: S608 -- names checked when the plugin was loaded
    common = {"instance": source.instance.id, "now": source.now, "table": table.record.table}
    row = (await session.execute(text(statement), {**common, **values})).one()
    growth.add(table.record.table, -row.taken)
    if row.numbers:
        await take_away_partitions(session, tables, source, row.numbers, growth)


_DESCENDANTS = text(f"""
WITH RECURSIVE below AS (
    SELECT number FROM mirror_partitions WHERE number = ANY(CAST(:numbers AS bigint[]))
    UNION
    SELECT p.number FROM mirror_partitions p JOIN below ON p.parent = below.number
    WHERE p.instance_id = :instance
)
UPDATE mirror_partitions p SET {_GONE}
FROM below WHERE p.number = below.number RETURNING p.number
""")  # noqa: S608 -- a constant only


async def take_away_partitions(
    session: AsyncSession, tables: Mapping[str, Table], source: Source, numbers: Sequence[int], growth: Growth
) -> None:
    """Partitions whose owner is gone, and those found on their pages, with all rows that were read of them."""
    below = (await session.scalars(_DESCENDANTS, {"numbers": list(numbers), "instance": source.instance.id})).all()
    # Rows again, and not only partitions: what hangs on them may have been found elsewhere, by a lookup.
    for name in sorted(tables):
        where = "t.mirror_source = ANY(CAST(:below AS bigint[]))"
        await _take_away(session, tables, tables[name], where, {"below": list(below)}, source, growth)
