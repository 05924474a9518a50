"""An archive's rows as plain tables of a Postgres schema of their own, made from the archive's JSON Schemas alone."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import asyncpg

from app.archives.restore import columns
from app.archives.source import TableInfo
from app.core.json_text import json_text
from metagov_sdk.archive import WrongValue
from metagov_sdk.archive.columns import Kind

_TYPES: Mapping[Kind, str] = {
    "text": "text",
    # An archive's integers are as large as the platform's; bigint would refuse the largest.
    "integer": "numeric",
    "boolean": "boolean",
    "moment": "timestamptz",
    "json": "json",
}


class PostgresSink:
    """Writes tables into a schema, in one transaction: all of them, or nothing. Made by `open_sink`."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record], schema: str) -> None:
        self._connection = connection
        self._schema = schema
        self.finished = False

    async def begin(self, tables: Sequence[TableInfo]) -> None:
        """Make the schema and its tables anew."""
        await self._connection.execute(f"DROP SCHEMA IF EXISTS {_name(self._schema)} CASCADE")
        await self._connection.execute(f"CREATE SCHEMA {_name(self._schema)}")
        for table in tables:
            described = [f"{_name(column)} {_TYPES[kind]}" for column, kind in columns(table).items()]
            key = ", ".join(map(_name, table.key))
            await self._connection.execute(
                f"CREATE TABLE {self._table(table)} ({', '.join([*described, f'PRIMARY KEY ({key})'])})"
            )

    async def write(self, table: TableInfo, rows: Sequence[Mapping[str, Any]]) -> None:
        """COPY rows. Raises WrongValue for what Postgres cannot hold: NUL in a text."""
        kinds = columns(table)
        writers = [(name, kind) for name, kind in kinds.items()]
        try:
            await self._connection.copy_records_to_table(
                _short(table),
                schema_name=self._schema,
                columns=list(kinds),
                records=[tuple(_written(row[name], kind) for name, kind in writers) for row in rows],
            )
        except (asyncpg.DataError, asyncpg.UntranslatableCharacterError) as error:
            raise WrongValue(f"{table.name}: Postgres cannot hold a value: {error}") from None

    async def finish(self) -> None:
        """Keep it."""
        self.finished = True

    def _table(self, table: TableInfo) -> str:
        return f"{_name(self._schema)}.{_name(_short(table))}"


@contextlib.asynccontextmanager
async def open_sink(dsn: str, schema: str) -> AsyncIterator[PostgresSink]:
    """A sink into `schema` of a database; nothing changes there unless it is finished."""
    connection = await asyncpg.connect(dsn)
    try:
        transaction = connection.transaction()
        await transaction.start()
        sink = PostgresSink(connection, schema)
        try:
            yield sink
        except BaseException:
            await transaction.rollback()
            raise
        await (transaction.commit() if sink.finished else transaction.rollback())
    finally:
        await connection.close()


def _written(value: Any, kind: Kind) -> Any:
    if kind != "json" or value is None:
        return value
    return json_text(value)


def _short(table: TableInfo) -> str:
    return table.name.partition(".")[2]


def _name(name: str) -> str:
    """An SQL name; what an archive calls its columns is not trusted."""
    if not name or "\0" in name or len(name.encode()) > 63:
        raise WrongValue(f"{name[:80]!r} cannot be the name of a table or column")
    return '"' + name.replace('"', '""') + '"'
