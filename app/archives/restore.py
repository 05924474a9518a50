"""Filling a mirror from an archive alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from app.archives.read import table_info
from app.archives.source import LEFT_OUT, TableInfo, TableSink
from metagov_sdk.archive import ArchiveReader, WrongValue
from metagov_sdk.archive.canonical import decode
from metagov_sdk.archive.columns import Kind, kinds_of

_BATCH = 2000


async def restore(reader: ArchiveReader, sink: TableSink, progress: Callable[[str, int], None] | None = None) -> int:
    """Write every row of a snapshot to a sink, also those that were deleted on the platform. Returns how many.

    The sink is told to finish only when all of it was read and found genuine. Raises what the reader raises.
    """
    tables = [table_info(table) for table in reader.tables()]
    await sink.begin(tables)
    total = 0
    for table, info in zip(reader.tables(), tables, strict=True):
        decoded = decoder(info)
        count = 0
        async for batch in reader.batches(table):
            for start in range(0, len(batch), _BATCH):
                rows = [decoded(row) for row in batch[start : start + _BATCH]]
                await sink.write(info, rows)
                count += len(rows)
                if progress is not None:
                    progress(info.name, count)
        total += count
    await sink.finish()
    return total


def columns(table: TableInfo) -> dict[str, Kind]:
    """The columns of a table that an archive holds."""
    return {name: kind for name, kind in kinds_of(table.json_schema).items() if name not in LEFT_OUT}


def decoder(table: TableInfo) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Makes a function from a row as it is written to all its columns, as they were: what is not there is None."""
    kinds = columns(table)

    def decoded(row: Mapping[str, Any]) -> dict[str, Any]:
        return {name: _value(row.get(name), kind, name) for name, kind in kinds.items()}

    return decoded


def _value(value: Any, kind: Kind, name: str) -> Any:
    if value is None or kind in ("text", "boolean"):
        return value
    if kind != "moment":
        return decode(value, kind)
    try:
        return datetime.fromisoformat(value)
    except (ValueError, TypeError):
        raise WrongValue(f"{name}: {str(value)[:40]!r} is not a time") from None
