"""Which snapshots hold a person: exactly those, each chunk read once and no more of them than it takes."""

from __future__ import annotations

from typing import Any

from app.archives.forget import Search, holding
from app.archives.format import blob_name
from app.archives.read import open_archive
from app.archives.snapshot import write_snapshot
from app.identity.person import Person
from metagov_sdk.provider import ProviderSpec
from plugins.discord import manifest
from tests.archives.forge import MemoryArchive
from tests.archives.memory import MESSAGES, MemorySource, make_source, message

EVE = "902000000000000001"
SOME = 120


class CountingArchive(MemoryArchive):
    """Counts how often each blob is read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    async def read(self, name: str, most: int) -> bytes:
        self.reads.append(name)
        return await super().read(name, most)


def source_of(rows: list[dict[str, Any]]) -> MemorySource:
    made = make_source(messages=0, likes=0)
    made.data["discord.message"] = (MESSAGES, rows)
    return made


def messages(**changed: Any) -> list[dict[str, Any]]:
    """Of which number 7 is another."""
    return [message(number, **(changed if number == 7 else {})) for number in range(SOME)]


async def search(archive: MemoryArchive, **known: Any) -> dict[int, tuple[list[str], list[str]]]:
    """By the snapshot's number: the tables that hold her, and those that may."""
    provider = manifest.provider
    assert isinstance(provider, ProviderSpec)
    person = Person(EVE, ("eve_quill",), (f"<@{EVE}>", "@eve_quill"))
    reader = await open_archive(archive, "discord", "town")
    found = {}
    async for _, snapshot, said in holding(reader, Search(provider, person, **known)):
        found[snapshot.seq] = (sorted(said.tables), sorted(said.unreadable))
    return {seq: said for seq, said in found.items() if any(said)}


HOLDS: tuple[list[str], list[str]] = (["discord.message"], [])


async def test_each_way_of_holding_somebody_is_found() -> None:
    archive = MemoryArchive()
    told = [
        messages(),
        messages(author_id=EVE),
        messages(content=f"with <@{EVE}> in it"),
        messages(content="as @eve_quill says"),
        messages(extra={"interaction": {"user": {"id": EVE}}}),
        messages(extra={"poster_username": "eve_quill"}),
        # Neither is she.
        messages(author_id=EVE + "7", content="@eve_quills and eve_quill", extra={"count": int(EVE[:4])}),
        messages(content="nobody"),
    ]
    for rows in told:
        await write_snapshot(archive, source_of(rows))
    assert await search(archive) == dict.fromkeys(range(2, 7), HOLDS)


async def test_a_chunk_is_read_once_however_many_snapshots_have_it() -> None:
    archive = CountingArchive()
    for extra in range(6):
        rows = messages(author_id=EVE) if extra < 4 else messages()
        await write_snapshot(archive, source_of([*rows, *(message(SOME + 30 * n) for n in range(extra))]))
    archive.reads.clear()
    assert await search(archive) == dict.fromkeys(range(1, 5), HOLDS)
    blobs = [name for name in archive.reads if name.startswith("blobs/")]
    chunks = {blob_name(chunk["sha256"]) for chunk in archive.manifest()["tables"][0]["chunks"]}
    assert chunks
    assert all(blobs.count(name) <= 1 for name in chunks)


async def test_what_was_just_taken_out_tells_where_to_look_first() -> None:
    archive = CountingArchive()
    rows = [message(number, channel_id=str(10_000 + number)) for number in range(SOME)]
    await write_snapshot(archive, source_of([*rows[:-1], {**rows[-1], "author_id": EVE}]))
    counted = []
    for samples in ({}, {"discord.message": [(rows[-1]["id"],)]}):
        archive.reads.clear()
        assert await search(archive, samples=samples) == {1: HOLDS}
        counted.append(len(archive.reads))
    assert counted[0] > SOME
    # The manifest, the schema, the chunk, and what was on its way beside it.
    assert counted[1] < 10


async def test_what_is_damaged_may_hold_somebody() -> None:
    archive = MemoryArchive()
    await write_snapshot(archive, source_of(messages(content="first")))
    chunks = archive.manifest()["tables"][0]["chunks"]
    await write_snapshot(archive, source_of(messages(content="second", author_id=EVE)))
    kept = {chunk["sha256"] for chunk in archive.manifest()["tables"][0]["chunks"]}
    await write_snapshot(archive, source_of(messages(content="third")))
    gone = next(chunk["sha256"] for chunk in chunks if chunk["sha256"] not in kept)
    archive.objects[blob_name(gone)] = b"nothing of it"
    assert await search(archive) == {1: ([], ["discord.message"]), 2: HOLDS}
