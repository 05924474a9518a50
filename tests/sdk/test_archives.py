"""An archive in memory reads as a real one does."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from app.archives.read import open_archive
from app.archives.snapshot import write_snapshot
from metagov_sdk.archive import ArchiveReader, MissingFields, Row, UnknownTable, WrongValue
from metagov_sdk.testing import ArchiveInMemory
from tests.archives.forge import MemoryArchive
from tests.archives.memory import MESSAGES, START, make_source, message


class Message(Row, table="discord.message"):
    """A reader's own."""

    id: str
    channel_id: str
    author_id: str | None
    length: int
    extra: dict[str, Any]


async def test_it_reads_as_a_real_one() -> None:
    rows = [message(number) for number in range(300)]
    real = MemoryArchive()
    await write_snapshot(real, make_source(messages=300))
    readers: list[ArchiveReader] = [
        await open_archive(real, "discord", "town"),
        ArchiveInMemory(
            {MESSAGES.name: rows},
            schemas={MESSAGES.name: MESSAGES.json_schema},
            partitions={MESSAGES.name: "channel_id"},
            times={MESSAGES.name: "created_at"},
        ),
        ArchiveInMemory(
            {MESSAGES.name: rows}, partitions={MESSAGES.name: "channel_id"}, times={MESSAGES.name: "created_at"}
        ),
    ]
    for options in ({}, {"partition": "501"}, {"since": START + timedelta(days=3)}, {"deleted": True}):
        read = [[row async for row in reader.rows(Message, **options)] for reader in readers]
        assert read[0] == read[1] == read[2]
        assert read[0]


async def test_what_a_real_one_refuses() -> None:
    archive = ArchiveInMemory({"discord.message": [{"id": "1"}]})
    with pytest.raises(MissingFields, match="channel_id"):
        _ = [row async for row in archive.rows(Message)]
    with pytest.raises(WrongValue):
        ArchiveInMemory({"discord.message": [{"id": "1", "extra": {"a": float("nan")}}]})
    with pytest.raises(UnknownTable):
        _ = [row async for row in ArchiveInMemory({}).rows(Message)]
