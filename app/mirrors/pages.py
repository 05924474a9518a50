"""Committing a page: its rows, the cursor, what it says of other partitions and the counters, in one transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, text, update
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
# is as whole as its parent's page says: up to when the parent's reading began. One in which there is nothing ("") is
# read, to take away what was there, only if it was ever read.
_ADD_CHILDREN = text("""
WITH new AS MATERIALIZED (
    SELECT new.*, p.id IS NOT NULL AS known,
        p.id IS NULL OR p.status <> 'ok' OR p.through IS NULL OR (
            (p.run_id IS DISTINCT FROM :run OR new.wanted IS DISTINCT FROM p.wanted OR p.next_at IS NOT NULL)
            AND (:sweep OR new.wanted IS NULL OR new.wanted IS DISTINCT FROM p.seen)
        ) AS due
    FROM unnest(
        CAST(:ids AS text[]), CAST(:walks AS text[]), CAST(:keys AS text[]), CAST(:data AS json[]),
        CAST(:tables AS text[]), CAST(:owners AS text[]), CAST(:wanted AS text[]), CAST(:sweep_only AS boolean[])
    ) AS new(id, walk, key, data, owner_table, owner_key, wanted, sweep_only)
    LEFT JOIN mirror_partitions p ON p.instance_id = :instance AND p.walk = new.walk AND p.key = new.key
    WHERE (new.wanted IS DISTINCT FROM '' OR p.id IS NOT NULL) AND (:sweep OR NOT new.sweep_only)
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


async def _add_children(session: AsyncSession, reading: Reading, children: Sequence[Child]) -> None:
    """Partitions found on a page: new ones, and what is known of old ones now. In one statement."""
    partition = reading.partition
    # Of several for one partition the last counts; one whose owner cannot be stored has nothing to hang on.
    usable = {(child.walk, child.key): child for child in children if child.of.key_values is not None and child.key}
    if not usable:
        return
    rows = list(usable.values())
    owners = [child.of.key_values or () for child in rows]
    await session.execute(
        _ADD_CHILDREN,
        {
            "ids": new_ids("par", len(rows)),
            "walks": [child.walk for child in rows],
            "keys": [child.key for child in rows],
            "data": [None if child.data is None else json.dumps(child.data) for child in rows],
            "tables": [child.of.table for child in rows],
            "owners": [key_text(key) for key in owners],
            "wanted": [child.fingerprint for child in rows],
            "sweep_only": [reading.spec.walks[child.walk].sweep_only for child in rows],
            "instance": reading.instance.id,
            "parent": partition.number,
            "run": partition.run_id,
            "sweep": partition.sweep,
            "since": partition.reading_since,
        },
    )


async def _write_partition(
    session: AsyncSession, reading: Reading, cursor: Cursor, growth: Growth, traffic: Traffic
) -> None:
    """The row is locked by now, and ours. A partition that its own page has taken away stays gone."""
    partition = reading.partition
    values: dict[str, Any] = {
        "cursor": cursor.to_json(),
        "requests": MirrorPartition.requests + traffic.requests,
        "rows": add_growth(growth),
        "pass_number": partition.pass_number,
        "reading_since": partition.reading_since,
        "progress_at": func.clock_timestamp(),
        "attempt": 0,
        "error": None,
    }
    if growth.high_water is not None:
        values["high_water"] = func.greatest(MirrorPartition.high_water, growth.high_water)
    if cursor.open is None:
        values |= {
            "seen": partition.wanted,
            "through": func.greatest(MirrorPartition.through, partition.reading_since),
            "last_success_at": func.clock_timestamp(),
            "lease_until": None,
            "next_at": text("CASE WHEN again THEN clock_timestamp() END"),
            "again": False,
            "reading_since": None,
            **({"swept": partition.reading_since} if _was_whole(reading) else {}),
        }
    await session.execute(
        update(MirrorPartition)
        .where(MirrorPartition.id == partition.id, MirrorPartition.status != "gone")
        .values(**values)
        .execution_options(synchronize_session=False)
    )


def _was_whole(reading: Reading) -> bool:
    """Whether this reading began with nothing, or read everything again: changes in what was there are in it."""
    opened = reading.cursor.open
    if reading.walk.kind != "log" or opened is None or opened.sweep:
        return True
    return not reading.cursor.spans.spans if reading.walk.newest_first else opened.low == ORIGIN


def add_growth(growth: Growth) -> Any:
    """The counters with what the page has added to them."""
    counters: Any = MirrorPartition.rows
    for table, count in sorted(growth.rows.items()):
        now = func.coalesce(MirrorPartition.rows[table].as_integer(), 0) + count
        counters = counters.op("||")(func.jsonb_build_object(table, now))
    return counters
