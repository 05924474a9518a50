"""A mirror in memory: tables as lists of rows, with the two sides that archives know."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from app.archives.chunks import RowFormat, sort_key
from app.archives.source import Part, TableInfo

MESSAGES = TableInfo(
    name="discord.message",
    json_schema={
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "channel_id": {"type": "string"},
            "author_id": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "content": {"type": "string"},
            "created_at": {"type": "string", "format": "date-time"},
            "pinned": {"type": "boolean"},
            "length": {"type": ["integer", "null"]},
            "mentions": {"type": "array", "items": {"type": "string"}},
            "deleted_at": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
            "extra": {"type": "object"},
        },
        "required": ["id", "channel_id", "content", "created_at"],
    },
    key=("id",),
    partition="channel_id",
    time="created_at",
)
LIKES = TableInfo(
    name="discord.reaction",
    json_schema={
        "type": "object",
        "properties": {
            "message": {"type": "integer"},
            "emoji": {"type": "string"},
            "user": {"type": "integer"},
            "deleted_at": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
        },
        "required": ["message", "emoji", "user"],
    },
    key=("message", "emoji", "user"),
)
START = datetime(2025, 11, 1, tzinfo=UTC)


@dataclass
class MemorySource:
    """Rows of one provider for one community. `marked`: say of each part how often it was changed."""

    data: dict[str, tuple[TableInfo, list[dict[str, Any]]]]
    provider: str = "discord"
    community: str = "town"
    batch: int = 1000
    marked: bool = False
    read: Counter[str] = field(default_factory=Counter)
    changes: Counter[tuple[str, Part]] = field(default_factory=Counter)

    async def tables(self) -> Sequence[TableInfo]:
        return [info for info, _ in self.data.values()]

    async def marks(self, table: TableInfo) -> Mapping[Part, str]:
        if not self.marked:
            return {}
        parts = Counter(self._part(table, row) for row in self.data[table.name][1])
        return {part: f"{count}/{self.changes[table.name, part]}" for part, count in parts.items()}

    async def rows(
        self, table: TableInfo, without: Collection[Part]
    ) -> AsyncGenerator[Sequence[Mapping[str, Any]], None]:
        info, rows = self.data[table.name]
        rows = sorted(rows, key=sort_key(RowFormat(info)))
        if without:
            rows = [row for row in rows if self._part(table, row) not in without]
        self.read[table.name] += len(rows)
        for start in range(0, len(rows), self.batch):
            yield rows[start : start + self.batch]

    def touch(self, table: TableInfo, row: Mapping[str, Any]) -> None:
        """Say that the row's part has changed."""
        self.changes[table.name, self._part(table, row)] += 1

    def _part(self, table: TableInfo, row: Mapping[str, Any]) -> Part:
        rows = RowFormat(table)
        partition, period, _ = rows.order(rows.encode(row))
        return Part(partition or None, period or None)


@dataclass
class MemorySink:
    """What was restored: by table, the rows."""

    tables: dict[str, TableInfo] = field(default_factory=dict)
    rows: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    finished: bool = False

    async def begin(self, tables: Sequence[TableInfo]) -> None:
        self.tables = {table.name: table for table in tables}
        self.rows = {table.name: [] for table in tables}

    async def write(self, table: TableInfo, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows[table.name].extend(rows)

    async def finish(self) -> None:
        self.finished = True


def message(number: int, **changes: Any) -> dict[str, Any]:
    """A made-up message, about two an hour, in one of three channels."""
    rng = random.Random(number)
    at = START + timedelta(minutes=27 * number, microseconds=number % 7)
    return {
        "id": str(10**17 + number * 4096),
        "channel_id": str(500 + number % 3),
        "author_id": None if number % 11 == 0 else str(900 + number % 5),
        "content": " ".join(rng.choices(("apple", "pear", "plum", "über", "木", "🌳", '"', "\n"), k=8)),
        "created_at": at,
        "pinned": number % 13 == 0,
        "length": number if number % 2 else 2**60 + number,
        "mentions": [str(900 + number % 5)] * (number % 3),
        "deleted_at": at + timedelta(hours=1) if number % 17 == 0 else None,
        "extra": {"flags": number, "ratio": number / 8, "big": 2**70, "none": None} if number % 5 == 0 else {},
        "first_seen": at + timedelta(days=1),
        "synced_at": at + timedelta(days=2),
        **changes,
    }


def like(number: int) -> dict[str, Any]:
    """A made-up reaction."""
    return {
        "message": number // 3,
        "emoji": ("👍", "\ufb01", "a")[number % 3],
        "user": 2**55 + number,
        "deleted_at": None,
    }


def make_source(messages: int = 300, likes: int = 50, **options: Any) -> MemorySource:
    """A source of so many messages and reactions."""
    synced = START + timedelta(days=90)
    return MemorySource(
        {
            "discord.message": (_synced(MESSAGES, synced), [message(number) for number in range(messages)]),
            "discord.reaction": (_synced(LIKES, synced - timedelta(days=1)), [like(number) for number in range(likes)]),
        },
        **options,
    )


def _synced(table: TableInfo, at: datetime) -> TableInfo:
    return TableInfo(
        table.name, table.json_schema, table.key, table.partition, table.time, at, at - timedelta(minutes=5)
    )
