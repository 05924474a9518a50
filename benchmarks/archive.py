"""Archives: a table of Postgres becomes a snapshot in a folder, which is verified; beside bare COPY and bare zstd.

Each round is a process of its own (`python -m benchmarks.archive`), so that its memory can be told.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import zstandard

from app.archives.chunks import Chunker, RowFormat
from app.archives.format import LEVEL
from app.archives.read import open_archive
from app.archives.snapshot import write_snapshot
from app.archives.source import Part, TableInfo
from app.archives.stores.filesystem import FilesystemArchive
from benchmarks.report import Run

_ROWS = 1_000_000
_CHANNELS = 50
_BATCH = 2000
_WRITE, _VERIFY, _AGAIN = 100_000.0, 200_000.0, 100_000.0
_MOST_MB = 200.0
_SECONDS = 240
_TABLE = TableInfo(
    name="bench.message",
    json_schema={
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "channel_id": {"type": "string"},
            "author_id": {"type": ["string", "null"]},
            "content": {"type": "string"},
            "created_at": {"type": "string", "format": "date-time"},
            "pinned": {"type": "boolean"},
            "reactions": {"type": "integer"},
            "deleted_at": {"type": ["string", "null"], "format": "date-time"},
        },
    },
    key=("id",),
    partition="channel_id",
    time="created_at",
)
_COLUMNS = list(_TABLE.json_schema["properties"])
_CREATE = """
DROP TABLE IF EXISTS bench_messages;
CREATE TABLE bench_messages (
    id text COLLATE "C", channel_id text COLLATE "C", author_id text, content text, created_at timestamptz,
    pinned boolean, reactions bigint, deleted_at timestamptz
)
"""
_SELECT = f"""
SELECT {", ".join(_COLUMNS)} FROM bench_messages
ORDER BY channel_id NULLS FIRST, date_trunc('month', created_at AT TIME ZONE 'UTC') NULLS FIRST, id
"""
_WORDS = [
    "the",
    "orchard",
    "meets",
    "on",
    "sunday",
    "bring",
    "a",
    "spade",
    "and",
    "something",
    "warm",
    "to",
    "drink",
    "we",
    "prune",
    "apple",
    "pear",
    "and",
    "plum",
]


def measure(run: Run) -> None:
    """Write, write again unchanged, verify."""
    found: dict[str, list[float]] = {}
    for number in range(run.rounds):
        run.say(f"archive, round {number + 1} of {run.rounds}")
        rows = max(2000, round(_ROWS * run.scale))
        with tempfile.TemporaryDirectory(prefix="metagov-bench-archive-") as folder:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.archive", run.stack.dsn, str(rows), folder],
                capture_output=True,
                text=True,
                timeout=_SECONDS,
            )
        if done.returncode:
            run.report.fail("archive", 1, done.stderr[-500:])
            return
        for name, value in json.loads(done.stdout).items():
            found.setdefault(name, []).append(value)
    report = run.report
    for name, key, wanted in (
        ("rows archived, from Postgres", "write", _WRITE),
        ("rows archived again, unchanged", "again", _AGAIN),
        ("rows verified", "verify", _VERIFY),
    ):
        report.budget(name, found[key], "rows/s", wanted)
    report.add("rows archived beside COPY", found["write"], "rows/s", "bare COPY in", found["copy"], None)
    report.add(
        "rows archived beside zstd", found["write"], "rows/s", "bare zstd of the same bytes", found["pack"], None
    )
    report.add("rows verified beside zstd", found["verify"], "rows/s", "bare unpacking", found["unpack"], None)
    report.budget("memory of the archiving process", found["memory"], "MB", _MOST_MB, at_most=True)


def _rows(count: int) -> Iterator[tuple[Any, ...]]:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    for number in range(count):
        words = " ".join(_WORDS[number * step % len(_WORDS)] for step in range(3, 3 + number % 17))
        at = start + timedelta(seconds=20 * number)
        yield (
            str(10**17 + number * 4096),
            str(500 + number % _CHANNELS),
            str(9000 + number * 7 % 997),
            f"{number} {words}",
            at,
            number % 100 == 0,
            number % 7,
            None,
        )


class _Postgres:
    """The table as a source, by a cursor in one transaction."""

    provider = "bench"
    community = "town"

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection

    async def tables(self) -> Sequence[TableInfo]:
        return [_TABLE]

    async def marks(self, table: TableInfo) -> Mapping[Part, str]:
        return {}

    async def rows(
        self, table: TableInfo, without: Collection[Part]
    ) -> AsyncGenerator[Sequence[Mapping[str, Any]], None]:
        cursor = await self._connection.cursor(_SELECT)
        while records := await cursor.fetch(_BATCH):
            yield [dict(record) for record in records]


async def _measure_once(dsn: str, count: int, folder: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    connection = await asyncpg.connect(dsn)
    await connection.execute(_CREATE)
    started = time.perf_counter()
    await connection.copy_records_to_table("bench_messages", records=_rows(count), columns=_COLUMNS)
    found["copy"] = count / (time.perf_counter() - started)
    # What a mirror's table has too: an index in the order that an archive asks for.
    await connection.execute(
        "CREATE INDEX ON bench_messages "
        "(channel_id NULLS FIRST, date_trunc('month', created_at AT TIME ZONE 'UTC') NULLS FIRST, id)"
    )
    await connection.execute("CLUSTER bench_messages USING bench_messages_channel_id_date_trunc_id_idx")
    await connection.execute("ANALYZE bench_messages")
    archive = FilesystemArchive(folder)
    for name in ("write", "again"):
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            started = time.perf_counter()
            written = await write_snapshot(archive, _Postgres(connection))
            found[name] = count / (time.perf_counter() - started)
            assert (written.rows, written.moved) == (count, name == "write")
    reader = await open_archive(archive, "bench", "town")
    started = time.perf_counter()
    assert await reader.verify() == count
    found["verify"] = count / (time.perf_counter() - started)
    # Linux says it in KiB.
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    found |= await _bare(connection, count)
    await connection.execute("DROP TABLE bench_messages")
    await connection.close()
    return found


async def _bare(connection: asyncpg.Connection[asyncpg.Record], count: int) -> dict[str, float]:
    """The same chunks packed and unpacked, and nothing else."""
    chunker, packed = Chunker(RowFormat(_TABLE)), 0.0
    packer, unpacker, unpacked = zstandard.ZstdCompressor(level=LEVEL), zstandard.ZstdDecompressor(), 0.0
    async with connection.transaction():
        async for batch in _Postgres(connection).rows(_TABLE, ()):
            for chunk in chunker.take(batch):
                started = time.perf_counter()
                stored = packer.compress(chunk.data)
                packed += time.perf_counter() - started
                started = time.perf_counter()
                unpacker.decompress(stored)
                unpacked += time.perf_counter() - started
    return {"pack": count / packed, "unpack": count / unpacked}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_measure_once(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))))
