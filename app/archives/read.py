"""Reading an archive, and believing nothing in it: signature, chain, length, digest and order are checked on the way.

No row of a chunk is handed on before the whole chunk has been found genuine.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from app.archives.chunk_rows import all_rows, count_rows, parse, some_rows
from app.archives.chunks import Order, RowFormat
from app.archives.format import (
    LARGEST_MANIFEST,
    LARGEST_SCHEMA,
    LARGEST_SIGNATURE,
    ChunkEntry,
    HeadFile,
    Manifest,
    TableEntry,
    blob_name,
    check_follows,
    check_signature,
    decode_head,
    decode_manifest,
    digest,
    manifest_name,
    signature_name,
    unpack,
)
from app.archives.source import TableInfo
from metagov_sdk.archive import (
    ArchivedTable,
    ArchiveReader,
    BadDigest,
    BadSignature,
    BrokenChain,
    DataArchive,
    Head,
    MissingObject,
    NoSnapshot,
    NotCanonical,
    OutOfOrder,
    RolledBack,
    WrongValue,
)
from metagov_sdk.archive.canonical import canonical

_LONGEST_WALK = 100_000
_READ_AHEAD = 2
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class SeenHead:
    """A HEAD that a reader has seen before. No later one may be older."""

    seq: int
    snapshot: str


def read_head(at: Head, provider: str, community: str, seen: SeenHead | None = None) -> HeadFile | None:
    """What HEAD says; None where nothing was ever written.

    Raises NotCanonical, BrokenChain when it is another archive's, RolledBack when it is older than `seen`.
    """
    if at.data is None:
        if seen is not None:
            raise RolledBack(f"the archive is empty, and was at snapshot number {seen.seq}")
        return None
    head = decode_head(at.data)
    if (head.provider, head.community) != (provider, community):
        raise BrokenChain(f"HEAD is of {head.provider!r} for {head.community!r}, not of {provider!r} for {community!r}")
    if seen is not None and head.seq < seen.seq:
        raise RolledBack(f"HEAD is at snapshot number {head.seq}, and was at {seen.seq}")
    if seen is not None and head.seq == seen.seq and head.snapshot != seen.snapshot:
        raise RolledBack(f"HEAD's snapshot number {head.seq} is another than the one seen before")
    return head


async def read_manifest(archive: DataArchive, snapshot: str, trusted: Collection[str] = ()) -> Manifest:
    """A snapshot's manifest, signed by one of the trusted keys if there are any.

    Raises NoSnapshot, BadDigest, NotCanonical, TooLarge, BadSignature.
    """
    try:
        data = await archive.read(manifest_name(snapshot), LARGEST_MANIFEST)
    except MissingObject:
        raise NoSnapshot(f"the archive has no snapshot {snapshot}") from None
    manifest = await asyncio.to_thread(decode_manifest, data, snapshot)
    if trusted:
        try:
            signature = await archive.read(signature_name(snapshot), LARGEST_SIGNATURE)
        except MissingObject:
            raise BadSignature(f"the manifest {snapshot} is not signed") from None
        check_signature(data, signature, trusted)
    return manifest


async def open_archive(
    archive: DataArchive,
    provider: str,
    community: str,
    *,
    snapshot: str | None = None,
    seen: SeenHead | None = None,
    trusted: Collection[str] = (),
) -> VerifiedReader:
    """A reader of one snapshot, the newest if none is named.

    seen: the newest HEAD this reader has seen before, which has to be among the ancestors of what is there now.
    trusted: public keys, one of which must have signed. Raises NoSnapshot, and CorruptArchive in its kinds.
    """
    head = read_head(await archive.head(), provider, community, seen)
    if head is None:
        raise NoSnapshot(f"nothing of {provider!r} was ever archived for {community!r}")
    newest = await read_manifest(archive, head.snapshot, trusted)
    _check_head(head, newest)
    if seen is not None:
        await _check_descent(archive, head.snapshot, newest, seen)
    wanted, manifest = head.snapshot, newest
    if snapshot is not None and snapshot != head.snapshot:
        wanted, manifest = snapshot, await read_manifest(archive, snapshot, trusted)
        if (manifest.provider, manifest.community) != (provider, community):
            raise NoSnapshot(f"the archive has no snapshot {snapshot} of {provider!r} for {community!r}")
    return await _reader(archive, wanted, manifest, head, trusted)


async def _reader(
    archive: DataArchive, snapshot: str, manifest: Manifest, head: HeadFile, trusted: Collection[str]
) -> VerifiedReader:
    schemas = {table.schema_sha256: await _read_schema(archive, table) for table in manifest.tables}
    return VerifiedReader(archive, snapshot, manifest, head, schemas, trusted)


async def ancestors(
    archive: DataArchive, snapshot: str, manifest: Manifest, trusted: Collection[str] = ()
) -> AsyncIterator[tuple[str, Manifest]]:
    """The snapshots before this one, newest first. Raises BrokenChain."""
    for _ in range(_LONGEST_WALK):
        if manifest.previous is None:
            if manifest.seq != 1:
                raise BrokenChain(f"the manifest {snapshot} is number {manifest.seq} and names none before it")
            return
        try:
            earlier = await read_manifest(archive, manifest.previous, trusted)
        except NoSnapshot:
            raise BrokenChain(f"the manifest {snapshot} follows {manifest.previous}, which is not there") from None
        check_follows(manifest, snapshot, earlier)
        snapshot, manifest = manifest.previous, earlier
        yield snapshot, manifest


async def _check_descent(archive: DataArchive, snapshot: str, newest: Manifest, seen: SeenHead) -> None:
    if newest.seq == seen.seq:
        return
    async for earlier, manifest in ancestors(archive, snapshot, newest):
        if manifest.seq == seen.seq:
            if earlier == seen.snapshot:
                return
            break
    raise BrokenChain(f"HEAD does not descend from the snapshot number {seen.seq} that was seen before")


def _check_head(head: HeadFile, newest: Manifest) -> None:
    if (newest.provider, newest.community) != (head.provider, head.community):
        raise BrokenChain("HEAD names a manifest of another archive")
    if newest.seq != head.seq:
        raise BrokenChain(f"HEAD says number {head.seq}, its manifest number {newest.seq}")


async def _read_schema(archive: DataArchive, table: TableEntry) -> Mapping[str, Any]:
    what = f"the schema of {table.name}"
    stored = await archive.read(blob_name(table.schema_sha256), LARGEST_SCHEMA)
    data = unpack(stored, what, LARGEST_SCHEMA)
    if digest(data) != table.schema_sha256:
        raise BadDigest(f"{what} has other bytes than the manifest names")
    schema = parse(data, what)
    if not isinstance(schema, dict) or canonical(schema) != data:
        raise NotCanonical(f"{what} is not canonical JSON of an object")
    return schema


class VerifiedReader(ArchiveReader):
    """Reads one snapshot; made by `open_archive`."""

    def __init__(
        self,
        archive: DataArchive,
        snapshot: str,
        manifest: Manifest,
        head: HeadFile,
        schemas: Mapping[str, Mapping[str, Any]],
        trusted: Collection[str] = (),
    ) -> None:
        self.archive = archive
        self.trusted = trusted
        self.snapshot = snapshot
        self.manifest = manifest
        self.head = head
        self.provider = manifest.provider
        self.community = manifest.community
        self._entries = {table.name: table for table in manifest.tables}
        self._tables = [_table(entry, schemas[entry.schema_sha256]) for entry in manifest.tables]
        self._formats = {table.name: _format(table) for table in self._tables}
        for entry in manifest.tables:
            _check_chunks(entry, self._formats[entry.name])

    def tables(self) -> Sequence[ArchivedTable]:
        """The snapshot's tables, by name."""
        return self._tables

    async def at(self, snapshot: str, manifest: Manifest) -> VerifiedReader:
        """A reader of another snapshot of the same archive, whose manifest was read already."""
        return await _reader(self.archive, snapshot, manifest, self.head, self.trusted)

    def entry(self, table: str) -> TableEntry:
        """What the manifest says of a table. Raises UnknownTable."""
        return self._entries[self.table(table).name]

    async def batches(
        self, table: ArchivedTable, *, partition: str | None = None, since: datetime | None = None
    ) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        """A table's rows as they are written, a chunk at a time. Raises CorruptArchive in its kinds."""
        # Not strftime, which leaves the zeros of early years away.
        month = None if since is None or table.time is None else since.astimezone(UTC).date().isoformat()[:7]
        wanted = [
            chunk
            for chunk in self._entries[table.name].chunks
            if (partition is None or chunk.partition == partition)
            and (month is None or chunk.period is None or chunk.period >= month)
        ]
        async for rows in self._each(table.name, wanted, all_rows):
            yield rows

    async def page(
        self, table: str, chunk: int, row: int, limit: int
    ) -> tuple[Sequence[Mapping[str, Any]], tuple[int, int] | None]:
        """At most `limit` rows from a place on, and the place after them; None at the end. Raises UnknownTable."""
        chunks = self.entry(table).chunks
        found: list[Mapping[str, Any]] = []
        while 0 <= chunk < len(chunks) and len(found) < limit:
            entry, wanted = chunks[chunk], slice(row, row + limit - len(found))
            found += await self._read(table, entry, partial(some_rows, wanted=wanted))
            row = wanted.stop
            if row >= entry.rows:
                chunk, row = chunk + 1, 0
        return found, (chunk, row) if 0 <= chunk < len(chunks) else None

    def format(self, table: str) -> RowFormat:
        """How a table's rows are written. Raises UnknownTable."""
        return self._formats[self.table(table).name]

    async def find(
        self, table: str, chunks: Sequence[ChunkEntry], look: Callable[[bytes, ChunkEntry, RowFormat], ResultT]
    ) -> AsyncGenerator[tuple[ChunkEntry, ResultT], None]:
        """What `look` says of stored chunks, one after the other; it has to verify what it reads of them."""
        coming = self._each(table, chunks, lambda stored, chunk, rows: (chunk, look(stored, chunk, rows)))
        async with contextlib.aclosing(coming) as found:
            async for each in found:
                yield each

    async def verify(self, progress: Callable[[str, int], None] | None = None) -> int:
        """Read everything, to the last byte: also that each row is written in the one way there is. Returns the rows.

        progress: called with a table and the number of its rows verified so far.
        """
        total = 0
        for entry in self.manifest.tables:
            count = 0
            async for rows in self._each(entry.name, entry.chunks, count_rows):
                count += rows
                if progress is not None:
                    progress(entry.name, count)
            total += count
        return total

    async def _each(
        self, table: str, chunks: Sequence[ChunkEntry], use: Callable[[bytes, ChunkEntry, RowFormat], ResultT]
    ) -> AsyncGenerator[ResultT, None]:
        """What `use` makes of each chunk, the next one on its way while one is used."""
        waiting: deque[asyncio.Task[ResultT]] = deque()
        coming = iter(chunks)
        try:
            while True:
                while len(waiting) < _READ_AHEAD and (chunk := next(coming, None)) is not None:
                    waiting.append(asyncio.create_task(self._read(table, chunk, use)))
                if not waiting:
                    return
                yield await waiting.popleft()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _read(
        self, table: str, chunk: ChunkEntry, use: Callable[[bytes, ChunkEntry, RowFormat], ResultT]
    ) -> ResultT:
        stored = await self.archive.read(blob_name(chunk.sha256), chunk.stored_bytes)
        return await asyncio.to_thread(use, stored, chunk, self._formats[table])


def _table(entry: TableEntry, schema: Mapping[str, Any]) -> ArchivedTable:
    return ArchivedTable(
        name=entry.name,
        json_schema=schema,
        key=entry.key,
        partition=entry.partition,
        time=entry.time,
        rows=entry.rows,
        synced_at=_moment(entry.synced_at),
        complete_through=_moment(entry.complete_through),
    )


def table_info(table: ArchivedTable) -> TableInfo:
    """A table as sources have it."""
    return TableInfo(
        table.name,
        table.json_schema,
        table.key,
        table.partition,
        table.time,
        table.synced_at,
        table.complete_through,
    )


def _format(table: ArchivedTable) -> RowFormat:
    try:
        return RowFormat(table_info(table))
    except WrongValue as error:
        raise NotCanonical(f"the manifest's table cannot be read: {error}") from None


def _check_chunks(entry: TableEntry, rows: RowFormat) -> None:
    """Raises OutOfOrder unless the chunks stand in order and do not overlap; NotCanonical when counts disagree."""
    last: Order | None = None
    for chunk in entry.chunks:
        try:
            first, final = rows.read_key(chunk.first_key), rows.read_key(chunk.last_key)
            here: Order = (chunk.partition or "", chunk.period or "", first)
            if (last is not None and not last < here) or final < first:
                raise OutOfOrder(f"{entry.name}: the chunk {chunk.sha256} does not come after the one before it")
        except (WrongValue, TypeError) as error:
            raise NotCanonical(f"{entry.name}: {error}") from None
        last = (here[0], here[1], final)
    if sum(chunk.rows for chunk in entry.chunks) != entry.rows:
        raise NotCanonical(f"{entry.name}: the manifest counts {entry.rows} rows, its chunks others")


def _moment(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)
