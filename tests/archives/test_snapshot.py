"""Writing snapshots: the same bytes anywhere, nothing twice, writers at once, writers that die."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from app.archives.format import blob_name, manifest_name
from app.archives.read import SeenHead, ancestors, open_archive
from app.archives.snapshot import Remembered, write_snapshot
from app.archives.stores.filesystem import FilesystemArchive
from metagov_sdk.archive import ArchiveError, OutOfOrder, RolledBack, WrongValue
from tests.archives.forge import MemoryArchive
from tests.archives.memory import LIKES, MESSAGES, MemorySource, make_source, message

_ROOT = Path(__file__).parent.parent.parent


async def chain(archive: MemoryArchive | FilesystemArchive) -> list[str]:
    """The snapshots' ids, newest first."""
    reader = await open_archive(archive, "discord", "town")
    return [
        reader.snapshot,
        *[snapshot async for snapshot, _ in ancestors(archive, reader.snapshot, reader.manifest)],
    ]


async def test_the_bytes_of_a_snapshot() -> None:
    archive = MemoryArchive()
    written = await write_snapshot(archive, make_source(messages=300, likes=50), producer="a test")
    # Of the manifest, and with it of every row and of every blob as zstd packs it (another zstd may do it otherwise,
    # which costs an archive nothing). Otherwise changing it changes the format.
    assert written.head.snapshot == "189b9cba9fdcff77b27e4124bbe17773749f4a47d774b67adee316b7e331dea6"
    assert written.head.created_at == "2026-01-30T00:00:00.000000Z"
    head = orjson.loads(archive.head_data or b"")
    assert head["producer"] == "a test"
    for chunk in [chunk for table in archive.manifest()["tables"] for chunk in table["chunks"]]:
        assert not any(word in line for line in archive.rows(chunk) for word in (b"first_seen", b"synced_at"))
    assert b"a test" not in archive.objects[manifest_name(archive.snapshot)]


_WRITE = """
import asyncio, sys
from pathlib import Path
from app.archives.snapshot import write_snapshot
from app.archives.stores.filesystem import FilesystemArchive
from tests.archives.memory import make_source
source = make_source(messages=3000, likes=50, batch=int(sys.argv[2]))
asyncio.run(write_snapshot(FilesystemArchive(Path(sys.argv[1])), source, producer=sys.argv[2]))
"""


def test_two_machines_make_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for number, zone, locale in ((1, "Pacific/Kiritimati", "C"), (997, "America/St_Johns", "tr_TR.UTF-8")):
        folder = tmp_path / str(number)
        environment = {**os.environ, "TZ": zone, "PYTHONHASHSEED": str(number), "LC_ALL": locale, "LANG": locale}
        subprocess.run(
            [sys.executable, "-c", _WRITE, str(folder), str(number)], check=True, cwd=_ROOT, env=environment, timeout=60
        )
        made.append(
            {
                str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in folder.rglob("*")
                if path.is_file() and path.name not in ("HEAD", "lock")
            }
        )
    assert len(made[0]) > 8
    assert made[0] == made[1]


async def test_unchanged_chunks_are_neither_packed_nor_stored_again() -> None:
    archive, source = MemoryArchive(), make_source(messages=3000)
    first = await write_snapshot(archive, source)
    assert (first.moved, first.chunks_packed, first.rows) == (True, first.chunks, 3050)
    archive.added.clear()
    again = await write_snapshot(archive, source)
    assert (again.moved, again.chunks_packed, again.blobs_stored, archive.added) == (False, 0, 0, [])
    assert again.head.snapshot == first.head.snapshot
    # One edited message: one chunk and one manifest.
    table, rows = source.data["discord.message"]
    rows[7] = {**rows[7], "content": "edited"}
    edited = await write_snapshot(archive, source)
    assert (edited.moved, edited.chunks_packed, edited.blobs_stored) == (True, 1, 1)
    assert [name.split("/")[0] for name in archive.added] == ["blobs", "manifests"]
    # Synced again without a change: a manifest that says so, and no blob.
    archive.added.clear()
    source.data["discord.message"] = (replace(table, synced_at=rows[0]["created_at"]), rows)
    synced = await write_snapshot(archive, source)
    assert (synced.moved, synced.blobs_stored) == (True, 0)
    assert archive.added == [manifest_name(synced.head.snapshot)]
    assert (await chain(archive))[::-1] == [first.head.snapshot, edited.head.snapshot, synced.head.snapshot]


async def test_parts_whose_marks_are_as_they_were_are_not_read() -> None:
    archive, source = MemoryArchive(), make_source(messages=3000, marked=True)
    first = await write_snapshot(archive, source)
    remembered = Remembered(first.head.snapshot, first.marks)
    source.read.clear()
    again = await write_snapshot(archive, source, remembered=remembered)
    assert (again.moved, again.rows, again.rows_read, source.read.total()) == (False, 3050, 0, 0)
    _, rows = source.data["discord.message"]
    rows[7] = {**rows[7], "content": "edited"}
    source.touch(MESSAGES, rows[7])
    edited = await write_snapshot(archive, source, remembered=remembered)
    part = next(chunk for chunk in archive.manifest()["tables"][0]["chunks"] if chunk["partition"] == "501")
    assert (edited.chunks_packed, edited.rows_read) == (1, part["rows"])
    # The same bytes as those of a writer that remembers nothing.
    other = MemoryArchive()
    await write_snapshot(other, make_source(messages=3000, marked=True))
    await write_snapshot(other, source)
    assert other.snapshot == archive.snapshot
    # What is remembered of another snapshot than the newest is not used.
    source.read.clear()
    await write_snapshot(archive, source, remembered=remembered)
    assert source.read.total() == 3050


async def test_a_part_that_is_gone_leaves_the_snapshot() -> None:
    archive, source = MemoryArchive(), make_source(messages=300, marked=True)
    first = await write_snapshot(archive, source)
    table, rows = source.data["discord.message"]
    source.data["discord.message"] = (table, [row for row in rows if row["channel_id"] != "501"])
    second = await write_snapshot(archive, source, remembered=Remembered(first.head.snapshot, first.marks))
    assert {chunk["partition"] for chunk in archive.manifest()["tables"][0]["chunks"]} == {"500", "502"}
    assert second.rows == 250


async def test_two_writers_at_once() -> None:
    archive = MemoryArchive()
    await write_snapshot(archive, make_source(messages=300))

    async def other() -> None:
        written = await write_snapshot(archive, make_source(messages=310))
        assert (written.head.seq, written.attempts) == (2, 1)

    archive.before_head = other
    mine = await write_snapshot(archive, make_source(messages=320))
    assert (mine.head.seq, mine.attempts) == (3, 2)
    ids = await chain(archive)
    assert len(ids) == 3
    counts = []
    for snapshot in ids:
        reader = await open_archive(archive, "discord", "town", snapshot=snapshot)
        assert await reader.verify() == sum(table.rows for table in reader.tables())
        counts.append(reader.table("discord.message").rows)
    assert counts == [320, 310, 300], "nothing is lost"


async def test_a_writer_that_is_overtaken_by_the_same_has_nothing_to_do() -> None:
    archive = MemoryArchive()

    async def other() -> None:
        await write_snapshot(archive, make_source())

    archive.before_head = other
    mine = await write_snapshot(archive, make_source())
    assert (mine.moved, mine.head.seq, mine.attempts) == (False, 1, 2)


async def test_many_writers_of_one_folder(tmp_path: Path) -> None:
    stores = [FilesystemArchive(tmp_path / "a") for _ in range(8)]
    sources = [make_source(messages=100 + number) for number in range(8)]
    written = await asyncio.gather(*map(write_snapshot, stores, sources))
    assert sorted(each.head.seq for each in written) == list(range(1, 9))
    ids = await chain(stores[0])
    assert sorted(ids) == sorted(each.head.snapshot for each in written)


_WRITE_AND_DIE = """
import asyncio, os, signal, sys
from pathlib import Path
from app.archives.stores import filesystem
from app.archives.snapshot import write_snapshot
from tests.archives.memory import make_source
left = int(sys.argv[2])
def dying(real):
    def call(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return call
for name in ("fsync", "replace", "open"):
    setattr(os, name, dying(getattr(os, name)))
asyncio.run(write_snapshot(filesystem.FilesystemArchive(Path(sys.argv[1])), make_source(messages=1500)))
print("done")
"""


@pytest.mark.slow
def test_a_writer_killed_at_any_step_leaves_a_valid_head(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    asyncio.run(write_snapshot(FilesystemArchive(folder), make_source(messages=1000)))
    ends = []
    for step in (1, 2, 3, 4, 5, 7, 9, 12, 16, 20, 24, 28, 30, 31, 32, 33, 34, 35, 36, 40, 999):
        done = subprocess.run(
            [sys.executable, "-c", _WRITE_AND_DIE, str(folder), str(step)], cwd=_ROOT, capture_output=True, timeout=60
        )
        ends.append(done.returncode)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
        rows = asyncio.run(_verify(folder))
        assert rows in (1050, 1550)
        assert rows == 1550 or done.returncode != 0
        if rows == 1550 and ends.count(0) == 0:
            # It died after HEAD was set: the next ones find nothing to do. Start from where there is.
            asyncio.run(write_snapshot(FilesystemArchive(folder), make_source(messages=1000)))
    assert ends.count(-signal.SIGKILL) >= 8
    assert ends[-1] == 0
    assert asyncio.run(_verify(folder)) == 1550


async def _verify(folder: Path) -> int:
    return await (await open_archive(FilesystemArchive(folder), "discord", "town")).verify()


async def test_leftovers_of_another_writer_are_used_or_mended() -> None:
    clean = MemoryArchive()
    await write_snapshot(clean, make_source())
    first, second = [chunk["sha256"] for chunk in clean.manifest()["tables"][0]["chunks"]][:2]
    archive = MemoryArchive()
    archive.objects[blob_name(first)] = clean.objects[blob_name(first)]
    archive.objects[blob_name(second)] = clean.objects[blob_name(second)][:-5]
    written = await write_snapshot(archive, make_source())
    assert written.head.snapshot == clean.snapshot
    assert written.blobs_stored == written.chunks - 1 + 2, "two schemas, and not the blob that was there"
    assert await (await open_archive(archive, "discord", "town")).verify() == 350


@pytest.mark.parametrize("kind", [OutOfOrder, WrongValue])
async def test_a_source_that_cannot_be_archived_changes_nothing(kind: type[ArchiveError]) -> None:
    archive = MemoryArchive()
    await write_snapshot(archive, make_source())
    before = archive.head_data

    class Shuffled(MemorySource):
        async def rows(self, table, without):  # type: ignore[no-untyped-def]
            row = message(5) if kind is OutOfOrder else message(5, extra={"a": float("inf")})
            yield [message(4), message(5), row]

    with pytest.raises(kind):
        await write_snapshot(archive, Shuffled(make_source().data))
    assert archive.head_data == before


async def test_an_archive_of_another_community_is_left_alone() -> None:
    archive = MemoryArchive()
    await write_snapshot(archive, make_source())
    with pytest.raises(ArchiveError, match="'city'"):
        await write_snapshot(archive, make_source(community="city"))
    with pytest.raises(RolledBack):
        await write_snapshot(MemoryArchive(), make_source(), seen=SeenHead(1, archive.snapshot))


async def test_a_column_more_keeps_what_was(tmp_path: Path) -> None:
    archive, source = MemoryArchive(), make_source(marked=True)
    first = await write_snapshot(archive, source)
    table, rows = source.data["discord.reaction"]
    schema = {**LIKES.json_schema, "properties": {**LIKES.json_schema["properties"], "burst": {"type": "boolean"}}}
    source.data["discord.reaction"] = (replace(table, json_schema=schema), rows)
    second = await write_snapshot(archive, source, remembered=Remembered(first.head.snapshot, first.marks))
    # Read again, as the marks are of another shape; the rows are written as they were, so no chunk is new.
    assert (second.moved, second.rows_read, second.chunks_packed, second.blobs_stored) == (True, 50, 0, 1)
