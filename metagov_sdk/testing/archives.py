"""An archive in memory, for testing what reads one: graph rules, say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from metagov_sdk.archive import ArchivedTable, ArchiveReader
from metagov_sdk.archive.canonical import dump, encoder, moment
from metagov_sdk.archive.columns import kinds_of

_BATCH = 100
_MOMENT = {"type": "string", "format": "date-time"}


class ArchiveInMemory(ArchiveReader):
    """A snapshot made of plain rows, read as a real one is: with your own rows, in order, deleted ones left out.

        archive = ArchiveInMemory({"discord.message": [{"id": "1", "channel_id": "7", "content": "hi"}]})
        messages = [row async for row in archive.rows(Message)]

    A table's schema is taken from its rows unless `schemas` has it; `keys`, `partitions` and `times` name its columns,
    of which the key is `id` if nothing is said and the others are none. Values that a real archive could not hold raise
    WrongValue.
    """

    def __init__(
        self,
        tables: Mapping[str, Sequence[Mapping[str, Any]]],
        *,
        schemas: Mapping[str, Mapping[str, Any]] | None = None,
        keys: Mapping[str, tuple[str, ...]] | None = None,
        partitions: Mapping[str, str] | None = None,
        times: Mapping[str, str] | None = None,
        provider: str = "",
        community: str = "town",
    ) -> None:
        self.provider = provider or next(iter(tables), "").partition(".")[0]
        self.community = community
        self.snapshot = "0" * 64
        self._tables = []
        self._rows: dict[str, list[dict[str, Any]]] = {}
        for name in sorted(tables):
            schema = (schemas or {}).get(name) or _schema_of(tables[name])
            table = ArchivedTable(
                name=name,
                json_schema=schema,
                key=(keys or {}).get(name, ("id",)),
                partition=(partitions or {}).get(name),
                time=(times or {}).get(name),
                rows=len(tables[name]),
                synced_at=None,
                complete_through=None,
            )
            self._tables.append(table)
            self._rows[name] = _written(table, tables[name])

    def tables(self) -> Sequence[ArchivedTable]:
        """The tables, by name."""
        return self._tables

    async def batches(
        self, table: ArchivedTable, *, partition: str | None = None, since: datetime | None = None
    ) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        """Rows as an archive writes them."""
        month = "" if since is None or table.time is None else moment(since.astimezone(UTC))[:7]
        found = [
            row
            for row in self._rows[table.name]
            if (partition is None or str(row.get(table.partition or "")) == partition)
            and str(row.get(table.time or "", "~"))[:7] >= month
        ]
        for start in range(0, len(found), _BATCH):
            yield found[start : start + _BATCH]


def _written(table: ArchivedTable, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    encode = encoder(kinds_of(table.json_schema))
    # By way of the bytes, so that a test sees what a reader of files would.
    written: list[dict[str, Any]] = [orjson.loads(dump(encode(row))) for row in rows]

    def place(row: Mapping[str, Any]) -> tuple[Any, ...]:
        month = str(row.get(table.time, ""))[:7] if table.time else ""
        parent = str(row.get(table.partition, "")) if table.partition else ""
        return parent, month, tuple(row[name] for name in table.key)

    return sorted(written, key=place)


def _schema_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for row in rows:
        for name, value in row.items():
            if value is not None:
                found = _type_of(value)
                properties[name] = found if properties.get(name, found) == found else {}
    for name in {name for row in rows for name in row}:
        properties.setdefault(name, {})
    properties.setdefault("deleted_at", _MOMENT)
    return {"type": "object", "properties": properties}


def _type_of(value: object) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return {"type": "integer"}
    if isinstance(value, datetime):
        return _MOMENT
    return {"type": "string"} if isinstance(value, str) else {}
