"""A mirror's tables for whoever reads them whole, and for what fills them whole: the two sides that archives know."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.crypto import Vault
from app.core.db import Database
from app.core.ids import new_id
from app.core.json_text import json_text
from app.host.binding import InstanceData
from app.mirrors.forgotten import Forgotten, read_forgotten
from app.mirrors.lines import LineQuery, copy_out, month_of
from app.mirrors.mirrors import tables_for
from app.mirrors.parts import Lines, Part, TableInfo
from app.mirrors.status import read_status
from metagov_sdk.provider import ProviderSpec

_SECONDS = 600.0
"""How long one batch may wait for the disk."""
_SORT_MEMORY = "32MB"
"""Of each process that sorts a table by part: a million rows are merged at once from what that leaves on disk."""


class MirrorSource:
    """One instance's mirror as it is at one moment: every call sees the same rows. Made by `open_source`."""

    def __init__(self, connection: AsyncConnection, instance: InstanceData, spec: ProviderSpec) -> None:
        self._connection = connection
        self._instance = instance
        self._queries = {table.name: LineQuery(table) for table in tables_for(spec).values()}
        self.provider = spec.name
        self.community = instance.community
        self.infos: Sequence[TableInfo] = ()

    async def tables(self) -> Sequence[TableInfo]:
        """All tables, also empty ones."""
        return self.infos

    async def marks(self, table: TableInfo) -> Mapping[Part, str]:
        """For each part a text that differs when any row of the part does: how many rows, and when each last changed.

        Of all the times their sum, and not the greatest: of two pages written at once, either may be committed first.
        """
        found = self._queries[table.name]
        rows = await self._connection.execute(
            text(
                f"SELECT {found.partition} AS part, {found.month} AS month, count(*) || ':' || "  # noqa: S608
                # As a number with a fraction, of which extract() would give a decimal, it takes a third of the time.
                "sum(CAST(date_part('epoch', t.synced_at) * 1000000 AS bigint)) AS mark "
                f"FROM {found.table.sql} t WHERE t.instance_id = :instance GROUP BY 1, 2"
            ),
            {"instance": self._instance.id},
        )
        return {Part(row.part, row.month and row.month.isoformat()[:7]): row.mark for row in rows}

    async def rows(self, table: TableInfo, without: Collection[Part] = ()) -> AsyncGenerator[Lines, None]:
        """The rows, some of one part at a time, in the order of (partition, month, key), without those of some parts.

        What is held is what Postgres sent last. Closed before its end, it ends the source. Raises WrongValue.
        """
        query = self._queries[table.name]
        asked: tuple[Any, ...] = (query.all_rows, self._instance.id)
        if without:
            partitions = [part.partition or "" for part in without]
            asked = (query.rows_without, self._instance.id, partitions, [month_of(part) for part in without])
        raw = await self._connection.get_raw_connection()
        driver: Any = raw.driver_connection
        try:
            async with contextlib.aclosing(copy_out(driver, *asked)) as copied:
                async for data in copied:
                    for lines in query.read(data):
                        yield lines
        finally:
            if driver.is_closed():
                await self._connection.invalidate()


@contextlib.asynccontextmanager
async def open_source(db: Database, instance: InstanceData, spec: ProviderSpec) -> AsyncIterator[MirrorSource]:
    """The mirror as it is now, for as long as the block lasts."""
    async with db.begin() as session:
        status = await read_status(session, instance.id, spec)
    async with db.engine.connect() as plain:
        connection = await plain.execution_options(isolation_level="REPEATABLE READ")
        # Reading all of a large mirror takes its time, and so does what is done with each batch.
        await connection.execute(text("SET LOCAL statement_timeout = 0"))
        await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        await connection.execute(text(f"SET LOCAL work_mem = '{_SORT_MEMORY}'"))
        # How `LineQuery` reads months.
        await connection.execute(text("SET LOCAL datestyle = 'ISO'"))
        source = MirrorSource(connection, instance, spec)
        source.infos = [
            TableInfo(
                name=table.name,
                json_schema=table.record.json_schema(),
                key=table.record.key,
                partition=table.record.partition,
                time=table.record.time,
                synced_at=stands.last_success_at,
                complete_through=stands.complete_through,
            )
            for table, stands in zip(tables_for(spec).values(), status.tables, strict=True)
        ]
        yield source


class DoesNotFit(ValueError):
    """What is to be filled in is not what the installed plugin mirrors; the text has the mend."""


class MirrorSink:
    """Fills an instance's tables from elsewhere, in one transaction. Made by `open_sink`."""

    def __init__(
        self, connection: AsyncConnection, instance: InstanceData, spec: ProviderSpec, forgotten: Forgotten
    ) -> None:
        self._connection = connection
        self._instance = instance
        self._spec = spec
        self._forgotten = forgotten
        self._tables = {table.name: table for table in tables_for(spec).values()}
        self._counts: dict[str, int] = {}
        self._now: datetime | None = None
        self.finished = False

    async def begin(self, tables: Sequence[TableInfo]) -> None:
        """What the instance had in its tables goes; a run that is under way is over, and failed. Raises DoesNotFit."""
        for info in tables:
            self._check(info)
        values = {"instance": self._instance.id, "provider": self._spec.name}
        # Whoever asks for a run waits at the first; whoever reads a page finds at the last that it lost its partition.
        for statement in (_HOLD, _END_RUNS, _DROP_PARTITIONS):
            await self._connection.execute(statement, values)
        self._now = (await self._connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
        for table in self._tables.values():
            await self._connection.execute(
                text(f"DELETE FROM {table.sql} WHERE instance_id = :instance"),  # noqa: S608
                {"instance": self._instance.id},
            )

    def _check(self, info: TableInfo) -> None:
        mend = f"install the version of {self._spec.name} that wrote them"
        table = self._tables.get(info.name)
        if table is None:
            raise DoesNotFit(f"the installed plugin has no table {info.name}: {mend}")
        ours, theirs = table.record.json_schema()["properties"], info.json_schema.get("properties", {})
        if lost := sorted(theirs.keys() - ours.keys()):
            raise DoesNotFit(f"the installed plugin's {info.name} has no {', '.join(lost)}: {mend}")
        if info.key != table.record.key:
            raise DoesNotFit(f"the rows of {info.name} have another key ({', '.join(info.key)}): {mend}")

    async def write(self, table: TableInfo, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take rows, but for those of the forgotten; a column that they do not have is null.

        Raises DoesNotFit for values that no column takes.
        """
        found = self._tables[table.name]
        rows = self._forgotten.without_rows(found.record, rows)
        json_columns = {column.name for column in found.columns if column.kind == "json"} | {"extra", "mirror_flags"}
        own = [column.name for column in found.columns]
        names = [*own, "extra", "mirror_flags", "deleted_at"]
        records = [
            (
                self._instance.id,
                self._instance.community_id,
                0,
                self._now,
                row.get("synced_at") or self._now,
                *(_written(row.get(name), name, name in json_columns) for name in names),
            )
            for row in rows
        ]
        raw = await self._connection.get_raw_connection()
        driver: Any = raw.driver_connection
        schema, _, short = found.sql.replace('"', "").partition(".")
        try:
            await driver.copy_records_to_table(
                short,
                schema_name=schema,
                columns=["instance_id", "community_id", "mirror_pass", "first_seen", "synced_at", *names],
                records=records,
                timeout=_SECONDS,
            )
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            raise DoesNotFit(f"{table.name} cannot take a row: {error}") from None
        live = sum(row.get("deleted_at") is None for row in rows)
        self._counts[found.record.table] = self._counts.get(found.record.table, 0) + live

    async def finish(self) -> None:
        """Keep them. The next sweep finds out which of them the platform still has."""
        await self._connection.execute(
            text(
                "INSERT INTO mirror_partitions (id, instance_id, walk, key, next_at, rows) "
                "VALUES (:id, :instance, :walk, '', NULL, CAST(:rows AS jsonb))"
            ),
            {
                "id": new_id("par"),
                "instance": self._instance.id,
                "walk": self._spec.roots[0].name,
                "rows": json.dumps(self._counts),
            },
        )
        self.finished = True


_HOLD = text("""
INSERT INTO mirrors (instance_id, provider) VALUES (:instance, :provider)
ON CONFLICT (instance_id) DO UPDATE SET provider = excluded.provider
""")
_END_RUNS = text("""
UPDATE mirror_runs
SET state = 'failed', finished_at = clock_timestamp(), error = 'the mirror was filled from an archive'
WHERE instance_id = :instance AND finished_at IS NULL
""")
_DROP_PARTITIONS = text("DELETE FROM mirror_partitions WHERE instance_id = :instance")


@contextlib.asynccontextmanager
async def open_sink(
    db: Database, instance: InstanceData, spec: ProviderSpec, vault: Vault
) -> AsyncIterator[MirrorSink]:
    """A sink into an instance's tables; nothing changes there unless it is finished.

    vault: opens the names of those who are forgotten, and do not come back with what was archived before.
    """
    forgotten = await read_forgotten(db, vault, instance, spec)
    async with db.engine.connect() as connection, connection.begin() as transaction:
        await connection.execute(text("SET LOCAL statement_timeout = 0"))
        await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        sink = MirrorSink(connection, instance, spec, forgotten)
        yield sink
        if not sink.finished:
            await transaction.rollback()


def _written(value: Any, name: str, is_json: bool) -> Any:
    if not is_json:
        return value
    if value is None:
        return "{}" if name == "extra" else None
    return json_text(value)
