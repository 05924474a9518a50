"""Rows without objects, and rows beside those that they belong to."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from metagov_sdk.archive import MissingFields, Row, UnknownTable, WrongValue
from metagov_sdk.archive.plain import Beside, PlainRow, plain_rows
from metagov_sdk.testing import ArchiveInMemory


class Said(Row, table="chat.said"):
    id: str
    at: datetime | None
    likes: int | None


ROWS: list[dict[str, Any]] = [
    {"id": "1", "at": datetime(2024, 1, 1, tzinfo=UTC), "likes": 2**60, "text": "kept"},
    {"id": "2", "at": None, "likes": None, "text": "gone", "deleted_at": datetime(2024, 1, 2, tzinfo=UTC)},
]


async def read(archive: ArchiveInMemory, row: type[Row] = Said, **how: Any) -> list[PlainRow]:
    return [raw async for batch in plain_rows(archive, row, **how) for raw in batch]


async def test_rows_are_as_they_are_written() -> None:
    archive = ArchiveInMemory({"chat.said": ROWS})
    kept = {"id": "1", "at": "2024-01-01T00:00:00.000000Z", "likes": str(2**60), "text": "kept"}
    assert await read(archive) == [kept]
    assert [raw["id"] for raw in await read(archive, deleted=True)] == ["1", "2"]


async def test_what_does_not_fit_is_refused_before_any_row() -> None:
    with pytest.raises(MissingFields, match="likes"):
        await read(ArchiveInMemory({"chat.said": [{"id": "1", "at": None}]}))
    with pytest.raises(UnknownTable):
        await read(ArchiveInMemory({}))


async def test_value_of_another_type_is_refused() -> None:
    nullable = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    moment = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}
    schema = {"type": "object", "properties": {"id": nullable, "at": moment, "likes": {"type": "integer"}}}
    archive = ArchiveInMemory({"chat.said": [{"no": "1"}]}, schemas={"chat.said": schema}, keys={"chat.said": ()})
    with pytest.raises(WrongValue, match=r"Said\.id: a row of chat\.said"):
        await read(archive)


async def _batches(rows: Sequence[PlainRow], size: int) -> AsyncIterator[Sequence[PlainRow]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


@pytest.mark.parametrize("seed", range(20))
async def test_rows_are_found_beside_others_however_both_are_cut(seed: int) -> None:
    chance = random.Random(seed)
    # By time, so that ids of another length come out of the order of text, as a channel's months do.
    ids = [str(number) for number in sorted(chance.sample(range(1, 2000), 60))]
    children = sorted((chance.choice([*ids, "0", "zzz"]), str(n)) for n in range(200))
    rows = [{"of": parent, "id": id} for parent, id in children]
    beside = Beside(_batches(rows, chance.randint(1, 50)), lambda raw: str(raw["of"]))
    size = chance.randint(1, 20)
    for start in range(0, len(ids), size):
        some = ids[start : start + size]
        await beside.read_to(max(some))
        for id in some:
            assert list(beside.take(id)) == [row for row in rows if row["of"] == id]
            assert list(beside.take(id)) == []
