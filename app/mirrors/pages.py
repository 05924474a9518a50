"""Committing a page: its rows, the cursor, what it says of other partitions and the counters, in one transaction."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import work
from app.core.ids import new_ids
from app.host.binding import InstanceData
from app.mirrors.columns import Table, key_text
from app.mirrors.models import MirrorPartition
from app.mirrors.rows import Growth, Source, find_unseen, take_away_keys, take_away_unseen, write_rows
from metagov_sdk import Child, Page, Rejected
from metagov_sdk.provider import ProviderSpec, Walk
from metagov_sdk.provider.cursors import Cursor
from metagov_sdk.provider.spans import ORIGIN


@dataclass(frozen=True, slots=True)
class Reading:
    """A partition that this worker holds, with what reads it. `cursor` is open."""

    partition: MirrorPartition
    instance: InstanceData
    spec: ProviderSpec
    walk: Walk
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a page cost: requests sent."""

    requests: int


# Extends the lease, as `work.extend` does, and reads the clock on the way.
_HOLD = text("""
UPDATE mirror_partitions SET lease_until = clock_timestamp() + CAST(:lease AS interval)
WHERE id = :id AND epoch = :epoch RETURNING clock_timestamp()
""")


async def commit_page(
    session: AsyncSession,
    tables: Mapping[str, Table],
    reading: Reading,
    page: Page,
    traffic: Traffic,
) -> tuple[Cursor, datetime]:
    """Write a page. Returns the cursor, which is no longer open when the partition is finished, and the time.

    Raises work.LostLease when another worker has the partition by now, and Rejected for a page that makes no sense:
    either way the transaction is to be undone.
    """
    partition, walk = reading.partition, reading.walk
    now = (await session.execute(_HOLD, {"id": partition.id, "epoch": partition.epoch, "lease": work.LEASE})).scalar()
    if now is None:
        raise work.LostLease
    cursor = reading.cursor.advance(walk, page)
    check_page(reading.spec, walk, page)
    growth = Growth()
    source = Source(reading.instance, partition.number, partition.pass_number, now)
    rows_of = source if walk.kind != "lookup" else await _covering(session, reading, page, source)
    await write_rows(session, tables, rows_of, page.rows, growth)
    if page.gone:
        await take_away_keys(session, tables, source, page.gone, growth)
    opened = reading.cursor.open
    closed = cursor.open is None
    if closed and opened is not None and (walk.kind in ("listing", "detail") or (walk.kind == "log" and opened.sweep)):
        await _settle_unseen(session, tables, reading, source, growth)
    if page.children:
        await _add_children(session, reading, page.children)
    await _write_partition(session, reading, cursor, growth, traffic)
    return cursor, now


def check_page(spec: ProviderSpec, walk: Walk, page: Page) -> None:
    """A page of a plugin that does something else than it declares is the plugin's fault. Raises Rejected."""
    known = set(spec.records.values())
    strange = {type(row).__name__ for row in page.rows if type(row) not in known}
    strange |= {record.__name__ for record, _ in page.gone if record not in known}
    if strange:
        raise Rejected(f"{walk.name} returned {', '.join(sorted(strange))}, which none of the walks declares")
    readable = {name for name, each in spec.walks.items() if each.kind != "lookup"}
    walks = {child.walk for child in page.children} - readable
    if walks:
        raise Rejected(f"{walk.name} names the walk {sorted(walks)[0]!r}, and there is none")


_COVERING = text("""
SELECT number, pass_number FROM mirror_partitions WHERE instance_id = :instance AND walk = :walk AND key = :key
""")


async def _covering(session: AsyncSession, reading: Reading, page: Page, source: Source) -> Source:
    """The partition in which the next sweep will find what was looked up."""
    found = None
    if page.under is not None:
        values = {"instance": reading.instance.id, "walk": page.under[0], "key": page.under[1]}
        found = (await session.execute(_COVERING, values)).one_or_none()
    if found is None:
        return Source(source.instance, None, 0, source.now)
    return Source(source.instance, found.number, found.pass_number, source.now)


async def _settle_unseen(
    session: AsyncSession, tables: Mapping[str, Table], reading: Reading, source: Source, growth: Growth
) -> None:
    """What reading all of the partition has not found is gone; or is looked up, where that is safer."""
    walk = reading.walk
    main, *others = (record.table for record in walk.records)
    if walk.missing == "look":
        keys = await find_unseen(session, tables[main], source)
        if keys:
            await _look_up(session, reading, main, ["/".join(str(part) for part in key) for key in keys])
    else:
        others.append(main)
    if others:
        await take_away_unseen(session, tables, others, source, growth)


_LOOK_UP = text("""
INSERT INTO mirror_partitions AS p (id, instance_id, walk, key, parent, run_id, sweep, next_at)
SELECT id, :instance, :walk, key, :parent, :run, :sweep, clock_timestamp()
FROM unnest(CAST(:ids AS text[]), CAST(:keys AS text[])) AS new(id, key) ORDER BY key
ON CONFLICT (instance_id, walk, key) DO UPDATE SET
    run_id = excluded.run_id, sweep = excluded.sweep, status = 'ok', again = p.lease_until IS NOT NULL,
    next_at = coalesce(p.next_at, excluded.next_at)
""")


async def _look_up(session: AsyncSession, reading: Reading, table: str, keys: Sequence[str]) -> None:
    """Have rows looked up, as part of the same run."""
    partition = reading.partition
    await session.execute(
        _LOOK_UP,
        {
            "ids": new_ids("par", len(keys)),
            "keys": sorted(keys),
            "instance": reading.instance.id,
            "walk": f"lookup:{table}",
            "parent": partition.number,
            "run": partition.run_id,
            # What is found of the row is read as the run reads all else.
            "sweep": partition.sweep,
        },
    )


# A partition is due when the run has not had it yet and there is reason to: everything is read again, it has failed or
# was never read to its end, or its fingerprint (NULL is always news) is another than when it was. One that is not due
# is as whole as its parent's page says: up to when the parent's reading began.
_ADD_CHILDREN = text("""
WITH new AS MATERIALIZED (
    SELECT new.*, p.id IS NOT NULL AS known,
        p.id IS NULL OR p.status <> 'ok' OR p.through IS NULL OR (
            (p.run_id IS DISTINCT FROM :run OR new.wanted IS DISTINCT FROM p.wanted OR p.next_at IS NOT NULL)
            AND (:sweep OR new.wanted IS NULL OR new.wanted IS DISTINCT FROM p.seen)
        ) AS due
    FROM json_to_recordset(CAST(:children AS json)) AS new(
        id text, walk text, key text, data json, owner_table text, owner_key text, wanted text, sweep_only boolean
    )
    LEFT JOIN LATERAL (
        SELECT * FROM mirror_partitions p
        WHERE p.instance_id = :instance AND p.walk = new.walk AND p.key = new.key LIMIT 1) p ON true
    WHERE :sweep OR NOT new.sweep_only
)
INSERT INTO mirror_partitions AS p (
    id, instance_id, walk, key, data, parent, owner_table, owner_key, run_id, sweep, wanted, next_at
)
SELECT id, :instance, walk, key, data, :parent, owner_table, owner_key, CASE WHEN due THEN :run END, :sweep, wanted,
       CASE WHEN due THEN clock_timestamp() END
FROM new ORDER BY walk, key
ON CONFLICT (instance_id, walk, key) DO UPDATE SET
    data = excluded.data, parent = excluded.parent, owner_table = excluded.owner_table, owner_key = excluded.owner_key,
    wanted = excluded.wanted,
    through = CASE WHEN excluded.next_at IS NULL AND excluded.wanted = p.seen
        THEN greatest(p.through, CAST(:since AS timestamptz)) ELSE p.through END,
    run_id = coalesce(excluded.run_id, p.run_id),
    sweep = CASE WHEN excluded.next_at IS NULL OR p.lease_until IS NOT NULL THEN p.sweep ELSE excluded.sweep END,
    requests = CASE WHEN p.run_id IS NOT DISTINCT FROM excluded.run_id THEN p.requests ELSE 0 END,
    waits = CASE WHEN p.run_id IS NOT DISTINCT FROM excluded.run_id THEN p.waits ELSE 0 END,
    again = p.again OR (excluded.next_at IS NOT NULL AND p.lease_until IS NOT NULL
        AND excluded.wanted IS DISTINCT FROM p.wanted),
    attempt = CASE WHEN excluded.next_at IS NULL OR p.lease_until IS NOT NULL THEN p.attempt ELSE 0 END,
    progress_at = CASE WHEN excluded.next_at IS NULL THEN p.progress_at ELSE excluded.next_at END,
    reading_since = CASE WHEN excluded.next_at IS NULL OR p.run_id IS NOT DISTINCT FROM excluded.run_id
        THEN p.reading_since END,
    status = CASE WHEN excluded.next_at IS NULL THEN p.status ELSE 'ok' END,
    next_at = CASE WHEN excluded.next_at IS NULL THEN p.next_at ELSE coalesce(p.next_at, excluded.next_at) END
""")


_UNSOUND = re.compile(r"\\u(0000|d[89a-f][0-9a-f]{2})")
_PAIR = re.compile(r"(\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2})")


def _sound(document: str) -> str:
    """JSON in ASCII without what no text of a database holds: NUL, and half a surrogate pair."""
    if not _UNSOUND.search(document):
        return document
    parts = _PAIR.split(document)
    return "".join(part if place % 2 else _UNSOUND.sub(r"\\ufffd", part) for place, part in enumerate(parts))


# One in which there is nothing ("") is read, to take away what was there, only if it was ever read.
_KNOWN = text("""
SELECT place.walk, place.key
FROM unnest(CAST(:walks AS text[]), CAST(:keys AS text[])) AS place(walk, key)
CROSS JOIN LATERAL (
    SELECT FROM mirror_partitions p
    WHERE p.instance_id = :instance AND p.walk = place.walk AND p.key = place.key LIMIT 1) p
""")


async def _add_children(session: AsyncSession, reading: Reading, children: Sequence[Child]) -> None:
    """Partitions found on a page: new ones, and what is known of old ones now. In one statement."""
    partition = reading.partition
    # Of several for one partition the last counts; one whose owner cannot be stored has nothing to hang on.
    usable = {(child.walk, child.key): child for child in children if child.of.key_values is not None and child.key}
    empty = [place for place, child in usable.items() if child.fingerprint == ""]
    if empty:
        # Most of a platform's things have nothing hanging on them, and never had.
        walks, keys = ([place[part] for place in empty] for part in (0, 1))
        rows = await session.execute(_KNOWN, {"instance": reading.instance.id, "walks": walks, "keys": keys})
        known = {(row.walk, row.key) for row in rows}
        for place in empty:
            if place not in known:
                del usable[place]
    if not usable:
        return
    found = [
        {
            "id": number,
            "walk": child.walk,
            "key": child.key,
            "data": child.data,
            "owner_table": child.of.table,
            "owner_key": key_text(child.of.key_values or ()),
            "wanted": child.fingerprint,
            "sweep_only": reading.spec.walks[child.walk].sweep_only,
        }
        for number, child in zip(new_ids("par", len(usable)), usable.values(), strict=True)
    ]
    await session.execute(
        _ADD_CHILDREN,
        {
            "children": _sound(json.dumps(found)),
            "instance": reading.instance.id,
            "parent": partition.number,
            "run": partition.run_id,
            "sweep": partition.sweep,
            "since": partition.reading_since,
        },
    )


# What a page has added to each table, added to the counters of partition p.
ADD_GROWTH = """p.rows || coalesce((
    SELECT jsonb_object_agg(key, coalesce((p.rows ->> key)::bigint, 0) + value::bigint)
    FROM jsonb_each_text(CAST(:growth AS jsonb))), '{}')"""
_WRITE = f"""
UPDATE mirror_partitions p SET cursor = CAST(:cursor AS json), requests = p.requests + :requests, rows = {ADD_GROWTH},
    pass_number = :pass, reading_since = CAST(:since AS timestamptz), progress_at = clock_timestamp(), attempt = 0,
    error = NULL, high_water = greatest(p.high_water, CAST(:high_water AS timestamptz))
WHERE p.id = :id AND p.status <> 'gone'
"""  # noqa: S608 -- constants only
_WRITE_OPEN = text(_WRITE)
_WRITE_CLOSED = text(
    _WRITE.replace(
        "reading_since = CAST(:since AS timestamptz)",
        "reading_since = NULL, seen = :wanted, through = greatest(p.through, CAST(:since AS timestamptz)), "
        "swept = CASE WHEN :whole THEN CAST(:since AS timestamptz) ELSE p.swept END, "
        "last_success_at = clock_timestamp(), lease_until = NULL, again = false, "
        "next_at = CASE WHEN p.again THEN clock_timestamp() END",
    )
)


async def _write_partition(
    session: AsyncSession, reading: Reading, cursor: Cursor, growth: Growth, traffic: Traffic
) -> None:
    """The row is locked by now, and ours. A partition that its own page has taken away stays gone."""
    partition = reading.partition
    closed = cursor.open is None
    await session.execute(
        _WRITE_CLOSED if closed else _WRITE_OPEN,
        {
            "id": partition.id,
            "cursor": json.dumps(cursor.to_json()),
            "requests": traffic.requests,
            "growth": json.dumps(growth.rows),
            "pass": partition.pass_number,
            "since": partition.reading_since,
            "high_water": growth.high_water,
            **({"wanted": partition.wanted, "whole": _was_whole(reading)} if closed else {}),
        },
    )


def _was_whole(reading: Reading) -> bool:
    """Whether this reading began with nothing, or read everything again: changes in what was there are in it."""
    opened = reading.cursor.open
    if reading.walk.kind != "log" or opened is None or opened.sweep:
        return True
    return not reading.cursor.spans.spans if reading.walk.newest_first else opened.low == ORIGIN
