"""Rows without objects made of them: for readers that take hundreds of thousands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from metagov_sdk.archive.columns import Kind, kinds_of, required_of
from metagov_sdk.archive.errors import WrongValue
from metagov_sdk.archive.reader import DELETED, ArchiveReader
from metagov_sdk.archive.rows import Row, bind_row

PlainRow = Mapping[str, Any]
_NULL = type(None)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_TYPES: Mapping[Kind, frozenset[type]] = {
    "text": frozenset({str}),
    "moment": frozenset({str}),
    "boolean": frozenset({bool}),
    "integer": frozenset({int, str}),
    "json": frozenset({str, int, bool, list, dict, _NULL}),
}
"""What stands for a column's kind in an archive; integers past 2^53 are text there."""


async def plain_rows(
    archive: ArchiveReader,
    row: type[Row],
    *,
    partition: str | None = None,
    since: datetime | None = None,
    deleted: bool = False,
) -> AsyncIterator[Sequence[PlainRow]]:
    """What `archive.rows(row)` gives, many at a time, as mappings with the table's values as they are written.

    Times are text (`2026-01-31T09:00:00.000000Z`), null values are absent. Columns that the row declares have the type
    that it says, and those that it does not declare may be there, too. `since` leaves out whole months only.
    Raises UnknownTable and MissingFields before the first row, WrongValue, and CorruptArchive in its kinds.
    """
    table = archive.table(row.table)
    bind_row(row, table.json_schema)
    wanted = row.model_json_schema(by_alias=False)
    required = required_of(wanted)
    checks = [
        (name, _TYPES[kind] if name in required else _TYPES[kind] | {_NULL}) for name, kind in kinds_of(wanted).items()
    ]
    async for batch in archive.batches(table, partition=partition, since=since):
        rows = batch if deleted else [raw for raw in batch if DELETED not in raw]
        for name, types in checks:
            if not types.issuperset({type(raw.get(name)) for raw in rows}):
                raise WrongValue(f"{row.__name__}.{name}: a row of {table.name} has something else there")
        yield rows


def epoch_ms(moment: str) -> int:
    """A time as rows have it here, in whole milliseconds since 1970: as graphs have it."""
    return (datetime.fromisoformat(moment) - _EPOCH) // _MILLISECOND


class Beside:
    """Rows of one table beside those of another that they belong to: a message's reactions.

    Both are read in order, once. What is kept is what lies between the two readers, not the table.
    """

    def __init__(self, batches: AsyncIterator[Sequence[PlainRow]], key: Callable[[PlainRow], str]) -> None:
        """`key`: to which row of the other table a row belongs; `batches` come in its order."""
        self._batches = batches
        self._key = key
        self._waiting: dict[str, list[PlainRow]] = {}
        self._reached: str | None = ""
        """The last key that was read; None at the end of the table."""

    async def read_to(self, key: str) -> None:
        """Read until all rows that belong to this key, or to one before it, can be taken."""
        while self._reached is not None and self._reached <= key:
            batch = await anext(self._batches, None)
            if batch is None:
                self._reached = None
                return
            waiting = self._waiting
            for row in batch:
                reached = self._key(row)
                if (found := waiting.get(reached)) is None:
                    waiting[reached] = [row]
                else:
                    found.append(row)
            if batch:
                self._reached = self._key(batch[-1])

    def take(self, key: str) -> Sequence[PlainRow]:
        """The rows that belong to a key, in their order; then they are gone. Call `read_to` before."""
        return self._waiting.pop(key, ())
