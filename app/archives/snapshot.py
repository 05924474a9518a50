"""Writing a snapshot: a mirror's tables become chunks, a manifest and the new HEAD of an archive."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.archives.chunks import Chunk, Chunker, RowFormat, written_key
from app.archives.format import (
    LARGEST_BLOB,
    ChunkEntry,
    HeadFile,
    Manifest,
    Signer,
    TableEntry,
    blob_name,
    digest,
    manifest_name,
    pack,
    signature_name,
    unpack,
    written_moment,
)
from app.archives.read import SeenHead, read_head, read_manifest
from app.archives.source import Part, TableInfo, TableSource
from app.core.killpoints import KillPoint, reached
from metagov_sdk.archive import CorruptArchive, DataArchive, Head, HeadMoved, MissingObject
from metagov_sdk.archive.canonical import canonical

_ATTEMPTS = 20
_UPLOADS = 4
"""Chunks that are packed and stored at once; with the one being filled they bound the memory."""

Marks = Mapping[str, Mapping[Part, str]]
"""By table, then by part: what a source said of its parts."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a writer knows from the snapshot it wrote last: its id and its source's marks."""

    snapshot: str
    marks: Marks


@dataclass(slots=True)
class Written:
    """What became of a snapshot. `moved` is False when the archive's newest says the same already."""

    head: HeadFile
    marks: Marks
    moved: bool = False
    rows: int = 0
    """In the snapshot."""
    rows_read: int = 0
    chunks: int = 0
    """In the snapshot."""
    chunks_packed: int = 0
    blobs_stored: int = 0
    bytes_stored: int = 0
    attempts: int = 0


@dataclass(slots=True)
class _Known:
    """The chunks and parts of the archive's newest snapshot."""

    manifest: Manifest | None = None
    snapshot: str | None = None
    chunks: dict[str, ChunkEntry] = field(default_factory=dict)


Progress = Callable[[str, int], None]
"""Called with a table's name and the number of its rows so far."""


async def write_snapshot(
    archive: DataArchive,
    source: TableSource,
    *,
    producer: str = "",
    signer: Signer | None = None,
    remembered: Remembered | None = None,
    seen: SeenHead | None = None,
    progress: Progress | None = None,
) -> Written:
    """Write what the source holds as the archive's newest snapshot.

    Chunks that the newest snapshot has already are neither packed nor stored; parts whose marks are as `remembered` are
    not even read. A writer that is overtaken sets its snapshot on top of the other's. Stopped at any point, it leaves
    the HEAD there was, or the new one. Raises WrongValue and OutOfOrder for a source that cannot be archived (nothing
    is written then), RolledBack when HEAD is older than `seen`, CorruptArchive, ArchiveAway.
    """
    at = await archive.head()
    known = await _known(archive, at, source, seen)
    result = _Result(archive, known)
    tables: list[TableEntry] = []
    marks: dict[str, Mapping[Part, str]] = {}
    for table in sorted(await source.tables(), key=lambda each: each.name):
        marks[table.name] = await source.marks(table)
        before = {}
        if remembered is not None and known.snapshot == remembered.snapshot:
            before = dict(remembered.marks.get(table.name, {}))
        tables.append(await result.table(source, table, marks[table.name], before, progress))
    created_at = max((table.synced_at for table in tables if table.synced_at is not None), default=None)
    for attempt in range(1, _ATTEMPTS + 1):
        newest = known.manifest
        if newest is not None and known.snapshot is not None and newest.tables == tuple(tables):
            head = _head_of(newest, known.snapshot, producer)
            return result.written(head, tables, marks, attempt, moved=False)
        manifest = Manifest(
            provider=source.provider,
            community=source.community,
            tables=tuple(tables),
            previous=known.snapshot,
            seq=1 if newest is None else newest.seq + 1,
            created_at=created_at,
        )
        data = manifest.encode()
        snapshot = digest(data)
        await archive.add(manifest_name(snapshot), data)
        if signer is not None:
            await archive.add(signature_name(snapshot), signer.sign(data), replace=True)
        head = _head_of(manifest, snapshot, producer)
        try:
            await archive.move_head(head.encode(), at)
        except HeadMoved:
            await asyncio.sleep(random.uniform(0, 0.05 * attempt))  # noqa: S311 -- so that two do not keep step
            at = await archive.head()
            known = await _known(archive, at, source, seen)
            continue
        reached(KillPoint.ARCHIVE_MOVED)
        return result.written(head, tables, marks, attempt, moved=True)
    raise HeadMoved(f"{_ATTEMPTS} times another writer was first; try again later")


def _head_of(manifest: Manifest, snapshot: str, producer: str) -> HeadFile:
    return HeadFile(
        provider=manifest.provider,
        community=manifest.community,
        snapshot=snapshot,
        seq=manifest.seq,
        created_at=manifest.created_at,
        producer=producer,
    )


async def _known(archive: DataArchive, at: Head, source: TableSource, seen: SeenHead | None) -> _Known:
    head = read_head(at, source.provider, source.community, seen)
    if head is None:
        return _Known()
    manifest = await read_manifest(archive, head.snapshot)
    return _Known(manifest, head.snapshot, {chunk.sha256: chunk for table in manifest.tables for chunk in table.chunks})


class _Result:
    """Chunks on their way into the archive, and the count of them."""

    def __init__(self, archive: DataArchive, known: _Known) -> None:
        self._archive = archive
        self._known = known
        self._rows_read = self._packed = self._stored = self._bytes = 0

    def written(
        self, head: HeadFile, tables: Sequence[TableEntry], marks: Marks, attempts: int, *, moved: bool
    ) -> Written:
        return Written(
            head=head,
            marks=marks,
            moved=moved,
            rows=sum(table.rows for table in tables),
            rows_read=self._rows_read,
            chunks=sum(len(table.chunks) for table in tables),
            chunks_packed=self._packed,
            blobs_stored=self._stored,
            bytes_stored=self._bytes,
            attempts=attempts,
        )

    async def table(
        self,
        source: TableSource,
        table: TableInfo,
        marks: Mapping[Part, str],
        before: Mapping[Part, str],
        progress: Progress | None,
    ) -> TableEntry:
        rows = RowFormat(table)
        schema = canonical(dict(table.json_schema))
        entry = TableEntry(
            name=table.name,
            key=table.key,
            partition=table.partition,
            time=table.time,
            schema_sha256=digest(schema),
            synced_at=written_moment(table.synced_at),
            complete_through=written_moment(table.complete_through),
            rows=0,
            chunks=(),
        )
        kept = self._kept(entry, marks, before)
        if not kept:
            await self._store_schema(schema, entry.schema_sha256)
        chunks = [chunk for entries in kept.values() for chunk in entries]
        if not marks or marks.keys() != kept.keys():
            async for written in self._stream(source, table, rows, kept.keys(), progress):
                chunks.append(written)
        chunks.sort(key=lambda chunk: (chunk.partition or "", chunk.period or "", rows.read_key(chunk.first_key)))
        return entry.model_copy(update={"rows": sum(chunk.rows for chunk in chunks), "chunks": tuple(chunks)})

    def _kept(
        self, entry: TableEntry, marks: Mapping[Part, str], before: Mapping[Part, str]
    ) -> dict[Part, list[ChunkEntry]]:
        """The newest snapshot's chunks of the parts that are as they were."""
        tables = () if self._known.manifest is None else self._known.manifest.tables
        last = next((table for table in tables if table.name == entry.name), None)
        same = ("key", "partition", "time", "schema_sha256")
        if last is None or any(getattr(last, name) != getattr(entry, name) for name in same):
            return {}
        unchanged = {part for part, mark in marks.items() if before.get(part) == mark}
        kept: dict[Part, list[ChunkEntry]] = {}
        for chunk in last.chunks:
            part = Part(chunk.partition, chunk.period)
            if part in unchanged:
                kept.setdefault(part, []).append(chunk)
        return kept

    async def _store_schema(self, schema: bytes, sha256: str) -> None:
        tables = () if self._known.manifest is None else self._known.manifest.tables
        if sha256 not in {table.schema_sha256 for table in tables}:
            await self._store(sha256, await asyncio.to_thread(pack, schema), schema)

    async def _stream(
        self,
        source: TableSource,
        table: TableInfo,
        rows: RowFormat,
        without: Any,
        progress: Progress | None,
    ) -> AsyncIterator[ChunkEntry]:
        """Read, chunk and store, a few chunks at a time; yields what the manifest says of each, in order."""
        chunker = Chunker(rows)
        waiting: deque[asyncio.Task[ChunkEntry]] = deque()
        count = 0
        try:
            async with contextlib.aclosing(source.rows(table, without)) as batches:
                async for batch in batches:
                    count += len(batch)
                    for chunk in chunker.take(batch):
                        waiting.append(asyncio.create_task(self._keep(chunk)))
                        if len(waiting) >= _UPLOADS:
                            yield await waiting.popleft()
                    if progress is not None:
                        progress(table.name, count)
                    # So that chunks are packed and stored while a source that never waits is read.
                    await asyncio.sleep(0)
            for chunk in chunker.finish():
                waiting.append(asyncio.create_task(self._keep(chunk)))
            while waiting:
                yield await waiting.popleft()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        self._rows_read += count

    async def _keep(self, chunk: Chunk) -> ChunkEntry:
        sha256 = await asyncio.to_thread(digest, chunk.data)
        known = self._known.chunks.get(sha256)
        if known is not None:
            stored_sha256, stored_bytes = known.stored_sha256, known.stored_bytes
        else:
            packed = await asyncio.to_thread(pack, chunk.data)
            self._packed += 1
            packed = await self._store(sha256, packed, chunk.data)
            stored_sha256, stored_bytes = digest(packed), len(packed)
        return ChunkEntry(
            partition=chunk.part.partition,
            period=chunk.part.period,
            sha256=sha256,
            stored_sha256=stored_sha256,
            bytes=len(chunk.data),
            stored_bytes=stored_bytes,
            rows=chunk.rows,
            first_key=written_key(chunk.first_key),
            last_key=written_key(chunk.last_key),
        )

    async def _store(self, sha256: str, packed: bytes, data: bytes) -> bytes:
        """Store a blob; returns the bytes that are there now, which an earlier writer may have packed differently."""
        name = blob_name(sha256)
        if await self._archive.add(name, packed):
            reached(KillPoint.ARCHIVE_STORED)
            self._stored += 1
            self._bytes += len(packed)
            return packed
        try:
            there = await self._archive.read(name, 2 * LARGEST_BLOB)
            if there == packed or await asyncio.to_thread(unpack, there, name, len(data)) == data:
                return there
        except MissingObject:
            pass
        except CorruptArchive:
            # What lies there is of no use to anybody; what its name promises is at hand.
            pass
        await self._archive.add(name, packed, replace=True)
        self._stored += 1
        self._bytes += len(packed)
        return packed
