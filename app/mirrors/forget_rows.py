"""Taking an account out of the mirror itself: rows, texts of others, what was no row, kept answers, partitions."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import Database
from app.host.binding import InstanceData
from app.identity.person import Person
from app.mirrors.columns import TYPES, Table, quoted
from app.mirrors.forget import SAMPLE, Erasure
from app.mirrors.forgotten import texts_of
from app.mirrors.mirrors import tables_for

_WINDOW = 2000
_FEW = 50
_UNHURRIED = text("SET LOCAL statement_timeout = 0")


async def stop_readers(erasure: Erasure) -> None:
    """Whoever is reading began without knowing of this request: its next page is refused, and read again."""
    async with erasure.use.db.begin() as session:
        await session.execute(_UNHURRIED)
        await session.execute(_STOP, {"instances": [each.id for each in erasure.instances]})


# A page in hand has locked its partition since its first statement: this waits until it is committed.
_STOP = text("""
UPDATE mirror_partitions SET epoch = epoch + 1, lease_until = NULL, attempt = 0, next_at = coalesce(next_at, now())
WHERE instance_id = ANY(CAST(:instances AS text[])) AND lease_until IS NOT NULL
""")


async def learn_names(erasure: Erasure) -> None:
    """Keep how the person is called and which MetagovIDs are theirs alone, before the rows that tell it are gone."""
    names = dict.fromkeys(erasure.person.names)
    for instance in erasure.instances:
        for table in tables_for(erasure.spec).values():
            if table.record.names and table.record.people:
                names |= dict.fromkeys(await _names_in(erasure, table, instance))
    async with erasure.use.db.begin() as session:
        own = {"community": erasure.community_id, "plugin": erasure.plugin, "account": erasure.person.account}
        ids = list(await session.scalars(_IDS, own))
    called = [mark for name in names for mark in erasure.spec.cls.marks_of(name)]
    erasure.person = replace(
        erasure.person,
        names=tuple(names),
        marks=tuple(dict.fromkeys([*erasure.person.marks, *called])),
        ids=tuple(dict.fromkeys([*erasure.person.ids, *ids])),
    )
    if erasure.seal is not None:
        await erasure.seal(erasure.person)


async def _names_in(erasure: Erasure, table: Table, instance: InstanceData) -> list[str]:
    listed = ", ".join(f"t.{quoted(name)}::text" for name in table.record.names)
    found = []
    async for session, within, values in _windows(erasure.use.db, table, instance):
        rows = await session.execute(
            text(f"SELECT DISTINCT {listed} FROM {table.sql} t WHERE {within} AND ({_theirs(table)})"),  # noqa: S608
            values | {"account": erasure.person.account},
        )
        found += [name for row in rows for name in row if name]
    return found


async def _windows(
    db: Database, table: Table, instance: InstanceData
) -> AsyncIterator[tuple[AsyncSession, str, dict[str, Any]]]:
    """A table's rows of an instance, some at a time and each in a transaction: the condition, with its values.

    No statement has to walk all of a large table, for which there is not the time.
    """
    kinds = {column.name: column.kind for column in table.columns}
    key = table.record.key
    keys = ", ".join(f"t.{quoted(name)}" for name in key)

    def bound(letter: str) -> str:
        return ", ".join(f"CAST(:{letter}{place} AS {TYPES[kinds[name]]})" for place, name in enumerate(key))

    last: tuple[Any, ...] | None = None
    while True:
        within = "t.instance_id = :instance" + (f" AND ({keys}) > ({bound('a')})" if last is not None else "")
        values: dict[str, Any] = {"instance": instance.id} | {f"a{at}": each for at, each in enumerate(last or ())}
        async with db.begin() as session:
            end = text(f"SELECT {keys} FROM {table.sql} t WHERE {within} ORDER BY {keys} OFFSET {_WINDOW} LIMIT 1")  # noqa: S608
            row = (await session.execute(end, values)).one_or_none()
            if row is not None:
                within += f" AND ({keys}) <= ({bound('z')})"
                values |= {f"z{at}": each for at, each in enumerate(row)}
            yield session, within, values
        if row is None:
            return
        last = tuple(row)


# All ids of the person, unless an account of another platform is linked to any of them.
_IDS = text("""
WITH own AS (
    SELECT DISTINCT m.primary_id FROM linked_accounts l JOIN metagov_ids m ON m.id = l.metagov_id
    WHERE l.community_id = :community AND l.platform_type = :plugin AND l.platform_identifier = :account
)
SELECT m.id FROM metagov_ids m JOIN own USING (primary_id)
WHERE m.community_id = :community AND NOT EXISTS (
    SELECT FROM linked_accounts o JOIN metagov_ids x ON x.id = o.metagov_id
    WHERE x.primary_id = m.primary_id AND (o.platform_type, o.platform_identifier) <> (:plugin, :account))
""")


async def forget_rows(erasure: Erasure) -> None:
    """Delete the person's rows, and take their names out of the rows of others."""
    for instance in erasure.instances:
        for table in tables_for(erasure.spec).values():
            looked = 0
            async for session, within, values in _windows(erasure.use.db, table, instance):
                await _delete_rows(session, table, within, values, erasure)
                erasure.report.texts += await _clean_texts(session, table, within, values, erasure.person)
                looked += _WINDOW
                erasure.say(table.name, looked, None)


def _theirs(table: Table) -> str:
    return " OR ".join(f"t.{quoted(name)}::text = :account" for name in table.record.people)


async def _delete_rows(
    session: AsyncSession, table: Table, within: str, values: Mapping[str, Any], erasure: Erasure
) -> None:
    if not table.record.people:
        return
    keys = ", ".join(f"t.{quoted(name)}" for name in table.record.key)
    gone = list(
        await session.execute(
            text(
                f"DELETE FROM {table.sql} t WHERE {within} AND ({_theirs(table)}) "  # noqa: S608 -- checked names
                f"RETURNING {keys}, t.deleted_at"
            ),
            {**values, "account": erasure.person.account},
        )
    )
    if live := sum(row.deleted_at is None for row in gone):
        counted = {"instance": values["instance"], "table": table.record.table, "count": live}
        await session.execute(_UNCOUNT, counted)
    erasure.report.add(table.name, len(gone))
    known = erasure.samples.setdefault(table.name, [])
    known.extend(tuple(row)[:-1] for row in gone[: SAMPLE - len(known)])


# From whichever partition has counted that many: only the sum is shown.
_UNCOUNT = text("""
UPDATE mirror_partitions SET rows = jsonb_set(rows, ARRAY[CAST(:table AS text)],
    to_jsonb(coalesce((rows ->> CAST(:table AS text))::bigint, 0) - CAST(:count AS bigint)))
WHERE number = (SELECT min(number) FROM mirror_partitions WHERE instance_id = :instance)
""")


async def _clean_texts(
    session: AsyncSession, table: Table, within: str, values: Mapping[str, Any], person: Person
) -> int:
    """Take the names out of the texts of others. Returns in how many rows they were."""
    kinds = {column.name: column.kind for column in table.columns}
    columns = texts_of(table.record)
    anywhere = " || ' ' || ".join([*(f"coalesce(t.{quoted(name)}::text, '')" for name in columns), "t.extra::text"])
    listed = ", ".join([*(f"t.{quoted(name)}" for name in columns), "t.extra"])
    page = text(
        f"SELECT t.ctid::text AS place, {listed} FROM {table.sql} t "  # noqa: S608 -- checked names
        f"WHERE {within} AND ({anywhere}) ~ :trace FOR UPDATE"
    )
    rows = (await session.execute(page, {**values, "trace": person.posix})).mappings().all()
    cleaned = [(row, clean) for row in rows if (clean := _cleaned(row, columns, person)) is not None]
    if cleaned:
        write = text(_writing(table, columns, kinds))
        await session.execute(write, _written(cleaned, columns, kinds) | {"instance": values["instance"]})
    return len(cleaned)


def _cleaned(row: Mapping[Any, Any], columns: Sequence[str], person: Person) -> dict[str, Any] | None:
    before = {name: row[name] for name in columns}
    after: dict[str, Any] = {**person.out_of(before), "extra": person.out_of(row["extra"])}
    return None if after == {**before, "extra": row["extra"]} else after


def _writing(table: Table, columns: Sequence[str], kinds: Mapping[str, str]) -> str:
    assigned = "".join(
        f"{quoted(name)} = new.n{place}{'::jsonb' if kinds[name] == 'json' else ''}, "
        for place, name in enumerate(columns)
    )
    arrays = "".join(f"CAST(:v{place} AS text[]), " for place in range(len(columns)))
    names = "".join(f"n{place}, " for place in range(len(columns)))
    return (
        f"UPDATE {table.sql} t SET {assigned}extra = new.extra::jsonb, synced_at = clock_timestamp() "  # noqa: S608
        f"FROM unnest(CAST(:places AS text[]), {arrays}CAST(:extras AS text[])) AS new(place, {names}extra) "
        "WHERE t.ctid = new.place::tid AND t.instance_id = :instance"
    )


def _written(
    cleaned: Sequence[tuple[Mapping[Any, Any], dict[str, Any]]], columns: Sequence[str], kinds: Mapping[str, str]
) -> dict[str, Any]:
    def spelt(name: str, value: Any) -> Any:
        if value is None or kinds.get(name) != "json":
            return value
        return json.dumps(value, ensure_ascii=False)

    values: dict[str, Any] = {
        f"v{place}": [spelt(name, clean[name]) for _, clean in cleaned] for place, name in enumerate(columns)
    }
    extras = [json.dumps(clean["extra"], ensure_ascii=False) for _, clean in cleaned]
    return values | {"places": [row["place"] for row, _ in cleaned], "extras": extras}


async def forget_oddities(erasure: Erasure) -> None:
    """What was no row, and names the person, goes as a whole."""
    for instance in erasure.instances:
        page = (
            "SELECT sha256 AS key, table_name, body::text AS body FROM mirror_oddities "
            "WHERE instance_id = $1 AND sha256 > $2 AND body::text ~ $4 ORDER BY sha256 LIMIT $3"
        )
        async for rows in _pages(erasure.use.db, page, instance.id, erasure.person.posix):
            keys = [row["key"] for row in rows if erasure.person.is_in(json.loads(row["body"]))]
            erasure.report.oddities += int(await erasure.use.db.pool.fetchval(_ODDITIES, instance.id, keys))


_ODDITIES = """
WITH gone AS (DELETE FROM mirror_oddities WHERE instance_id = $1 AND sha256 = ANY($2::bytea[]) RETURNING 1)
SELECT count(*) FROM gone
"""


async def forget_answers(erasure: Erasure) -> None:
    """Kept answers that name the person go as a whole: they cannot be kept by their content and without it."""
    db = erasure.use.db
    for instance in erasure.instances:
        async for rows in _pages(db, _BODIES, instance.id):
            keys = await asyncio.to_thread(_naming, rows, erasure.person)
            if keys:
                erasure.report.answers += int(await db.pool.fetchval(_ANSWERS, keys, instance.id))
        asked = await db.pool.fetch(_ASKED, instance.id, erasure.person.posix)
        gone = [
            (row["partition"], row["place_sha256"])
            for row in asked
            if erasure.person.is_in_key(row["place"]) or erasure.person.is_in_key(row["answers"])
        ]
        for partition, place in gone:
            await db.pool.execute(
                "DELETE FROM mirror_answers WHERE partition = $1 AND place_sha256 = $2", partition, place
            )


def _naming(rows: Sequence[Any], person: Person) -> list[bytes]:
    return [row["key"] for row in rows if person.is_in_body(zlib.decompress(row["body"]))]


_BODIES = """
SELECT sha256 AS key, body FROM mirror_bodies WHERE instance_id = $1 AND sha256 > $2 ORDER BY sha256 LIMIT $3
"""
_ANSWERS = """
WITH named AS (SELECT encode(hash, 'hex') AS hex FROM unnest($1::bytea[]) AS named(hash)), pages AS (
    DELETE FROM mirror_answers a USING mirror_partitions p, named
    WHERE p.number = a.partition AND p.instance_id = $2 AND position(named.hex IN a.answers::text) > 0
), gone AS (
    DELETE FROM mirror_bodies WHERE instance_id = $2 AND sha256 = ANY($1::bytea[]) RETURNING 1
)
SELECT count(*) FROM gone
"""
# Where a page is, and what was asked for: addresses can name somebody, too.
_ASKED = """
SELECT a.partition, a.place_sha256, a.place::text AS place, a.answers::text AS answers
FROM mirror_answers a JOIN mirror_partitions p ON p.number = a.partition
WHERE p.instance_id = $1 AND (a.place::text ~ $2 OR a.answers::text ~ $2)
"""


async def _pages(db: Database, page: str, owner: str, *more: Any) -> AsyncIterator[Sequence[Any]]:
    after = b""
    while True:
        rows = await db.pool.fetch(page, owner, after, _FEW, *more)
        if rows:
            yield rows
        if len(rows) < _FEW:
            return
        after = rows[-1]["key"]


async def forget_partitions(erasure: Erasure) -> None:
    """What is read of the person by themselves is not read any more; where reading stopped at them, it begins anew."""
    person = erasure.person
    async with erasure.use.db.begin() as session:
        await session.execute(_UNHURRIED)
        where = {"instances": [each.id for each in erasure.instances], "trace": person.posix}
        for row in await session.execute(_PARTITIONS, where):
            if person.is_in_key(row.key) or person.is_in_key(row.owner_key or "") or _hangs_on(erasure, row):
                await session.execute(_NO_PARTITION, {"number": row.number})
                continue
            data, error = person.out_of(row.data), row.error and person.out_of_text(row.error)
            stopped = row.cursor is not None and person.is_in_key(json.dumps(row.cursor))
            if (data, error, stopped) != (row.data, row.error, False):
                given = {"number": row.number, "data": json.dumps(data), "error": error, "stopped": stopped}
                await session.execute(_CLEAN_PARTITION, given)
        for row in await session.execute(_RUNS, where):
            await session.execute(_CLEAN_RUN, {"id": row.id, "error": person.out_of_text(row.error)})
        for row in await session.execute(_MARKS, where):
            if person.is_in_key(row.key):
                await session.execute(_NO_MARK, dict(row._mapping))


def _hangs_on(erasure: Erasure, row: Any) -> bool:
    """Whether a partition is of a row whose key is the account, or looks such a row up."""
    table = row.owner_table or row.walk.partition("lookup:")[2]
    record = erasure.spec.records.get(table)
    if record is None or not set(record.key) & set(record.people):
        return False
    try:
        key = json.loads(row.owner_key) if row.owner_key else [row.key]
    except ValueError:
        return False
    named = dict(zip(record.key, key, strict=False))
    return any(str(named.get(name)) == erasure.person.account for name in record.people)


_PARTITIONS = text("""
SELECT number, walk, key, owner_table, owner_key, data, cursor, error FROM mirror_partitions
WHERE instance_id = ANY(CAST(:instances AS text[]))
  AND concat_ws(' ', key, owner_key, data::text, cursor::text, error) ~ :trace
FOR UPDATE
""")
_NO_PARTITION = text("DELETE FROM mirror_partitions WHERE number = :number")
_CLEAN_PARTITION = text("""
UPDATE mirror_partitions SET data = CAST(nullif(:data, 'null') AS json), error = :error, epoch = epoch + 1,
    lease_until = NULL, cursor = CASE WHEN :stopped THEN NULL ELSE cursor END,
    reading_since = CASE WHEN :stopped THEN NULL ELSE reading_since END
WHERE number = :number
""")
_RUNS = text("""
SELECT id, error FROM mirror_runs WHERE instance_id = ANY(CAST(:instances AS text[])) AND error ~ :trace
""")
_CLEAN_RUN = text("UPDATE mirror_runs SET error = :error WHERE id = :id")
_MARKS = text("""
SELECT instance_id, table_name, key FROM dirty_marks
WHERE instance_id = ANY(CAST(:instances AS text[])) AND key ~ :trace
""")
_NO_MARK = text("""
DELETE FROM dirty_marks WHERE (instance_id, table_name, key) = (:instance_id, :table_name, :key)
""")
