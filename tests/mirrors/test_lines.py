"""The lines that Postgres writes are those that Python would, whatever the rows hold."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import JsonValue

from app.archives.chunks import RowFormat, sort_key
from app.archives.source import Lines, Part, TableInfo
from app.core.db import plain_dsn
from app.mirrors import lines as lines_module
from app.mirrors.columns import Table
from app.mirrors.lines import LineQuery, canonical_document, copy_out, month_of
from metagov_sdk import Record
from metagov_sdk.archive import WrongValue
from metagov_sdk.archive.canonical import dump_any
from tests.support.databases import create_empty, drop_database


class Thing(Record):
    """A thing with a column of each kind, and more than one of some."""

    table = "thing"
    key = ("id", "number")
    partition = "place"
    time = "at"

    id: str
    number: int
    place: str | None
    at: datetime | None
    label: str | None
    size: int | None
    round: bool | None
    seen: datetime | None
    any: JsonValue
    tags: list[str] | None


class Count(Record):
    """A thing whose partition is a number, and that has no time."""

    table = "count"
    key = ("id",)
    partition = "place"

    id: int
    place: int | None
    any: JsonValue


THING, COUNT = Table("odd", Thing), Table("odd", Count)


@dataclass
class Laboratory:
    """A connection to a database that has the tables, and the loop it lives in."""

    runner: asyncio.Runner
    dsn: str
    connection: asyncpg.Connection[asyncpg.Record]

    def store(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """These rows, and no others."""
        self.runner.run(self._store(table, rows))

    async def _store(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        await self.connection.execute(f"DELETE FROM {table.sql}")
        json_columns = {column.name for column in table.columns if column.kind == "json"} | {"extra", "mirror_flags"}
        names = [*(column.name for column in table.columns), "extra", "mirror_flags", "deleted_at"]
        now = datetime.now(UTC)
        records = [
            (
                *("ins", "com", 0, now, now),
                *(
                    json.dumps(row[name], ensure_ascii=False) if name in json_columns and name in row else row.get(name)
                    for name in names
                ),
            )
            for row in rows
        ]
        await self.connection.copy_records_to_table(
            table.record.table,
            schema_name="mirror_odd",
            columns=["instance_id", "community_id", "mirror_pass", "first_seen", "synced_at", *names],
            records=records,
        )

    def mappings(self, table: Table) -> list[dict[str, Any]]:
        """The rows as drivers of Postgres give them."""
        json_columns = {column.name for column in table.columns if column.kind == "json"} | {"extra", "mirror_flags"}
        names = [*(column.name for column in table.columns), "extra", "mirror_flags", "deleted_at"]
        rows = self.runner.run(self.connection.fetch(f"SELECT * FROM {table.sql}"))

        def value(name: str, stored: Any) -> Any:
            if name in json_columns and stored is not None:
                return json.loads(stored)
            # The driver stores the first and the last of Python's times as the infinite ones, and reads those so.
            return stored.replace(tzinfo=UTC) if isinstance(stored, datetime) else stored

        return [{name: value(name, row[name]) for name in names} for row in rows]

    def lines(self, table: Table, without: Collection[Part] = ()) -> list[Lines]:
        """What Postgres writes."""
        return self.runner.run(self._lines(table, without))

    async def _lines(self, table: Table, without: Collection[Part]) -> list[Lines]:
        query = LineQuery(table)
        asked: tuple[Any, ...] = (query.all_rows, "ins")
        if without:
            partitions = [part.partition or "" for part in without]
            asked = (query.rows_without, "ins", partitions, [month_of(part) for part in without])
        async with contextlib.aclosing(copy_out(self.connection, *asked)) as copied:
            return [run async for data in copied for run in query.read(data)]


@pytest.fixture(scope="module")
def tables(worker_name: str) -> Iterator[Laboratory]:
    name = f"{worker_name}_lines"
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        dsn = plain_dsn(runner.run(create_empty(name)))
        connection = runner.run(asyncpg.connect(dsn))
        for statement in ("CREATE SCHEMA mirror_odd", *THING.create(), *COUNT.create()):
            runner.run(connection.execute(statement))
        made = Laboratory(runner, dsn, connection)
        yield made
        runner.run(made.connection.close())
        runner.run(drop_database(name))


@pytest.fixture
def laboratory(tables: Laboratory) -> Laboratory:
    """With a connection, whatever became of the last."""
    if tables.connection.is_closed():
        tables.connection = tables.runner.run(asyncpg.connect(tables.dsn))
    return tables


def info(table: Table) -> TableInfo:
    record = table.record
    return TableInfo(table.name, record.json_schema(), record.key, record.partition, record.time)


def written(table: Table, rows: Sequence[Mapping[str, Any]]) -> list[tuple[Part, Any, bytes]]:
    """What Python writes of rows, in order."""
    rows_of = RowFormat(info(table))
    runs = rows_of.write(sorted(rows, key=sort_key(rows_of)))
    return [(run.part, key, line) for run in runs for key, line in zip(run.keys, run.lines, strict=True)]


def flat(runs: Sequence[Lines]) -> list[tuple[Part, Any, bytes]]:
    return [(run.part, key, line) for run in runs for key, line in zip(run.keys, run.lines, strict=True)]


# Everything that Postgres takes: no NUL, no half of a surrogate pair.
characters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
hostile = st.sampled_from(
    [
        "\t",
        "\n",
        "\r",
        "\b",
        "\f",
        "\v",
        "\\",
        '"',
        "\\N",
        "\\.",
        "\\t",
        "\x01",
        "\x1f",
        "\x7f",
        "\x80",
        "\u2028",
        "🌳",
        "ﬁ",
    ]
)
texts = st.text(characters, max_size=8) | st.lists(hostile, max_size=6).map("".join)
keys = texts.map(lambda text: text or "k")
bigints = st.integers(-(2**63), 2**63 - 1) | st.sampled_from(
    [sign * (2**53 + step) for sign in (1, -1) for step in (-1, 0, 1)]
)
moments = st.datetimes(
    datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999), timezones=st.just(UTC)
) | st.sampled_from([datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)])
numbers = (
    st.integers(-(10**25), 10**25)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([2**53, 2**53 - 1, -(2**64), 0.5, -0.0, 1e16])
)
documents = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(texts | st.sampled_from(["$number", "$object", "b", "aa"]), inner, max_size=4)
    ),
    max_leaves=8,
)
things = st.lists(
    st.fixed_dictionaries(
        {"id": keys, "number": bigints, "extra": st.dictionaries(texts, documents, max_size=3)},
        optional={
            # Few, so that parts have several rows.
            "place": st.sampled_from(["", "a", "\t\\", "🌳", "ﬁ"]),
            "at": moments | st.just(datetime(2026, 1, 31, 23, 59, tzinfo=UTC)),
            "label": texts,
            "size": bigints,
            "round": st.booleans(),
            "seen": moments,
            "any": documents,
            "tags": st.lists(texts, max_size=3),
            "mirror_flags": st.lists(texts, max_size=2),
            "deleted_at": moments,
        },
    ),
    max_size=12,
    unique_by=lambda row: (row["id"], row["number"]),
)
_AT = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)


@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=things, chosen=st.randoms(use_true_random=False))
@example(rows=[{"id": "1", "number": 1, "extra": {}, "any": None}], chosen=None)
@example(rows=[{"id": "\\N", "number": -(2**63), "extra": {"": '\\"'}, "label": "\\", "tags": []}], chosen=None)
# Rows without a place come first, though to Postgres null and the empty text are two places.
@example(
    rows=[
        {"id": "b", "number": 1, "extra": {}, "at": _AT},
        {"id": "a", "number": 1, "extra": {}, "place": "", "at": _AT},
    ],
    chosen=None,
)
def test_postgres_writes_what_python_would(laboratory: Laboratory, rows: list[dict[str, Any]], chosen: Any) -> None:
    laboratory.store(THING, rows)
    wanted = written(THING, laboratory.mappings(THING))
    assert flat(laboratory.lines(THING)) == wanted
    parts = {part for part, _, _ in wanted}
    left_out = {part for part in parts if chosen is not None and chosen.random() < 0.5}
    rest = [row for row in wanted if row[0] not in left_out]
    assert flat(laboratory.lines(THING, left_out)) == rest


@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.fixed_dictionaries(
            {"id": bigints, "place": st.none() | st.integers(-12, 12), "any": documents, "extra": st.just({})}
        ),
        max_size=12,
        unique_by=lambda row: str(row["id"]),
    )
)
def test_partitions_that_are_numbers_sort_as_text(laboratory: Laboratory, rows: list[dict[str, Any]]) -> None:
    laboratory.store(COUNT, rows)
    wanted = written(COUNT, laboratory.mappings(COUNT))
    assert flat(laboratory.lines(COUNT)) == wanted
    parts = {part for part, _, _ in wanted}
    for part in parts:
        assert flat(laboratory.lines(COUNT, [part])) == [row for row in wanted if row[0] != part]


def test_many_rows_come_in_several_pieces(laboratory: Laboratory) -> None:
    laboratory.store(
        THING,
        [
            {"id": f"{number:05}", "number": number, "extra": {"n": number}, "label": "x" * 200}
            for number in range(9000)
        ],
    )
    runs = laboratory.lines(THING)
    assert len(runs) > 1
    assert flat(runs) == written(THING, laboratory.mappings(THING))


def test_more_columns_than_a_function_takes_arguments(laboratory: Laboratory) -> None:
    names = [f"c{number:03}" for number in range(150)]
    namespace = {
        "__annotations__": {"id": str} | dict.fromkeys(names, int | None),
        "__doc__": "Wide.",
        "__module__": __name__,
        "table": "wide",
        "key": ("id",),
    }
    table = Table("odd", type("Wide", (Record,), namespace))
    for statement in table.create():
        laboratory.runner.run(laboratory.connection.execute(statement))
    laboratory.store(table, [{"id": "1", "extra": {}} | dict.fromkeys(names[60:], 7)])
    assert flat(laboratory.lines(table)) == written(table, laboratory.mappings(table))


def test_what_is_remembered_of_json_columns_is_bounded(laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "_MOST_KEPT", 3)
    laboratory.store(THING, [{"id": str(number), "number": 0, "extra": {"n": number % 7}} for number in range(50)])
    assert flat(laboratory.lines(THING)) == written(THING, laboratory.mappings(THING))


def test_json_that_no_archive_holds_is_refused_by_name(laboratory: Laboratory) -> None:
    deep: Any = []
    for _ in range(120):
        deep = [deep]
    laboratory.store(THING, [{"id": "1", "number": 0, "extra": {}, "any": deep}])
    with pytest.raises(WrongValue, match=r"odd\.thing: any: nested"):
        laboratory.lines(THING)


@given(documents)
@example([1.5])
@example({"a": [123456789012345678]})
@example([1, -12345678901234567890123])
@example("in a text: 1.5")
def test_documents_are_canonical(value: Any) -> None:
    assert canonical_document(json.dumps(value, ensure_ascii=False).encode()) == dump_any(value)


def test_half_a_copy_ends_the_connection(laboratory: Laboratory) -> None:
    async def half() -> None:
        query = "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)"
        async with asyncio.timeout(60), contextlib.aclosing(copy_out(laboratory.connection, query)) as copied:
            assert (await anext(copied)).startswith(b"xxx")
        assert laboratory.connection.is_closed()

    laboratory.runner.run(half())


def test_what_goes_wrong_in_postgres_is_raised(laboratory: Laboratory) -> None:
    async def fail() -> list[bytes]:
        query = "SELECT 1 / (3000 - n) FROM generate_series(1, $1) AS n"
        async with asyncio.timeout(60), contextlib.aclosing(copy_out(laboratory.connection, query, 5000)) as copied:
            return [data async for data in copied]

    with pytest.raises(asyncpg.DivisionByZeroError):
        laboratory.runner.run(fail())
    assert laboratory.runner.run(laboratory.connection.fetchval("SELECT 1")) == 1
