"""Cutting rows into chunks: by partition and month, halved while too large, the same whatever the batches."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.archives import chunks
from app.archives.chunks import Chunk, Chunker, RowFormat, sort_key
from app.archives.source import Part
from metagov_sdk.archive import OutOfOrder, WrongValue
from metagov_sdk.archive.canonical import dump
from tests.archives.memory import LIKES, MESSAGES, like, message

FORMAT = RowFormat(MESSAGES)


def cut(rows: Iterable[Mapping[str, Any]], table: RowFormat = FORMAT, batch: int = 100) -> list[Chunk]:
    """The chunks of rows that are brought into order first."""
    ordered = sorted(rows, key=sort_key(table))
    chunker = Chunker(table)
    found: list[Chunk] = []
    for start in range(0, len(ordered), batch):
        found += chunker.take(ordered[start : start + batch])
    return [*found, *chunker.finish()]


def one_month(sizes: Iterable[int]) -> list[dict[str, Any]]:
    """Messages of one channel and month, with contents of these sizes."""
    at = datetime(2026, 1, 5, tzinfo=UTC)
    return [
        message(number, channel_id="1", created_at=at, deleted_at=None, extra={}, content="x" * size)
        for number, size in enumerate(sizes)
    ]


def test_a_chunk_is_a_channels_month() -> None:
    found = cut([message(number) for number in range(3000)])
    parts = [chunk.part for chunk in found]
    assert parts == sorted(set(parts), key=lambda part: (part.partition or "", part.period or ""))
    assert {part.partition for part in parts} == {"500", "501", "502"}
    assert {part.period for part in parts} == {"2025-11", "2025-12"}
    assert sum(chunk.rows for chunk in found) == 3000
    for chunk in found:
        lines = chunk.data.splitlines()
        assert len(lines) == chunk.rows
        assert all(f'"created_at":"{chunk.part.period}'.encode() in line for line in lines)


def test_months_are_utcs() -> None:
    late = datetime.fromisoformat("2026-01-01T00:30:00+01:00")
    (chunk,) = cut([message(1, created_at=late)])
    assert chunk.part.period == "2025-12"


def test_a_table_without_time_or_parent_is_one_part() -> None:
    (chunk,) = cut([like(number) for number in range(90)], RowFormat(LIKES))
    assert chunk.part == Part(None, None)
    assert chunk.first_key == (0, "a", 2**55 + 2)
    assert chunk.last_key == (29, "👍", 2**55 + 87)


def test_times_that_are_none_have_a_part_of_their_own() -> None:
    odd = [message(1, created_at="soon"), message(2, created_at=None), message(3)]
    assert {chunk.part.period for chunk in cut([{**row, "channel_id": "1"} for row in odd])} == {None, "2025-11"}


sizes = st.lists(st.integers(0, 400), min_size=1, max_size=200)


@given(sizes, st.integers(1, 50), st.integers(0, 30))
def test_halving(sizes: list[int], batch: int, added: int) -> None:
    limit, chunks.LARGEST_CHUNK = chunks.LARGEST_CHUNK, 3000
    try:
        rows = one_month(sizes)
        found = cut(rows)
        assert [chunk.data for chunk in cut(rows, batch=batch)] == [chunk.data for chunk in found]
        assert b"".join(chunk.data for chunk in found) == b"".join(
            line + b"\n" for line in map(dump, map(FORMAT.encode, rows))
        )
        for chunk in found:
            assert len(chunk.data) <= 3000 or chunk.rows == 1
        assert [chunk.rows for chunk in found] == tree([len(chunk_line) for chunk_line in lines(found)], 3000)
        # What is added at the end leaves all but the last node of the tree as it was.
        more = cut([*rows, *one_month([*sizes, *[100] * added])[len(rows) :]])
        same = [chunk.data for chunk in found[:-1] if chunk.rows & (chunk.rows - 1) == 0]
        assert [data for data in same if data not in {chunk.data for chunk in more}] == []
    finally:
        chunks.LARGEST_CHUNK = limit


def lines(found: list[Chunk]) -> list[bytes]:
    return [line for chunk in found for line in chunk.data.splitlines(keepends=True)]


def tree(sizes: list[int], limit: int) -> list[int]:
    """The rule as it is told: too large, so cut at the largest power of two below the number of rows."""
    if sum(sizes) <= limit or len(sizes) == 1:
        return [len(sizes)]
    half = 1 << ((len(sizes) - 1).bit_length() - 1)
    return tree(sizes[:half], limit) + tree(sizes[half:], limit)


@given(st.permutations(range(40)))
def test_any_disorder_is_noticed(numbers: list[int]) -> None:
    rows = [message(number) for number in numbers]
    chunker = Chunker(FORMAT)
    places = [FORMAT.order(FORMAT.encode(row)) for row in rows]
    if all(one < other for one, other in pairwise(places)):
        list(chunker.take(rows))
    else:
        with pytest.raises(OutOfOrder, match=r"discord\.message"):
            list(chunker.take(rows))


def test_a_key_that_comes_twice_is_noticed() -> None:
    with pytest.raises(OutOfOrder):
        cut([message(1), message(1)])


def test_keys_are_ordered_by_code_points_and_numbers_by_size() -> None:
    rows = [{"message": n, "emoji": emoji, "user": 1} for n in (10, 9) for emoji in ("🌳", "\ufb01", "a")]
    random.Random(1).shuffle(rows)
    (chunk,) = cut(rows, RowFormat(LIKES))
    assert chunk.first_key == (9, "a", 1)
    assert chunk.last_key == (10, "🌳", 1)


def test_a_row_too_large_for_any_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "LARGEST_BLOB", 5000)
    with pytest.raises(WrongValue, match="too many"):
        cut(one_month([10, 6000]))


def test_a_key_that_is_null() -> None:
    with pytest.raises(WrongValue, match="id"):
        cut([message(1, id=None)])
