"""Making and extending the tables of providers: `metagov migrate` does it, workers only look whether it is done."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from sqlalchemy import RowMapping, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import Database
from app.mirrors.columns import TYPES, Table, quoted, schema_name, tables_of
from app.mirrors.models import MirrorTable
from metagov_sdk.provider import ProviderSpec

_LOCK = 7_163_584_220_154_378
_BATCH = 1000

_log = structlog.get_logger(__name__)


class SchemaRefused(Exception):
    """A plugin's records changed in a way that the rows which are there cannot follow; the message says which."""


@dataclass(slots=True)
class Migrated:
    """What `apply_schemas` did, by full table names."""

    made: list[str] = field(default_factory=list)
    extended: dict[str, list[str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


async def apply_schemas(db: Database, specs: Iterable[ProviderSpec]) -> Migrated:
    """Make the tables that are missing, add new columns, and fill those from what was kept of them.

    A provider whose change is refused is left as it was, and does not keep the others from theirs.
    """
    done = Migrated()
    for spec in specs:
        try:
            async with db.begin() as session:
                await session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
                await _apply(session, spec, done)
        except SchemaRefused as refusal:
            done.refused[spec.name] = str(refusal)
            continue
        for table in tables_of(spec).values():
            await _fill(db, table)
    return done


async def find_pending(session: AsyncSession, specs: Iterable[ProviderSpec]) -> dict[str, str]:
    """Providers whose tables are not as their code has them, and the mend. Their mirrors rest."""
    if (await session.execute(text("SELECT to_regclass('mirror_tables')"))).scalar_one() is None:
        return {spec.name: "the database waits for `metagov migrate`" for spec in specs}
    rows = (await session.scalars(select(MirrorTable))).all()
    known = {(row.provider, row.table_name): row for row in rows}
    pending: dict[str, str] = {}
    for spec in specs:
        for name, table in tables_of(spec).items():
            if (reason := _wants(table, known.get((spec.name, name)))) is not None:
                pending.setdefault(spec.name, reason)
    return pending


def _wants(table: Table, row: MirrorTable | None) -> str | None:
    if row is None:
        return f"the table {table.name} is not there yet: run `metagov migrate`"
    if row.shape != table.shape:
        try:
            new = _new_columns(table, row.shape)
        except SchemaRefused as refusal:
            return str(refusal)
        what = f"lacks {', '.join(new)}" if new else "has columns that the plugin no longer has"
        return f"the table {table.name} {what}: run `metagov migrate`"
    return f"new columns of the table {table.name} are not filled yet: run `metagov migrate`" if row.filling else None


async def _apply(session: AsyncSession, spec: ProviderSpec, done: Migrated) -> None:
    rows = await session.scalars(select(MirrorTable).where(MirrorTable.provider == spec.name))
    known = {row.table_name: row for row in rows}
    await session.execute(text(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema_name(spec.name))}"))
    for name, table in tables_of(spec).items():
        row = known.get(name)
        if row is None:
            for statement in table.create():
                await session.execute(text(statement))
            await _register(session, table, [])
            done.made.append(table.name)
        elif row.shape != table.shape:
            new = _new_columns(table, row.shape)
            for column in table.columns:
                if column.name in new:
                    added = f"ADD COLUMN IF NOT EXISTS {quoted(column.name)} {TYPES[column.kind]}"
                    await session.execute(text(f"ALTER TABLE {table.sql} {added}"))
            await _register(session, table, [*row.filling, *new])
            done.extended[table.name] = new


def _new_columns(table: Table, old: Mapping[str, Any]) -> list[str]:
    """Raises SchemaRefused for what is more than new columns, or fewer."""
    shape = table.shape
    if shape["key"] != old["key"]:
        raise SchemaRefused(
            f"{table.name}: its key was {', '.join(old['key'])} and is now {', '.join(shape['key'])}; rows cannot be "
            "told apart anew. Give the record another table name, and let a sweep fill it"
        )
    for name, kind in old["columns"].items():
        now = shape["columns"].get(name, kind)
        if now != kind:
            raise SchemaRefused(
                f"{table.name}: the field {name} was {kind} and is now {now}; give the new one another name, and it "
                "is filled from what was kept, or by a sweep"
            )
    return [name for name in shape["columns"] if name not in old["columns"]]


async def _register(session: AsyncSession, table: Table, filling: list[str]) -> None:
    values = {"shape": table.shape, "sha256": table.sha256, "filling": filling}
    await session.execute(
        insert(MirrorTable)
        .values(provider=table.provider, table_name=table.record.table, **values)
        .on_conflict_do_update(index_elements=["provider", "table_name"], set_={**values, "updated_at": text("now()")})
    )


async def _fill(db: Database, table: Table) -> None:
    """Fill new columns from `extra`, where the platform's values were kept, some rows per transaction."""
    async with db.begin() as session:
        row = await session.get(MirrorTable, (table.provider, table.record.table))
        filling = [] if row is None else [column for column in table.columns if column.name in row.filling]
    if not filling:
        return
    roots = sorted({column.path[0] for column in filling})
    keys = ["instance_id", *table.record.key]
    listed = ", ".join(f"t.{quoted(name)}" for name in keys)
    # By the key, so that a row that holds nothing for the column is not met again.
    page = text(
        f"SELECT {listed}, t.extra FROM {table.sql} t WHERE t.extra ?| CAST(:roots AS text[]) "  # noqa: S608
        f"AND (CAST(:after AS jsonb) IS NULL OR ({listed}) > "
        f"(SELECT * FROM jsonb_to_record(CAST(:after AS jsonb)) AS a({_typed(table)}))) "
        f"ORDER BY {listed} LIMIT {_BATCH}"
    )
    after: str | None = None
    filled = 0
    while True:
        async with db.begin() as session:
            rows = (await session.execute(page, {"roots": roots, "after": after})).mappings().all()
            if rows:
                await _fill_rows(session, table, [column.name for column in filling], rows)
        filled += len(rows)
        if len(rows) < _BATCH:
            break
        after = json.dumps({name: rows[-1][name] for name in keys})
    async with db.begin() as session:
        await session.execute(
            update(MirrorTable)
            .where(MirrorTable.provider == table.provider, MirrorTable.table_name == table.record.table)
            .values(filling=[])
        )
    _log.info("new columns filled", table=table.name, columns=[column.name for column in filling], rows=filled)


def _typed(table: Table) -> str:
    kinds = {column.name: TYPES[column.kind] for column in table.columns}
    return ", ".join(f"{quoted(name)} {kinds.get(name, TYPES['text'])}" for name in ("instance_id", *table.record.key))


async def _fill_rows(session: AsyncSession, table: Table, names: list[str], rows: Iterable[RowMapping]) -> None:
    """What was kept is read as the record reads it now: a value that does not fit stays where it is."""
    columns = {column.name: column for column in table.columns}
    instances: list[str] = []
    keys: list[list[Any]] = [[] for _ in table.record.key]
    values: list[list[Any]] = [[] for _ in names]
    extras: list[str] = []
    for row in rows:
        read = table.record.read(row["extra"])
        for place, name in enumerate(names):
            value = getattr(read, name)
            values[place].append(json.dumps(value) if columns[name].kind == "json" and value is not None else value)
        for place, name in enumerate(table.record.key):
            keys[place].append(row[name])
        instances.append(row["instance_id"])
        extras.append(read.extra_json)
    types = [*(columns[name].kind for name in table.record.key), *(columns[name].kind for name in names)]
    plain = {"text": "text", "integer": "bigint", "boolean": "boolean", "time": "timestamptz", "json": "jsonb"}
    arrays = ", ".join(f"CAST(:v{place} AS {plain[kind]}[])" for place, kind in enumerate(types))
    listed = ", ".join([*(f"k{place}" for place in range(len(keys))), *(f"n{place}" for place in range(len(names)))])
    matched = " AND ".join(f"t.{quoted(name)} = new.k{place}" for place, name in enumerate(table.record.key))
    assigned = ", ".join(f"{quoted(name)} = new.n{place}" for place, name in enumerate(names))
    await session.execute(
        text(
            f"UPDATE {table.sql} t SET {assigned}, extra = new.extra, synced_at = now() "  # noqa: S608
            f"FROM unnest(CAST(:instances AS text[]), {arrays}, CAST(:extras AS jsonb[])) "
            f"AS new(instance_id, {listed}, extra) WHERE t.instance_id = new.instance_id AND {matched}"
        ),
        {
            "instances": instances,
            "extras": extras,
            **{f"v{place}": each for place, each in enumerate([*keys, *values])},
        },
    )
