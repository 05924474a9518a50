"""What is not what was written is refused, each kind by its name; forgeries whose digests all fit, too."""

from __future__ import annotations

import base64
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.archives.format import (
    LARGEST_BLOB,
    Signer,
    blob_name,
    digest,
    manifest_name,
    pack,
    signature_name,
    unpack,
)
from app.archives.read import SeenHead, VerifiedReader, ancestors, open_archive
from app.archives.snapshot import write_snapshot
from metagov_sdk.archive import (
    ArchiveError,
    BadDigest,
    BadSignature,
    BrokenChain,
    CorruptArchive,
    MissingFields,
    MissingObject,
    NoSnapshot,
    NotCanonical,
    OutOfOrder,
    RolledBack,
    Row,
    TooLarge,
    Truncated,
    UnknownTable,
    WrongValue,
)
from tests.archives.forge import MemoryArchive
from tests.archives.memory import make_source

KEY = base64.b64encode(b"k" * 32).decode()
OTHER = base64.b64encode(b"o" * 32).decode()


class Message(Row, table="discord.message"):
    """What a reader wants to know."""

    id: str
    channel_id: str
    author_id: str | None
    length: int


async def read_all(archive: MemoryArchive, **options: Any) -> int:
    """Open, verify, walk the chain: what `metagov archive verify` does."""
    reader = await open_archive(archive, "discord", "town", **options)
    async for _ in ancestors(archive, reader.snapshot, reader.manifest, reader.trusted):
        pass
    return await reader.verify()


@pytest.fixture
async def archive() -> MemoryArchive:
    made = MemoryArchive()
    await write_snapshot(made, make_source(messages=3000, likes=50))
    assert await read_all(made) == 3050
    return made


def first_chunk(manifest: Any, table: int = 0) -> Any:
    return manifest["tables"][table]["chunks"][0]


async def test_a_flipped_bit_anywhere(archive: MemoryArchive) -> None:
    named: dict[str, set[str]] = {}
    for name, data in list(archive.objects.items()):
        for bit in range(0, len(data) * 8, max(1, len(data) * 8 // 40)):
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            archive.objects[name] = bytes(damaged)
            with pytest.raises(CorruptArchive) as refused:
                await read_all(archive)
            named.setdefault(name.split("/")[0], set()).add(type(refused.value).__name__)
        archive.objects[name] = data
    # A schema is small and has a digest only of what is packed: its frame's header is read first.
    assert named["manifests"] == {"BadDigest"}
    assert "BadDigest" in named["blobs"] <= {"BadDigest", "TooLarge", "Truncated"}
    assert await read_all(archive) == 3050


async def test_one_flipped_bit_of_a_chunk(archive: MemoryArchive) -> None:
    name = blob_name(first_chunk(archive.manifest())["sha256"])
    data = bytearray(archive.objects[name])
    data[len(data) // 2] ^= 1
    archive.objects[name] = bytes(data)
    with pytest.raises(BadDigest, match="stored bytes"):
        await read_all(archive)


@pytest.mark.parametrize("kept", [0, 1, 10, -1])
async def test_a_truncated_blob(archive: MemoryArchive, kept: int) -> None:
    name = blob_name(first_chunk(archive.manifest())["sha256"])
    archive.objects[name] = archive.objects[name][:kept]
    with pytest.raises(Truncated):
        await read_all(archive)


async def test_a_blob_that_is_too_long(archive: MemoryArchive) -> None:
    name = blob_name(first_chunk(archive.manifest())["sha256"])
    archive.objects[name] += b"x"
    with pytest.raises(TooLarge):
        await read_all(archive)


async def test_a_blob_that_is_gone(archive: MemoryArchive) -> None:
    del archive.objects[blob_name(first_chunk(archive.manifest())["sha256"])]
    with pytest.raises(MissingObject):
        await read_all(archive)


async def test_rows_in_another_order(archive: MemoryArchive) -> None:
    manifest = archive.manifest()
    chunk = first_chunk(manifest)
    lines = archive.rows(chunk)
    lines[5], lines[6] = lines[6], lines[5]
    archive.forge_rows(chunk, lines)
    archive.forge(manifest)
    with pytest.raises(OutOfOrder, match="does not come after"):
        await read_all(archive)


async def test_rows_in_another_order_under_the_old_digests(archive: MemoryArchive) -> None:
    chunk = first_chunk(archive.manifest())
    lines = archive.rows(chunk)
    archive.objects[blob_name(chunk["sha256"])] = pack(b"".join(reversed(lines)))
    with pytest.raises((BadDigest, Truncated, TooLarge)):
        await read_all(archive)


Damage = Callable[[MemoryArchive, Any], None]


def _chunks_swapped(archive: MemoryArchive, manifest: Any) -> None:
    chunks = manifest["tables"][0]["chunks"]
    chunks[0], chunks[1] = chunks[1], chunks[0]


def _row_of_another_month(archive: MemoryArchive, manifest: Any) -> None:
    chunk = first_chunk(manifest)
    archive.forge_rows(chunk, [line.replace(b'd_at":"2025-11', b'd_at":"2025-10', 1) for line in archive.rows(chunk)])


def _row_of_another_channel(archive: MemoryArchive, manifest: Any) -> None:
    chunk = first_chunk(manifest)
    lines = archive.rows(chunk)
    archive.forge_rows(chunk, [lines[0].replace(b'"channel_id":"500"', b'"channel_id":"501"'), *lines[1:]])


def _row_left_out(archive: MemoryArchive, manifest: Any) -> None:
    chunk = first_chunk(manifest)
    rows = chunk["rows"]
    archive.forge_rows(chunk, archive.rows(chunk)[:-1])
    chunk["rows"] = rows


def _last_row_left_out(archive: MemoryArchive, manifest: Any) -> None:
    chunk = first_chunk(manifest)
    archive.forge_rows(chunk, archive.rows(chunk)[:-1])
    manifest["tables"][0]["rows"] -= 1


def _key_that_is_null(archive: MemoryArchive, manifest: Any) -> None:
    chunk = first_chunk(manifest)
    archive.forge_rows(chunk, [line.replace(b'"id":', b'"extra":') for line in archive.rows(chunk)])


def _reversed(line: bytes) -> bytes:
    return orjson.dumps(dict(reversed(orjson.loads(line).items()))) + b"\n"


def _each_line(change: Callable[[bytes], bytes]) -> Damage:
    def damage(archive: MemoryArchive, manifest: Any) -> None:
        chunk = first_chunk(manifest)
        archive.forge_rows(chunk, [change(line) for line in archive.rows(chunk)])

    return damage


def _before_pinned(text: bytes) -> Damage:
    return _each_line(lambda line: line.replace(b'"pinned"', text + b'"pinned"'))


def _data(change: Callable[[bytes], bytes]) -> Damage:
    def damage(archive: MemoryArchive, manifest: Any) -> None:
        chunk = first_chunk(manifest)
        archive.forge_blob(chunk, change(b"".join(archive.rows(chunk))))

    return damage


def _stored(change: Callable[[bytes], bytes]) -> Damage:
    def damage(archive: MemoryArchive, manifest: Any) -> None:
        chunk = first_chunk(manifest)
        data = b"".join(archive.rows(chunk))
        archive.forge_blob(chunk, data, change(data))

    return damage


def _streamed(data: bytes) -> bytes:
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(data) + packer.flush()


def _bomb(data: bytes) -> bytes:
    return pack(b"\0" * (LARGEST_BLOB + 1))


def _lying_bomb(data: bytes) -> bytes:
    """A frame whose header claims an exabyte."""
    return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**60) + b"\0" * 20


def _manifest(**changes: Any) -> Damage:
    return lambda archive, manifest: manifest.update(changes)


def _table(**changes: Any) -> Damage:
    return lambda archive, manifest: manifest["tables"][0].update(changes)


def _chunk(**changes: Any) -> Damage:
    return lambda archive, manifest: first_chunk(manifest).update(changes)


FORGERIES: dict[str, tuple[type[ArchiveError], Damage]] = {
    "chunks swapped": (OutOfOrder, _chunks_swapped),
    "a chunk twice": (OutOfOrder, lambda _, manifest: manifest["tables"][0]["chunks"].insert(0, first_chunk(manifest))),
    "a row of another month": (OutOfOrder, _row_of_another_month),
    "a row of another channel": (OutOfOrder, _row_of_another_channel),
    "a row left out": (NotCanonical, _row_left_out),
    "the last row left out": (OutOfOrder, _last_row_left_out),
    "a key that is null": (NotCanonical, _key_that_is_null),
    "spaces": (NotCanonical, _each_line(lambda line: line.replace(b'":', b'": ', 1))),
    "a null": (NotCanonical, _each_line(lambda line: line.replace(b'"author_id"', b'"author_id":null,"x"', 1))),
    "a name twice": (NotCanonical, _each_line(lambda line: b'{"channel_id":"500",' + line[1:])),
    "names in another order": (NotCanonical, _each_line(_reversed)),
    "a float": (NotCanonical, _each_line(lambda line: line.replace(b'"extra":{}', b'"extra":{"a":1.5}'))),
    "a small integer as text": (NotCanonical, _before_pinned(b'"length":"5",')),
    "a column that nobody knows": (NotCanonical, _before_pinned(b'"pinnec":1,')),
    "a character escaped": (NotCanonical, _each_line(lambda line: line.replace(b"apple", b"\\u0061pple"))),
    "two rows in a line": (NotCanonical, _each_line(lambda line: line.replace(b"}\n", b"},{}\n"))),
    "no JSON": (NotCanonical, _data(lambda data: b"x" * len(data))),
    "no object": (NotCanonical, _each_line(lambda line: b"5\n")),
    "deep JSON": (NotCanonical, _data(lambda data: b'{"extra":' + b"[" * 10**6 + b"]" * 10**6 + b"}\n")),
    "no line end": (NotCanonical, _data(lambda data: data[:-1])),
    "an empty line": (NotCanonical, _data(lambda data: data + b"\n")),
    "a bomb": (TooLarge, _stored(_bomb)),
    "a bomb that lies": (TooLarge, _stored(_lying_bomb)),
    "a frame without its size": (TooLarge, _stored(_streamed)),
    "a frame that stops early": (Truncated, _stored(lambda data: pack(data)[:-10])),
    "two frames": (BadDigest, _stored(lambda data: pack(data) + pack(data))),
    "no frame": (BadDigest, _stored(lambda data: data)),
    "a path for a digest": (NotCanonical, _chunk(sha256="../../../../etc/passwd")),
    "a path for a table": (NotCanonical, _table(name="../x")),
    "a path for a schema": (NotCanonical, _table(schema_sha256="/etc/passwd")),
    "a path for the previous": (NotCanonical, _manifest(previous="../HEAD")),
    "a negative length": (NotCanonical, _chunk(bytes=-1)),
    "a length past all bounds": (NotCanonical, _chunk(bytes=2**40)),
    "a stored length past all bounds": (NotCanonical, _chunk(stored_bytes=2**40)),
    "a length as text": (NotCanonical, _chunk(bytes="5")),
    "a field that nobody knows": (NotCanonical, _manifest(producer="me")),
    "another format": (NotCanonical, _manifest(format="metagov-archive/2")),
    "a key of two": (NotCanonical, _chunk(first_key=["1", "2"])),
    "keys the wrong way round": (OutOfOrder, _chunk(last_key=["0"])),
    "another first key": (OutOfOrder, _chunk(first_key=["0"])),
    "a key that no column is": (NotCanonical, _table(key=["none"])),
    "another count": (NotCanonical, _table(rows=5)),
    "a chunk of another partition": (OutOfOrder, _chunk(partition="4")),
    "another community's": (BrokenChain, _manifest(community="city")),
    "another provider's": (BrokenChain, _manifest(provider="slack")),
    "a number with none before": (BrokenChain, _manifest(seq=7)),
    "a previous that is not there": (BrokenChain, _manifest(seq=2, previous="0" * 64)),
    "a schema that is not there": (MissingObject, _table(schema_sha256="0" * 64)),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
async def test_a_forgery(archive: MemoryArchive, name: str) -> None:
    kind, damage = FORGERIES[name]
    manifest = archive.manifest()
    damage(archive, manifest)
    archive.forge(manifest)
    with pytest.raises(kind) as refused:
        await read_all(archive)
    assert type(refused.value) is kind
    assert len(str(refused.value)) < 600


async def collect(rows: AsyncIterator[Message], into: list[Message]) -> None:
    async for row in rows:
        into.append(row)


async def test_nothing_of_a_damaged_chunk_is_handed_on(archive: MemoryArchive) -> None:
    manifest = archive.manifest()
    chunks = manifest["tables"][0]["chunks"]
    damaged = chunks[2]
    archive.objects[blob_name(damaged["sha256"])] = b"x" * damaged["stored_bytes"]
    reader = await open_archive(archive, "discord", "town")
    found: list[Message] = []
    rows = reader.rows(Message, deleted=True)
    with pytest.raises(BadDigest):
        await collect(rows, found)
    assert len(found) == chunks[0]["rows"] + chunks[1]["rows"]


async def test_a_manifest_that_is_not_canonical(archive: MemoryArchive) -> None:
    data = orjson.dumps(archive.manifest(), option=orjson.OPT_INDENT_2)
    archive.objects[manifest_name(digest(data))] = data
    archive.head_data = (archive.head_data or b"").replace(archive.snapshot.encode(), digest(data).encode())
    with pytest.raises(NotCanonical):
        await read_all(archive)


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"[" * 100_000, b"\xff", b'{"format":"metagov-archive-head/1"}'])
async def test_a_head_that_is_none(archive: MemoryArchive, data: bytes) -> None:
    archive.head_data = data
    with pytest.raises(NotCanonical):
        await read_all(archive)


async def test_a_head_that_went_back(archive: MemoryArchive) -> None:
    old, first = archive.head_data, archive.snapshot
    await write_snapshot(archive, make_source(messages=3001))
    seen = SeenHead(2, archive.snapshot)
    assert await read_all(archive, seen=seen) == 3051
    assert await read_all(archive, seen=SeenHead(1, first)) == 3051
    archive.head_data = old
    with pytest.raises(RolledBack, match="number 1, and was at 2"):
        await read_all(archive, seen=seen)
    archive.head_data = None
    with pytest.raises(RolledBack):
        await read_all(archive, seen=seen)
    archive.head_data = old
    await write_snapshot(archive, make_source(messages=3002))
    with pytest.raises(RolledBack, match="another than the one seen"):
        await read_all(archive, seen=seen)
    await write_snapshot(archive, make_source(messages=3003))
    with pytest.raises(BrokenChain, match="descend"):
        await read_all(archive, seen=seen)
    with pytest.raises(RolledBack):
        await write_snapshot(archive, make_source(messages=3004), seen=SeenHead(9, "0" * 64))


async def test_a_manifest_missing_from_the_chain(archive: MemoryArchive) -> None:
    first = archive.snapshot
    await write_snapshot(archive, make_source(messages=3001))
    del archive.objects[manifest_name(first)]
    with pytest.raises(BrokenChain):
        await read_all(archive)


async def test_signatures() -> None:
    archive = MemoryArchive()
    signer, other = Signer(KEY), Signer(OTHER)
    await write_snapshot(archive, make_source(), signer=signer)
    trusted = [signer.public_key]
    assert await read_all(archive, trusted=trusted) == 350
    with pytest.raises(BadSignature, match="not one of the trusted"):
        await read_all(archive, trusted=[other.public_key])
    name = signature_name(archive.snapshot)
    genuine = archive.objects[name]
    said = orjson.loads(genuine)
    for change in (
        {"signature": said["signature"][:-4] + "AAA="},
        {"signature": 5},
        {"public_key": None},
        {"algorithm": "none"},
    ):
        archive.objects[name] = orjson.dumps({**said, **change})
        with pytest.raises(BadSignature):
            await read_all(archive, trusted=trusted)
    for data in (b"", b"[]", b"\xff"):
        archive.objects[name] = data
        with pytest.raises(BadSignature, match="malformed"):
            await read_all(archive, trusted=trusted)
    del archive.objects[name]
    with pytest.raises(BadSignature, match="not signed"):
        await read_all(archive, trusted=trusted)
    # A signature is of one manifest: that of an earlier one does not do.
    archive.objects[name] = genuine
    await write_snapshot(archive, make_source(messages=301))
    archive.objects[signature_name(archive.snapshot)] = genuine
    with pytest.raises(BadSignature, match="does not fit"):
        await read_all(archive, trusted=trusted)


@pytest.mark.parametrize("key", ["", "x", base64.b64encode(b"short").decode()])
def test_a_key_that_is_none(key: str) -> None:
    with pytest.raises(ValueError, match="32 bytes in base64"):
        Signer(key)


async def test_what_is_not_there() -> None:
    archive = MemoryArchive()
    with pytest.raises(NoSnapshot, match="nothing"):
        await open_archive(archive, "discord", "town")
    await write_snapshot(archive, make_source())
    with pytest.raises(NoSnapshot):
        await open_archive(archive, "discord", "town", snapshot="0" * 64)
    reader = await open_archive(archive, "discord", "town")
    with pytest.raises(UnknownTable, match=r"it has discord\.message, discord\.reaction"):
        reader.table("discord.channel")


async def reader_of(messages: int) -> VerifiedReader:
    archive = MemoryArchive()
    await write_snapshot(archive, make_source(messages=messages))
    return await open_archive(archive, "discord", "town")


async def test_readers_bind_rows_of_their_own() -> None:
    reader = await reader_of(300)
    source = make_source(300)
    alive = {row["id"]: row for row in source.data["discord.message"][1] if row["deleted_at"] is None}
    found = [row async for row in reader.rows(Message)]
    assert {row.id for row in found} == alive.keys()
    for row in found:
        assert (row.channel_id, row.author_id, row.length) == tuple(
            alive[row.id][name] for name in ("channel_id", "author_id", "length")
        )
    assert len([row async for row in reader.rows(Message, deleted=True)]) == 300
    assert {row.channel_id async for row in reader.rows(Message, partition="501")} == {"501"}
    middle = sorted(row["created_at"] for row in alive.values())[150]
    since = {row.id async for row in reader.rows(Message, since=middle)}
    assert since == {key for key, row in alive.items() if row["created_at"] >= middle}


async def test_fields_that_a_table_lacks_are_named_before_the_first_row() -> None:
    class Wrong(Row, table="discord.message"):
        """Wants what is not there."""

        id: str
        title: str
        colour: int
        pinned: str

    reader = await reader_of(10)
    with pytest.raises(MissingFields, match=r"has no colour, title.*pinned \(boolean there, text declared\)"):
        _ = [row async for row in reader.rows(Wrong)]


async def test_a_value_that_a_row_does_not_take() -> None:
    class Strict(Row, table="discord.message"):
        """Wants an author always."""

        id: str
        author_id: str

    reader = await reader_of(30)
    with pytest.raises(WrongValue, match=r"Strict\.author_id"):
        _ = [row async for row in reader.rows(Strict, deleted=True)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.binary(max_size=300))
def test_unpacking_anything_is_refused_or_bounded(data: bytes) -> None:
    with contextlib.suppress(CorruptArchive):
        assert len(unpack(data, "it", 1000)) <= 1000
