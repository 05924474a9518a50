"""Cutting a table's rows into chunks. Pure: the same rows give the same chunks, wherever and in whatever batches.

A chunk is one partition's rows of one calendar month. Where those are too many bytes they are halved, and the halves
again, like a Merkle tree: at the largest power of two below their number. So rows that are added at the end leave the
chunks before them as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from app.archives.format import LARGEST_BLOB
from app.archives.source import LEFT_OUT, Batch, Lines, Part, TableInfo
from metagov_sdk.archive import OutOfOrder, WrongValue
from metagov_sdk.archive.canonical import Key, decode, dump, dump_all, encoder, is_large, is_tagged, utf16
from metagov_sdk.archive.columns import Kind, kinds_of

LARGEST_CHUNK = 8 * 2**20
"""The bytes of lines from which on a chunk is halved, unless it is one row."""
_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}")
_TYPES: Mapping[Kind, type] = {"text": str, "moment": str, "boolean": bool, "integer": int, "json": object}
Order = tuple[str, str, Key]
"""Where a row stands; null sorts as the empty text, which no partition and no month is."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Lines that are stored together."""

    part: Part
    data: bytes
    rows: int
    first_key: Key
    last_key: Key


class RowFormat:
    """How one table's rows are written and ordered."""

    def __init__(self, table: TableInfo) -> None:
        """Raises WrongValue when the table's key, partition or time is no column that can be that."""
        self.name = table.name
        self.kinds: dict[str, Kind] = {
            name: kind for name, kind in kinds_of(table.json_schema).items() if name not in LEFT_OUT
        }
        named = [*table.key, *(name for name in (table.partition, table.time) if name is not None)]
        for name in named:
            if self.kinds.get(name) not in ("text", "integer", "moment"):
                raise WrongValue(f"{table.name}: {name!r} is no column of text, integers or times")
        if not table.key:
            raise WrongValue(f"{table.name} has no key")
        self._key = table.key
        self._partition = table.partition
        self._time = table.time
        self._integers = frozenset(name for name, kind in self.kinds.items() if kind == "integer")
        self._known = self.kinds.keys() | LEFT_OUT
        self._encode = encoder(self.kinds)
        self._months: dict[str, str] = {}
        self._types = {name: _TYPES[kind] for name, kind in self.kinds.items()}
        self._plain_names = sorted(self.kinds) == sorted(self.kinds, key=utf16)
        self._plain_key = table.key[0] if len(table.key) == 1 and table.key[0] not in self._integers else None

    def encode(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What is written of a row of the source. Raises WrongValue, naming table and column."""
        if not self._known >= row.keys():
            raise WrongValue(f"{self.name} has columns that its schema lacks: {sorted(row.keys() - self._known)}")
        try:
            return self._encode(row)
        except WrongValue as error:
            raise WrongValue(f"{self.name}: {error}") from None

    def all_canonical(self, array: bytes, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether `array`, which parses to `rows`, is the one way to write them."""
        try:
            if dump_all(rows) == array and all(map(self._is_plain, rows)):
                return True
        except WrongValue:
            pass
        return b"[" + b",".join(map(self._rewrite, rows)) + b"]" == array

    def _is_plain(self, written: Mapping[str, Any]) -> bool:
        """Whether all values are of a type that is written as it is."""
        types = self._types
        for name, value in written.items():
            wanted = types.get(name)
            if type(value) is not wanted and not (
                (wanted is object and is_tagged(value)) or (wanted is int and is_large(value))
            ):
                return False
        return self._plain_names

    def _rewrite(self, written: Mapping[str, Any]) -> bytes:
        """The row, read and written again; nothing, when it cannot be."""
        try:
            row = {name: decode(value, self.kinds[name]) for name, value in written.items()}
            return dump(self._encode(row))
        except (WrongValue, KeyError):
            return b""

    def keys(self, rows: Sequence[Mapping[str, Any]], part: Part) -> Sequence[Any]:
        """The keys of rows that were read, in order. Raises OutOfOrder, WrongValue."""
        partition, month = part.partition or "", part.period or ""
        if self._partition is not None and {self._part_text(row) for row in rows} != {partition}:
            raise OutOfOrder("it has a row of another partition")
        if {self._month(row) for row in rows} != {month}:
            raise OutOfOrder("it has a row of another month")
        name = self._plain_key
        try:
            keys = [self.key(row) for row in rows] if name is None else [(row[name],) for row in rows]
            for earlier, later in pairwise(keys):
                if not earlier < later:
                    raise OutOfOrder(f"the row {later} does not come after {earlier}")
        except (KeyError, TypeError):
            raise WrongValue(f"a row's key ({', '.join(self._key)}) is null or malformed") from None
        return keys

    def order(self, written: Mapping[str, Any]) -> Order:
        """Where a written row stands. Raises WrongValue when a part of its key is null."""
        return self._part_text(written), self._month(written), self.key(written)

    def write(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Lines]:
        """The lines of rows of the source. Raises WrongValue."""
        placed = ((self.order(written), written) for written in map(self.encode, rows))
        for (partition, period), run in groupby(placed, lambda each: each[0][:2]):
            found = list(run)
            part = Part(partition or None, period or None)
            yield Lines(part, [place[2] for place, _ in found], [dump(written) for _, written in found])

    def key(self, written: Mapping[str, Any]) -> Key:
        """The row's key, to be compared."""
        try:
            if self._plain_key is not None:
                return (written[self._plain_key],)
            return tuple(int(written[name]) if name in self._integers else written[name] for name in self._key)
        except (KeyError, ValueError):
            raise WrongValue(f"{self.name}: a row's key ({', '.join(self._key)}) is null or malformed") from None

    def read_key(self, values: Sequence[str | int]) -> Key:
        """A key as manifests have it, to be compared. Raises WrongValue."""
        try:
            return self.key(dict(zip(self._key, values, strict=True)))
        except ValueError:
            raise WrongValue(f"{self.name}: {len(values)} values for a key of {len(self._key)}") from None

    def _part_text(self, written: Mapping[str, Any]) -> str:
        value = None if self._partition is None else written.get(self._partition)
        return "" if value is None else str(value)

    def _month(self, written: Mapping[str, Any]) -> str:
        if self._time is None:
            return ""
        value = written.get(self._time)
        month = value[:7] if type(value) is str else ""
        if month not in self._months:
            # What a platform sends as a time need not be one; such rows have a part without a month.
            self._months[month] = month if _MONTH.fullmatch(month) else ""
        return self._months[month]


def written_key(key: Key) -> tuple[str | int, ...]:
    """A key as manifests have it: integers past 2^53 as text."""
    return tuple(str(part) if isinstance(part, int) and abs(part) >= 2**53 else part for part in key)


class Chunker:
    """Takes a table's rows in order and gives chunks."""

    def __init__(self, rows: RowFormat) -> None:
        self._rows = rows
        self._last: Order | None = None
        self._lines: list[bytes] = []
        self._keys: list[Key] = []
        self._bytes = 0
        self._given = 0
        """Rows of this part that are in chunks already."""

    def take(self, batch: Batch) -> Iterator[Chunk]:
        """Take rows; yields the chunks that are complete. Raises OutOfOrder and WrongValue."""
        for run in [batch] if isinstance(batch, Lines) else self._rows.write(batch):
            yield from self._take(run)

    def _take(self, run: Lines) -> Iterator[Chunk]:
        part = (run.part.partition or "", run.part.period or "")
        last = self._last
        if last is not None and last[:2] != part:
            if part < last[:2]:
                raise OutOfOrder(self._disorder(last, (*part, run.keys[0])))
            yield from self.finish()
            last = None
        before = None if last is None else last[2]
        for key, line in zip(run.keys, run.lines, strict=True):
            if before is not None and key <= before:
                raise OutOfOrder(self._disorder((*part, before), (*part, key)))
            if len(line) >= LARGEST_BLOB:
                raise WrongValue(f"{self._rows.name}: the row {key} has {len(line)} bytes, too many for an archive")
            before = key
            self._last = (*part, key)
            self._lines.append(line)
            self._keys.append(key)
            self._bytes += len(line) + 1
            if self._bytes > LARGEST_CHUNK or len(self._lines) == self._alignment():
                yield from self._cut()

    def finish(self) -> Iterator[Chunk]:
        """Yields what is left of the part."""
        if self._lines:
            yield self._chunk(len(self._lines))
        self._given = 0

    def _alignment(self) -> int:
        """How many rows a node of the tree that starts here can have; 0 for any number."""
        return self._given & -self._given

    def _cut(self) -> Iterator[Chunk]:
        while (self._bytes > LARGEST_CHUNK) or (self._lines and len(self._lines) == self._alignment()):
            count = len(self._lines)
            if self._bytes > LARGEST_CHUNK and count > 1:
                count = 1 << ((count - 1).bit_length() - 1)
            yield self._chunk(count)

    def _chunk(self, count: int) -> Chunk:
        lines, self._lines = self._lines[:count], self._lines[count:]
        keys, self._keys = self._keys[:count], self._keys[count:]
        data = b"\n".join(lines) + b"\n"
        self._bytes -= len(data)
        self._given += count
        assert self._last is not None  # noqa: S101 -- there are lines, so one was the last
        partition, period, _ = self._last
        return Chunk(Part(partition or None, period or None), data, count, keys[0], keys[-1])

    def _disorder(self, last: Order, place: Order) -> str:
        return f"{self._rows.name}: the row {place} does not come after {last}"


def sort_key(rows: RowFormat) -> Any:
    """For `sorted`: the order that an archive asks of a source's rows."""
    return lambda row: rows.order(rows.encode(row))
