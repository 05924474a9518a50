"""Reading an archive: the same for the real ones, which verify as they read, and for those in a test's memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from metagov_sdk.archive.canonical import moment
from metagov_sdk.archive.errors import UnknownTable
from metagov_sdk.archive.rows import RowT, bind_row

DELETED = "deleted_at"
"""The column that says when a row vanished from its platform."""


@dataclass(frozen=True, slots=True)
class ArchivedTable:
    """A table of a snapshot. `time` is the column by which it is cut into months, `partition` its parent's."""

    name: str
    json_schema: Mapping[str, Any]
    key: tuple[str, ...]
    partition: str | None
    time: str | None
    rows: int
    synced_at: datetime | None
    complete_through: datetime | None


class ArchiveReader(ABC):
    """One snapshot of one provider's tables for one community."""

    provider: str
    community: str
    snapshot: str
    """The snapshot's id: the SHA-256 of its manifest."""

    @abstractmethod
    def tables(self) -> Sequence[ArchivedTable]:
        """The snapshot's tables, by name."""

    @abstractmethod
    def batches(
        self, table: ArchivedTable, *, partition: str | None = None, since: datetime | None = None
    ) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        """A table's rows as they are written, in order, many at a time. Whole months before `since` are left out."""

    def table(self, name: str) -> ArchivedTable:
        """One table. Raises UnknownTable."""
        for table in self.tables():
            if table.name == name:
                return table
        there = ", ".join(table.name for table in self.tables()) or "none"
        raise UnknownTable(f"the snapshot has no table {name!r}; it has {there}")

    async def rows(
        self,
        row: type[RowT],
        *,
        partition: str | None = None,
        since: datetime | None = None,
        deleted: bool = False,
    ) -> AsyncIterator[RowT]:
        """A table's rows in the order of (partition, month, key).

        partition: only this parent's. since: only what is not older, by the table's time. deleted: also what has
        vanished from the platform. Raises UnknownTable and MissingFields before the first row, WrongValue, and
        CorruptArchive in its kinds: whatever was yielded before was genuine.
        """
        table = self.table(row.table)
        make = bind_row(row, table.json_schema)
        start = None if since is None or table.time is None else moment(since.astimezone(UTC))
        async for batch in self.batches(table, partition=partition, since=since):
            for raw in batch:
                if not deleted and DELETED in raw:
                    continue
                if start is not None and str(raw.get(table.time or "", "")) < start:
                    continue
                yield make(raw)
