"""A mirror's tables as archives know them, and the parts that their rows come in. It imports next to nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from metagov_sdk.archive.canonical import Key


@dataclass(frozen=True, slots=True)
class TableInfo:
    """A table: its full name (`discord.message`), the JSON Schema of its rows, and how far it is known."""

    name: str
    json_schema: Mapping[str, Any]
    key: tuple[str, ...]
    partition: str | None = None
    time: str | None = None
    synced_at: datetime | None = None
    complete_through: datetime | None = None


class Part(NamedTuple):
    """Rows of one table that belong together: of one parent (as text) and one calendar month, `2026-01`."""

    partition: str | None
    period: str | None


@dataclass(frozen=True, slots=True)
class Lines:
    """Rows of one part as an archive has them: their keys in order, and for each its canonical JSON, no newline."""

    part: Part
    keys: Sequence[Key]
    lines: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.lines)
