"""Rows as archives have them, written by Postgres: scalars in SQL, columns that hold any JSON made canonical here.

Made in Python, a row costs five times what all the rest of a snapshot does.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from itertools import groupby
from typing import Any

import asyncpg
import orjson

from app.mirrors.columns import Table, quoted
from app.mirrors.parts import Lines, Part
from metagov_sdk.archive import WrongValue
from metagov_sdk.archive.canonical import LARGEST, Key, dump_any
from metagov_sdk.provider.values import Kind

_BUFFERS = 2
"""What Postgres has sent that waits to be read; each is as large as the socket gives it, at most a few hundred KB."""
_LONGEST = 24 * 3600.0
"""Seconds for reading a table: it takes as long as the archive does with what is read."""
_MOST_ARGUMENTS = 50
"""Columns of one `concat_ws`; Postgres allows a function a hundred arguments."""
_MOST_KEPT, _LARGEST_KEPT = 4096, 1024
"""How many JSON values of a column are remembered, and of how many bytes at most: 8 MB with what is made of them."""
_TIME = '\'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\''
_FIRST, _LAST = "TIMESTAMPTZ '0001-01-01 00:00:00+00'", "TIMESTAMPTZ '9999-12-31 23:59:59.999999+00'"
"""Python's earliest and latest times, which its driver stores as the infinite ones."""
_NO_MONTH = "TIMESTAMP '-infinity'"
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_UNSAFE_NUMBER = re.compile(rb"(?:^|[ \[])-?[0-9]+(?:[.eE]|[0-9]{15})")
"""A fraction, or an integer that may be past 2^53, as jsonb's text has them; it may also match inside of a string."""
_SHALLOW = 50


class LineQuery:
    """How one table's rows are asked for, and what comes back is read."""

    def __init__(self, table: Table) -> None:
        record = table.record
        self.table = table
        self.partition = 'CAST(NULL AS text) COLLATE "C"'
        """SQL: the part's partition. The empty text is none: an archive cannot tell them apart."""
        self.month = "CAST(NULL AS timestamp)"
        """SQL: the first moment of the part's month."""
        if record.partition is not None:
            self.partition = f"nullif(CAST(t.{quoted(record.partition)} AS text), '') COLLATE \"C\""
        if record.time is not None:
            self.month = f"date_trunc('month', {_moment(record.time)})"
        kinds: dict[str, Kind] = {column.name: column.kind for column in table.columns}
        self._keys: list[Callable[[bytes], str | int]] = [_READ[kinds[name]] for name in record.key]
        kinds |= {"extra": "json", "mirror_flags": "json", "deleted_at": "time"}
        values = [self.partition, self.month, *(f"t.{quoted(name)}" for name in record.key)]
        self._members: list[tuple[int, _Members]] = []
        """Where among the fields a JSON column stands, and what is made of it."""
        # Names are lower-case ASCII, so this is the order of UTF-16 code units, too.
        for is_json, names in groupby(sorted(kinds), lambda name: kinds[name] == "json"):
            if is_json:
                for name in names:
                    self._members.append((len(values), _Members(table.name, name)))
                    values.append(f"t.{quoted(name)}")
            else:
                written = [_member(name, kinds[name]) for name in names]
                for start in range(0, len(written), _MOST_ARGUMENTS):
                    values.append(f"concat_ws(',', {', '.join(written[start : start + _MOST_ARGUMENTS])})")
        order = [f"{self.partition} NULLS FIRST", f"{self.month} NULLS FIRST"]
        order += [f"t.{quoted(name)}" for name in record.key]
        self._select = f"SELECT {', '.join(values)} FROM {table.sql} t WHERE t.instance_id = $1"  # noqa: S608 -- names checked when the plugin was loaded
        self._order = f" ORDER BY {', '.join(order)}"

    @property
    def all_rows(self) -> str:
        """The statement. $1: the instance."""
        return self._select + self._order

    @property
    def rows_without(self) -> str:
        """The statement for all but the rows of some parts. $2, $3: their partitions, and months as `month_of` says."""
        return (
            f"{self._select} AND NOT EXISTS ("
            "SELECT FROM unnest(CAST($2 AS text[]), CAST(CAST($3 AS text[]) AS timestamp[])) AS w(part, month) "
            # Equality, and not IS NOT DISTINCT FROM, can be hashed.
            f"WHERE w.part = coalesce({self.partition}, '') AND w.month = coalesce({self.month}, {_NO_MONTH}))"
            f"{self._order}"
        )

    def read(self, data: bytes) -> Iterator[Lines]:
        """Whole rows in COPY's text format, null as the empty text. Raises WrongValue."""
        rows = data.split(b"\n")
        rows.pop()
        partition = month = b""
        keys: list[Key] = []
        lines: list[bytes] = []
        first, last = 2, 2 + len(self._keys)
        read_key = self._keys[0] if len(self._keys) == 1 else None
        for row in rows:
            fields = row.split(b"\t")
            if fields[0] != partition or fields[1] != month:
                if lines:
                    yield Lines(_part(partition, month), keys, lines)
                    keys, lines = [], []
                partition, month = fields[0], fields[1]
            if b"\\" in row:
                fields[first:last] = map(_unescaped, fields[first:last])
                # There are no control characters in JSON, so all that was escaped is the backslash.
                fields[last:] = [field.replace(b"\\\\", b"\\") for field in fields[last:]]
            if read_key is not None:
                keys.append((read_key(fields[first]),))
            else:
                keys.append(tuple(read(field) for read, field in zip(self._keys, fields[first:last], strict=True)))
            for place, members in self._members:
                fields[place] = members[fields[place]]
            lines.append(b"{" + b",".join(filter(None, fields[last:])) + b"}")
        if lines:
            yield Lines(_part(partition, month), keys, lines)


class _Members(dict[bytes, bytes]):
    """By the text that Postgres gives of a JSON column, the member that a line has of it; nothing, where it is null.

    Most rows share a few values, `{}` before all, so they are remembered.
    """

    def __init__(self, table: str, name: str) -> None:
        super().__init__({b"": b""})
        self._table = table
        self._name = name

    def __missing__(self, document: bytes) -> bytes:
        try:
            written = canonical_document(document)
        except WrongValue as error:
            raise WrongValue(f"{self._table}: {self._name}: {error}") from None
        member = b"" if written == b"null" else b'"%b":%b' % (self._name.encode(), written)
        if len(document) <= _LARGEST_KEPT:
            if len(self) >= _MOST_KEPT:
                self.clear()
            self[document] = member
        return member


def canonical_document(document: bytes) -> bytes:
    """A JSON value as jsonb's text has it, as archives have it. Raises WrongValue."""
    # Where neither numbers nor names can need what only our own code does, the parser's own order is the right one.
    if (
        document.isascii()
        and b'"$' not in document
        and document.count(b"{") + document.count(b"[") < _SHALLOW
        and _UNSAFE_NUMBER.search(document) is None
    ):
        return orjson.dumps(orjson.loads(document), option=orjson.OPT_SORT_KEYS)
    return dump_any(json.loads(document))


def month_of(part: Part) -> str:
    """A part's month as a text that Postgres takes for a timestamp."""
    return "-infinity" if part.period is None else f"{part.period}-01"


async def copy_out(
    connection: asyncpg.Connection[asyncpg.Record], query: str, *arguments: Any
) -> AsyncGenerator[bytes, None]:
    """What a query gives in COPY's text format, some whole rows at a time; more are read meanwhile, and not many.

    To be closed: while it is open, nothing else can be asked of the connection. Closed before its end, it ends the
    connection.
    """
    waiting: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(_BUFFERS)

    async def copy() -> None:
        try:
            await connection.copy_from_query(
                query, *arguments, output=waiting.put, format="text", null="", timeout=_LONGEST
            )
        except Exception as error:  # Whoever reads gets it, whatever it is.
            await waiting.put(error)
        else:
            await waiting.put(None)

    copying = asyncio.create_task(copy())
    rest = b""
    try:
        while (found := await waiting.get()) is not None:
            if isinstance(found, Exception):
                raise found
            # That a message is a row is how Postgres does it, and not what it promises.
            whole, newline, rest = (rest + found).rpartition(b"\n")
            yield whole + newline
    finally:
        if not copying.done():
            # asyncpg 0.32 takes the next rows of a COPY that is cut off for its end: what is asked next fails.
            connection.terminate()
            copying.cancel()
        await asyncio.gather(copying, return_exceptions=True)


def _member(name: str, kind: Kind) -> str:
    """SQL: a column's member of a line, with its name; null where it is null."""
    column = f"t.{quoted(name)}"
    written = {
        "text": f"CAST(to_json({column}) AS text)",
        "integer": f"CASE WHEN {column} BETWEEN {-LARGEST} AND {LARGEST} THEN CAST({column} AS text) "
        f"ELSE '\"' || {column} || '\"' END",
        "boolean": f"CAST({column} AS text)",
        "time": f"to_char({_moment(name)}, {_TIME})",
    }[kind]
    quote = '"' if kind == "time" else ""
    return f"'\"{name}\":{quote}' || {written}" + (f" || '{quote}'" if quote else "")


def _moment(name: str) -> str:
    """SQL: a column's time in UTC."""
    column = f"t.{quoted(name)}"
    return (
        f"(CASE WHEN {column} < {_FIRST} THEN {_FIRST} WHEN {column} > {_LAST} THEN {_LAST} ELSE {column} END "
        "AT TIME ZONE 'UTC')"
    )


def _part(partition: bytes, month: bytes) -> Part:
    """As the fields have them: the month as `2026-01-01 00:00:00`."""
    return Part(_unescaped(partition).decode() or None, month[:7].decode() or None)


def _unescaped(field: bytes) -> bytes:
    """A field of COPY's text format."""
    return _ESCAPED.sub(lambda found: _ESCAPES.get(found[1], found[1]), field)


_READ: dict[Kind, Callable[[bytes], str | int]] = {"text": bytes.decode, "integer": int}
"""What makes a part of a key of its field."""
