"""An archive as Parquet files, one per table: what DuckDB, Spark and Trino read. Needs the extra `parquet`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.archives.read import table_info
from app.archives.restore import columns, decoder
from app.core.json_text import json_text
from metagov_sdk.archive import ArchivedTable, ArchiveReader, WrongValue
from metagov_sdk.archive.columns import Kind

if TYPE_CHECKING:
    import pyarrow

_ROW_GROUP = 100_000
_INT64 = 2**63


class NoParquet(Exception):
    """pyarrow is not installed."""


async def export_parquet(
    reader: ArchiveReader, folder: Path, progress: Callable[[str, int], None] | None = None
) -> list[Path]:
    """Write each table to `<folder>/<table>.parquet`; a file appears when it is whole. Returns the files.

    Columns that hold any JSON are its text. Integers are int64; a column that holds larger ones raises WrongValue.
    Raises NoParquet, OSError, and what the reader raises.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise NoParquet("install the extra: pip install 'metagov-gateway[parquet]'") from None
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    made = []
    for table in reader.tables():
        path = folder / f"{table.name}.parquet"
        scratch = path.with_name(f".{path.name}.part")
        kinds = columns(table_info(table))
        schema = _schema(kinds, reader, table)
        decoded = decoder(table_info(table))
        try:
            with parquet.ParquetWriter(scratch, schema, compression="zstd") as writer:
                waiting: list[dict[str, Any]] = []
                count = 0
                async for batch in reader.batches(table):
                    waiting += map(decoded, batch)
                    count += len(batch)
                    if len(waiting) >= _ROW_GROUP:
                        await asyncio.to_thread(writer.write_table, _arrow(waiting, kinds, schema, table.name))
                        waiting = []
                    if progress is not None:
                        progress(table.name, count)
                if waiting:
                    await asyncio.to_thread(writer.write_table, _arrow(waiting, kinds, schema, table.name))
            await asyncio.to_thread(os.replace, scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
        made.append(path)
    return made


def _schema(kinds: Mapping[str, Kind], reader: ArchiveReader, table: ArchivedTable) -> pyarrow.Schema:
    import pyarrow

    types = {
        "text": pyarrow.string(),
        "integer": pyarrow.int64(),
        "boolean": pyarrow.bool_(),
        "moment": pyarrow.timestamp("us", tz="UTC"),
        "json": pyarrow.string(),
    }
    about = {
        "metagov.provider": reader.provider,
        "metagov.community": reader.community,
        "metagov.snapshot": reader.snapshot,
        "metagov.table": table.name,
    }
    return pyarrow.schema([(name, types[kind]) for name, kind in kinds.items()], metadata=about)


def _arrow(
    rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, Kind], schema: pyarrow.Schema, table: str
) -> pyarrow.Table:
    import pyarrow

    filled = {}
    for name, kind in kinds.items():
        values = [row[name] for row in rows]
        if kind == "json":
            values = [None if value is None else json_text(value) for value in values]
        elif kind == "integer" and any(value is not None and not -_INT64 <= value < _INT64 for value in values):
            raise WrongValue(f"{table}.{name} holds an integer past 2^63, which Parquet has no type for")
        filled[name] = values
    return pyarrow.Table.from_pydict(filled, schema=schema)
