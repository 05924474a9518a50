"""Out of an archive again: exactly what went in, into memory, into Postgres, into Parquet."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pyarrow.parquet as parquet
import pytest

from app.archives.export import export_parquet
from app.archives.format import blob_name
from app.archives.postgres import open_sink
from app.archives.read import VerifiedReader, open_archive
from app.archives.restore import columns, restore
from app.archives.snapshot import write_snapshot
from app.archives.source import LEFT_OUT, Part, TableInfo
from app.core.db import plain_dsn
from app.gateway import Gateway
from metagov_sdk.archive import BadDigest, WrongValue
from metagov_sdk.archive.canonical import restore as restore_json
from tests.archives.forge import MemoryArchive
from tests.archives.memory import LIKES, MESSAGES, MemorySink, MemorySource, make_source, message

_SCHEMA = "archive_test"


@pytest.fixture
async def source() -> MemorySource:
    return make_source(messages=3000, likes=50)


@pytest.fixture
async def archive(source: MemorySource) -> MemoryArchive:
    made = MemoryArchive()
    await write_snapshot(made, source)
    return made


async def opened(archive: MemoryArchive) -> VerifiedReader:
    return await open_archive(archive, "discord", "town")


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without what an archive leaves out."""
    return {name: value for name, value in row.items() if name not in LEFT_OUT}


async def test_rows_are_as_they_were(archive: MemoryArchive, source: MemorySource) -> None:
    sink = MemorySink()
    seen: dict[str, int] = {}
    assert await restore(await opened(archive), sink, seen.__setitem__) == 3050
    assert sink.finished
    assert seen == {"discord.message": 3000, "discord.reaction": 50}
    for name, (info, rows) in source.data.items():
        assert sink.tables[name].json_schema == info.json_schema
        assert (sink.tables[name].key, sink.tables[name].time) == (info.key, info.time)
        assert sink.tables[name].synced_at == info.synced_at
        key = [info.partition, info.time, *info.key]
        wanted = sorted(map(plain, rows), key=lambda row: repr([row.get(name or "") for name in key]))
        found = sorted(sink.rows[name], key=lambda row: repr([row.get(name or "") for name in key]))
        assert found == wanted
        assert repr([row.get("extra") for row in found][:50]).count("ratio") == repr(
            [row.get("extra") for row in wanted][:50]
        ).count("ratio")


async def test_what_was_restored_gives_the_same_archive(archive: MemoryArchive, source: MemorySource) -> None:
    sink = MemorySink()
    await restore(await opened(archive), sink)
    again = MemoryArchive()
    await write_snapshot(
        again, MemorySource({name: (sink.tables[name], list(map(dict, sink.rows[name]))) for name in sink.tables})
    )
    assert again.snapshot == archive.snapshot


async def test_a_damaged_archive_is_not_restored(archive: MemoryArchive) -> None:
    chunk = archive.manifest()["tables"][0]["chunks"][-1]
    archive.objects[blob_name(chunk["sha256"])] = b"x" * chunk["stored_bytes"]
    sink = MemorySink()
    with pytest.raises(BadDigest):
        await restore(await opened(archive), sink)
    assert not sink.finished


@dataclass
class PostgresSource:
    """Tables that were restored into Postgres, as a source again: what the order in SQL has to be."""

    connection: asyncpg.Connection[asyncpg.Record]
    infos: Sequence[TableInfo]
    provider: str = "discord"
    community: str = "town"

    async def tables(self) -> Sequence[TableInfo]:
        return self.infos

    async def marks(self, table: TableInfo) -> Mapping[Part, str]:
        return {}

    async def rows(
        self, table: TableInfo, without: Collection[Part]
    ) -> AsyncGenerator[Sequence[Mapping[str, Any]], None]:
        order = []
        if table.partition:
            order.append(f'{table.partition}::text COLLATE "C" NULLS FIRST')
        if table.time:
            order.append(f"date_trunc('month', {table.time} AT TIME ZONE 'UTC') NULLS FIRST")
        kinds = columns(table)
        order += [f'"{name}" COLLATE "C"' if kinds[name] == "text" else f'"{name}"' for name in table.key]
        batch = []
        query = f"SELECT * FROM {_SCHEMA}.{table.name.split('.')[1]} ORDER BY {', '.join(order)}"
        async for record in self.connection.cursor(query, prefetch=500):
            row = dict(record)
            for name, kind in kinds.items():
                if kind == "json" and row[name] is not None:
                    row[name] = json.loads(row[name])
                elif kind == "integer" and row[name] is not None:
                    row[name] = int(row[name])
            batch.append(row)
        yield batch


async def test_a_fresh_database_gives_the_same_archive(
    archive: MemoryArchive, source: MemorySource, gateway: Gateway
) -> None:
    dsn = plain_dsn(gateway.settings.database_url)
    connection = await asyncpg.connect(dsn)
    try:
        async with open_sink(dsn, _SCHEMA) as sink:
            await restore(await opened(archive), sink)
        assert await connection.fetchval(f"SELECT count(*) FROM {_SCHEMA}.message WHERE deleted_at IS NULL") == sum(
            row["deleted_at"] is None for row in source.data["discord.message"][1]
        )
        again = MemoryArchive()
        async with connection.transaction(isolation="repeatable_read"):
            infos = [info for info, _ in source.data.values()]
            await write_snapshot(again, PostgresSource(connection, infos))
        assert again.snapshot == archive.snapshot
        # A restore that fails leaves what was there.
        chunk = archive.manifest()["tables"][1]["chunks"][0]
        archive.objects[blob_name(chunk["sha256"])] = b"x" * chunk["stored_bytes"]
        with pytest.raises(BadDigest):
            async with open_sink(dsn, _SCHEMA) as sink:
                await restore(await opened(archive), sink)
        assert await connection.fetchval(f"SELECT count(*) FROM {_SCHEMA}.message") == 3000
    finally:
        await connection.execute(f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE")
        await connection.close()


async def test_columns_with_names_that_sql_would_take_for_more(gateway: Gateway) -> None:
    name = 'id"); DROP TABLE drivers; --'
    schema = {"type": "object", "properties": {name: {"type": "string"}, "deleted_at": {}}}
    archive = MemoryArchive()
    odd = MemorySource({"x.odd": (TableInfo("x.odd", schema, (name,)), [{name: "1"}])}, provider="x")
    await write_snapshot(archive, odd)
    dsn = plain_dsn(gateway.settings.database_url)
    async with open_sink(dsn, _SCHEMA) as sink:
        await restore(await open_archive(archive, "x", "town"), sink)
        sink.finished = False
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM drivers") == 0


async def test_text_that_postgres_cannot_hold(gateway: Gateway) -> None:
    archive = MemoryArchive()
    source = MemorySource({MESSAGES.name: (MESSAGES, [message(1, content="a\0b")])})
    await write_snapshot(archive, source)
    with pytest.raises(WrongValue, match=r"discord\.message"):
        async with open_sink(plain_dsn(gateway.settings.database_url), _SCHEMA) as sink:
            await restore(await opened(archive), sink)


async def test_parquet(archive: MemoryArchive, tmp_path: Path) -> None:
    source = make_source(messages=300, likes=9)
    source.data["discord.message"][1][:] = [
        {**row, "length": row["length"] % 2**60} for row in source.data["discord.message"][1]
    ]
    await write_snapshot(archive, source)
    files = await export_parquet(await opened(archive), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "discord.message.parquet",
        "discord.reaction.parquet",
    ]
    table = parquet.read_table(files[0])
    assert table.num_rows == 300
    assert table.schema.metadata[b"metagov.snapshot"].decode() == archive.snapshot
    by_id = {row["id"]: row for row in source.data["discord.message"][1]}
    for row in table.to_pylist():
        wanted = by_id[row["id"]]
        for name in ("channel_id", "author_id", "content", "created_at", "pinned", "length", "deleted_at"):
            assert row[name] == wanted[name]
        assert orjson.loads(row["mentions"]) == wanted["mentions"]
        assert json.loads(row["extra"]) == wanted["extra"]
    assert parquet.read_table(files[1]).num_rows == 9


async def test_an_integer_that_parquet_has_no_type_for(tmp_path: Path) -> None:
    archive = MemoryArchive()
    rows = [{"message": 2**63, "emoji": "a", "user": 1}]
    await write_snapshot(archive, MemorySource({LIKES.name: (LIKES, rows)}))
    with pytest.raises(WrongValue, match=r"discord\.reaction\.message"):
        await export_parquet(await opened(archive), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tags_are_read_back() -> None:
    assert restore_json({"$object": {"$number": "1"}}) == {"$number": "1"}
