"""What snapshots are made of and what archives are restored into: the two sides of a mirror that archives know."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from app.mirrors.parts import Lines, Part, TableInfo

__all__ = ["LEFT_OUT", "Batch", "Lines", "Part", "TableInfo", "TableSink", "TableSource"]

Batch: TypeAlias = Lines | Sequence[Mapping[str, Any]]
"""Rows, written already or not."""

LEFT_OUT = frozenset({"first_seen", "synced_at", "community_id", "instance_id"})
"""Columns that a source's rows may have and an archive does not: they tell of the mirror, not of the platform."""


class TableSource(Protocol):
    """One provider's mirror for one community, as it is at one moment: every call sees the same rows.

    In SQL: one REPEATABLE READ transaction.
    """

    @property
    def provider(self) -> str:
        """The provider's name."""

    @property
    def community(self) -> str:
        """The community's slug."""

    async def tables(self) -> Sequence[TableInfo]:
        """All tables, also empty ones."""

    async def marks(self, table: TableInfo) -> Mapping[Part, str]:
        """For each part an opaque text that differs when any row of the part does; empty where nobody knows.

        A part whose mark is as it was is not read again. For example the count and the greatest change number.
        """

    def rows(self, table: TableInfo, without: Collection[Part]) -> AsyncGenerator[Batch, None]:
        """The rows, some at a time, in the order of (partition, month, key), without those of some parts.

        A source that can write rows itself, byte for byte as RowFormat would, gives `Lines`; any other gives mappings.
        Text sorts by code points (COLLATE "C"), integers by size, null before all; the partition sorts as text:
        `ORDER BY partition::text COLLATE "C" NULLS FIRST, date_trunc('month', time AT TIME ZONE 'UTC') NULLS FIRST,
        key COLLATE "C"`, of which an index can be made.
        """


class TableSink(Protocol):
    """What an archive is restored into."""

    async def begin(self, tables: Sequence[TableInfo]) -> None:
        """Make ready to take these tables' rows; what was there of them goes."""

    async def write(self, table: TableInfo, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take rows: every column of the schema is there, None where it is null; times are datetimes."""

    async def finish(self) -> None:
        """All rows were written and verified. Without this call nothing of them is to be kept."""
