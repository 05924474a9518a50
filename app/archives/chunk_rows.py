"""From a stored chunk to its rows, checked on the way. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import orjson

from app.archives.chunks import RowFormat
from app.archives.format import ChunkEntry, read_chunk
from app.archives.source import Part
from metagov_sdk.archive import NotCanonical, OutOfOrder, WrongValue
from metagov_sdk.archive.canonical import Key

_SLICE = 1000
"""Rows that are parsed together: few enough to be gone again before the garbage collector looks at them."""


def read_rows(
    stored: bytes, chunk: ChunkEntry, rows: RowFormat, *, strict: bool = False
) -> Iterator[Sequence[Mapping[str, Any]]]:
    """A chunk's rows, some at a time, if all of it is what the manifest says.

    strict: also compare each line with the one way to write it. Raises Truncated, TooLarge, BadDigest, NotCanonical,
    OutOfOrder; what is wrong with the bytes as a whole before the first row.
    """
    what = f"the blob {chunk.sha256}"
    data = read_chunk(stored, chunk)
    if not data.endswith(b"\n"):
        raise NotCanonical(f"{what} does not end with a line")
    # No JSON text has a line end in it, unless between its parts, where canonical JSON has nothing.
    lines = data[:-1].split(b"\n")
    if len(lines) != chunk.rows:
        raise NotCanonical(f"{what} has {len(lines)} rows and should have {chunk.rows}")
    part = Part(chunk.partition, chunk.period)
    last: Key | None = None
    try:
        first, final = rows.read_key(chunk.first_key), rows.read_key(chunk.last_key)
        for start in range(0, len(lines), _SLICE):
            found = _parse_lines(lines[start : start + _SLICE], rows, strict=strict)
            keys = rows.keys(found, part)
            if keys[0] != first if last is None else not last < keys[0]:
                raise OutOfOrder(f"the row {keys[0]} does not come where it should")
            last = keys[-1]
            if start + _SLICE >= len(lines) and last != final:
                raise OutOfOrder(f"it ends with the row {last} and should with {final}")
            yield found
    except (OutOfOrder, NotCanonical) as error:
        raise type(error)(f"{what}: {error}") from None
    except (WrongValue, TypeError) as error:
        raise NotCanonical(f"{what}: {error}") from None


def _parse_lines(lines: Sequence[bytes], rows: RowFormat, *, strict: bool) -> Sequence[Mapping[str, Any]]:
    array = b"[" + b",".join(lines) + b"]"
    found: Sequence[Mapping[str, Any]] = parse(array, "a line")
    if len(found) != len(lines) or not all(type(row) is dict for row in found):
        raise NotCanonical("it has a line that is no object")
    if strict and not rows.all_canonical(array, found):
        raise NotCanonical("it has a line that is not written in the one way there is")
    return found


def count_rows(stored: bytes, chunk: ChunkEntry, rows: RowFormat) -> int:
    """Read a chunk for the sake of its errors."""
    return sum(len(some) for some in read_rows(stored, chunk, rows, strict=True))


def all_rows(stored: bytes, chunk: ChunkEntry, rows: RowFormat) -> Sequence[Mapping[str, Any]]:
    """A chunk's rows."""
    return list(chain.from_iterable(read_rows(stored, chunk, rows)))


def some_rows(stored: bytes, chunk: ChunkEntry, rows: RowFormat, *, wanted: slice) -> Sequence[Mapping[str, Any]]:
    """The chunk's rows from `wanted.start` to before `wanted.stop`; what follows is not looked at."""
    return list(islice(chain.from_iterable(read_rows(stored, chunk, rows)), wanted.start, wanted.stop))


def parse(data: bytes, what: str) -> Any:
    """JSON's value. Raises NotCanonical."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise NotCanonical(f"{what} is not JSON: {error}") from None
