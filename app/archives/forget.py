"""Archives and somebody who is to be forgotten: the newest snapshot without them, and which old ones still hold them.

Snapshots are never changed. So a new one is written at once, not when the mirror's next run is over; and those before
it are gone through for chunks that hold a row of the person or name them. A chunk that several snapshots share is read
once. Where a table of a snapshot is known to hold them, no more of it is read: first come the chunks whose range of
keys has something that was just taken out of the mirror.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from app.archives.chunk_rows import read_rows
from app.archives.chunks import RowFormat
from app.archives.format import ChunkEntry, Manifest, TableEntry, read_chunk
from app.archives.moved import archive_mirror
from app.archives.places import find_name
from app.archives.read import VerifiedReader, ancestors
from app.archives.service import Archives
from app.host.binding import InstanceData
from app.identity.person import Person
from app.mirrors.forget import Erasure, Held, Step
from app.mirrors.forgotten import is_theirs, texts_of
from metagov_sdk import Record
from metagov_sdk.archive import ArchiveError, CorruptArchive
from metagov_sdk.archive.canonical import Key
from metagov_sdk.provider import ProviderSpec

_TRIES, _PAUSE_SECONDS = 20, 0.5

_log = structlog.get_logger(__name__)


def archive_step(archives: Archives) -> Step:
    """What archives add to forgetting somebody."""

    async def forget_archived(erasure: Erasure) -> None:
        if not archives.url:
            return
        erasure.report.held, erasure.report.snapshots = [], {}
        for name, instance in (await _archived(erasure)).items():
            try:
                await _forget(archives, erasure, name, instance)
            except ArchiveError as error:
                erasure.waits.append(f"the archive {name}: {error}")

    return Step("archives", forget_archived)


async def _archived(erasure: Erasure) -> dict[str, InstanceData]:
    """Archives by their names, with the instance whose mirror each is of: of several, one that is still there."""
    found: dict[str, InstanceData] = {}
    for instance in sorted(erasure.instances, key=lambda each: not each.deleted):
        found[await find_name(erasure.use.db.pool, instance)] = instance
    return found


async def _forget(archives: Archives, erasure: Erasure, name: str, instance: InstanceData) -> None:
    if await archives.head(instance.community_id, instance.community, name) is None:
        return
    report = erasure.report
    if instance.deleted:
        gone = (
            f"no new snapshot of {name} was written: the plugin was taken out of the community, and what is there stays"
        )
        report.notes = [*(note for note in report.notes if note != gone), gone]
    elif (reason := await _rewrite(archives, erasure, instance)) is not None:
        erasure.waits.append(f"no new snapshot of {name} could be written yet: {reason}")
    async with archives.reader(instance.community_id, instance.community, name) as reader:
        search = Search(erasure.spec, erasure.person, erasure.samples)
        newest_holds = False
        async for snapshot, manifest, found in holding(reader, search):
            erasure.say("snapshots", reader.manifest.seq - manifest.seq + 1, reader.manifest.seq)
            if found.tables or found.unreadable:
                newest = snapshot == reader.snapshot
                newest_holds = newest_holds or newest
                named = sorted({*found.tables, *found.unreadable})
                report.held.append(
                    Held(archives.url, name, manifest.seq, snapshot, named, sorted(found.unreadable), newest)
                )
        if not newest_holds:
            report.snapshots[name] = reader.snapshot


async def _rewrite(archives: Archives, erasure: Erasure, instance: InstanceData) -> str | None:
    """Archive the mirror anew. Returns why it could not be."""
    use = erasure.use
    if (reason := await use.pending(erasure.plugin)) is not None:
        return reason
    for _ in range(_TRIES):
        written = await archive_mirror(use, archives, instance, erasure.spec)
        if written is not None:
            _log.info("mirror archived without somebody", instance=instance.id, seq=written.head.seq)
            return None
        # What is being written just now has been read before, and is not the last word.
        await asyncio.sleep(_PAUSE_SECONDS)
    return "it is being archived elsewhere"


@dataclass(slots=True)
class Search:
    """What is looked for, and what is known of chunks by their digests."""

    spec: ProviderSpec
    person: Person
    samples: Mapping[str, Sequence[Key]] = field(default_factory=dict)
    known: dict[str, bool | None] = field(default_factory=dict)
    """None: the chunk cannot be read."""


@dataclass(frozen=True, slots=True)
class Found:
    """The tables of a snapshot that hold the person, and those of which a chunk is damaged and may."""

    tables: Collection[str]
    unreadable: Collection[str]


async def holding(reader: VerifiedReader, search: Search) -> AsyncIterator[tuple[str, Manifest, Found]]:
    """Yields each snapshot, newest first, with its manifest and what of it holds the person. Raises BrokenChain."""
    yield reader.snapshot, reader.manifest, await _look(reader, reader.snapshot, reader.manifest, search)
    async for snapshot, manifest in ancestors(reader.archive, reader.snapshot, reader.manifest, reader.trusted):
        yield snapshot, manifest, await _look(reader, snapshot, manifest, search)


async def _look(reader: VerifiedReader, snapshot: str, manifest: Manifest, search: Search) -> Found:
    tables, unreadable = [], []
    opened: VerifiedReader | None = reader if snapshot == reader.snapshot else None
    for table in manifest.tables:
        holds, damaged = _known(table, search)
        unread = [] if holds else [chunk for chunk in table.chunks if chunk.sha256 not in search.known]
        if unread:
            try:
                opened = opened or await reader.at(snapshot, manifest)
                record = search.spec.records.get(table.name.partition(".")[2])
                finder = _Finder(record, search.person)
                in_turn = list(_likely_first(opened, table, unread, search))
                async with contextlib.aclosing(opened.find(table.name, in_turn, finder)) as looked_at:
                    async for chunk, found in looked_at:
                        search.known[chunk.sha256] = found
                        holds, damaged = holds or bool(found), damaged or found is None
                        if holds:
                            break
            except CorruptArchive:
                # Its schema, so that nothing of the table can be read.
                damaged = True
        if holds:
            tables.append(table.name)
        elif damaged:
            unreadable.append(table.name)
    return Found(tables, unreadable)


def _known(table: TableEntry, search: Search) -> tuple[bool, bool]:
    said = [search.known.get(chunk.sha256, False) for chunk in table.chunks]
    return any(said), None in said


def _likely_first(
    reader: VerifiedReader, table: TableEntry, chunks: Sequence[ChunkEntry], search: Search
) -> Iterator[ChunkEntry]:
    rows = reader.format(table.name)
    keys = search.samples.get(table.name, ())
    ranges = [(rows.read_key(chunk.first_key), rows.read_key(chunk.last_key)) for chunk in chunks]
    try:
        likely = [any(first <= key <= last for key in keys) for first, last in ranges]
    except TypeError:
        # The key was another when this snapshot was written.
        likely = [False] * len(chunks)
    for wanted in (True, False):
        yield from (chunk for chunk, is_likely in zip(chunks, likely, strict=True) if is_likely is wanted)


@dataclass(frozen=True, slots=True)
class _Finder:
    """Says of a stored chunk whether it holds the person; None: it is not what it was. For a thread of its own."""

    record: type[Record] | None
    person: Person

    def __call__(self, stored: bytes, chunk: ChunkEntry, rows: RowFormat) -> bool | None:
        try:
            text = read_chunk(stored, chunk).decode(errors="replace")
            if not self.person.may_be_in(text):
                return False
            return any(self._holds(row) for some in read_rows(stored, chunk, rows) for row in some)
        except CorruptArchive:
            return None

    def _holds(self, row: Mapping[str, Any]) -> bool:
        if self.record is None:
            return self.person.is_in(dict(row))
        texts = [*texts_of(self.record), "extra"]
        return is_theirs(self.record.people, row, self.person) or self.person.is_in(
            {name: row[name] for name in texts if name in row}
        )
