"""Archives a mirror that `mirror_probe` made, grown to five times its rows, and copies the same rows out bare."""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

import asyncpg

from app.archives.snapshot import write_snapshot
from app.archives.stores.filesystem import FilesystemArchive
from app.host.binding import InstanceData
from app.mirrors.columns import Table, quoted
from app.mirrors.mirrors import Mirrors
from app.mirrors.source import open_source
from metagov_sdk.provider import ProviderSpec

GROWN = 5
_ANOTHER_ID = 10_000_000


async def archive_grown(
    use: Mirrors, dsn: str, instance: InstanceData, spec: ProviderSpec, table: Table
) -> dict[str, float]:
    """How many rows, and what they took: archived, archived again unchanged, and copied."""
    connection = await asyncpg.connect(dsn)
    try:
        await _grow(connection, table)
        found: dict[str, float] = {}
        with tempfile.TemporaryDirectory(prefix="metagov-bench-mirror-") as folder:
            archive = FilesystemArchive(Path(folder))
            for name in ("archive_seconds", "again_seconds"):
                begun = time.perf_counter()
                async with open_source(use.db, instance, spec) as source:
                    written = await write_snapshot(archive, source)
                found[name] = time.perf_counter() - begun
        # Linux says it in KiB. Copying comes after: what it holds is none of the archive's.
        found |= {"archived": written.rows, "archive_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
        return found | {"out_seconds": await _copy_out(connection, table)}
    finally:
        await connection.close()


async def _grow(connection: asyncpg.Connection[asyncpg.Record], table: Table) -> None:
    """Each time the rows that were mirrored once more, all in one channel: parts of 2,000 rows and of very many."""
    names = await connection.fetch(
        "SELECT attname AS name FROM pg_attribute WHERE attrelid = CAST($1 AS regclass) AND attnum > 0 "
        "AND NOT attisdropped ORDER BY attnum",
        table.sql,
    )
    columns = [quoted(row["name"]) for row in names]
    for number in range(1, GROWN):
        changed = {
            '"id"': f"CAST(CAST(id AS bigint) + {number * _ANOTHER_ID} AS text)",
            '"channel_id"': f"'{number}'",
        }
        values = ", ".join(changed.get(column, column) for column in columns)
        await connection.execute(
            f"INSERT INTO {table.sql} ({', '.join(columns)}) "
            f"SELECT {values} FROM {table.sql} WHERE CAST(id AS bigint) < $1",
            await connection.fetchval(f"SELECT min(CAST(id AS bigint)) FROM {table.sql}") + _ANOTHER_ID,
        )
    await connection.execute(f"ANALYZE {table.sql}")


async def _copy_out(connection: asyncpg.Connection[asyncpg.Record], table: Table) -> float:
    async def take(data: bytes) -> None:
        pass

    begun = time.perf_counter()
    await connection.copy_from_query(f"SELECT * FROM {table.sql}", output=take)
    return time.perf_counter() - begun
