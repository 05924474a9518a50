"""An archive with Ceramic as the witness of its HEAD, against the published interface."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from urllib.parse import quote

import pytest

from app.archives.read import open_archive
from app.archives.snapshot import write_snapshot
from app.archives.stores import Deployment, UnusableArchive, open_store
from app.archives.stores.ceramic import CeramicArchive
from app.archives.stores.ceramic_events import read_cid, read_multibase, read_stream_id
from metagov_sdk.archive import ArchiveAway, DataArchive, NotCanonical, RolledBack
from tests.archives.memory import make_source
from tests.fakes.ceramic import FakeCeramic, open_ceramic

MODEL = "kjzl6hvfrbw6c5i6zn8qehvvbx6yrgoqo47e1wwwrv3bbqz4dw6zq2ip9f0zl6w"
KEY = base64.b64encode(b"c" * 32).decode()


@pytest.fixture
async def ceramic() -> AsyncIterator[FakeCeramic]:
    async with open_ceramic() as fake:
        yield fake


def opened(fake: FakeCeramic, folder: Path, key: str = KEY) -> AbstractAsyncContextManager[DataArchive]:
    url = f"ceramic+{fake.url}?objects={quote(folder.as_uri(), safe='')}"
    return open_store(url, "town", "discord", Deployment({"CERAMIC_KEY": key, "CERAMIC_MODEL": MODEL}))


async def test_each_head_is_told(ceramic: FakeCeramic, tmp_path: Path) -> None:
    for count in (50, 51, 52):
        async with opened(ceramic, tmp_path) as archive:
            written = await write_snapshot(archive, make_source(messages=count))
    assert len(ceramic.events) == 4, "the stream's first event, and one per snapshot"
    async with opened(ceramic, tmp_path) as archive:
        assert isinstance(archive, CeramicArchive)
        state = ceramic.streams[archive.stream]
        said = read_multibase(state["data"])
        assert written.head.snapshot.encode() in said
        assert len(said) < 200, "the manifest's id and its number, and nothing else"
        assert await (await open_archive(archive, "discord", "town")).verify() == 102


async def test_a_folder_that_was_rolled_back(ceramic: FakeCeramic, tmp_path: Path) -> None:
    head = tmp_path / "town/discord/HEAD"
    async with opened(ceramic, tmp_path) as archive:
        await write_snapshot(archive, make_source(messages=50))
        old = head.read_bytes()
        await write_snapshot(archive, make_source(messages=51))
        head.write_bytes(old)
        with pytest.raises(RolledBack, match="number 1, and Ceramic was told of number 2"):
            await open_archive(archive, "discord", "town")
        head.unlink()
        with pytest.raises(RolledBack):
            await write_snapshot(archive, make_source(messages=52))
        head.write_bytes(old)
    # A rewritten second snapshot is another one.
    async with open_store(tmp_path.as_uri(), "town", "discord", Deployment()) as folder:
        await write_snapshot(folder, make_source(messages=99))
    async with opened(ceramic, tmp_path) as archive:
        with pytest.raises(RolledBack, match="another"):
            await archive.head()


async def test_a_node_that_takes_its_time(
    ceramic: FakeCeramic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.archives.stores.ceramic._PAUSE", 0.0)
    async with opened(ceramic, tmp_path) as archive:
        await write_snapshot(archive, make_source(messages=50))
        ceramic.lag = 5
        await write_snapshot(archive, make_source(messages=51))
        ceramic.lag = 10**6
        with pytest.raises(ArchiveAway, match="does not show it yet"):
            await write_snapshot(archive, make_source(messages=52))
        ceramic.lag = 0
        again = await write_snapshot(archive, make_source(messages=52))
        assert (again.moved, again.head.seq) == (False, 3)


async def test_a_stream_that_says_something_else(ceramic: FakeCeramic, tmp_path: Path) -> None:
    async with opened(ceramic, tmp_path) as archive:
        await write_snapshot(archive, make_source(messages=50))
        (name,) = ceramic.streams
        genuine = ceramic.streams[name]
        for change in ({"data": "u"}, {"data": "zzz"}, {"controller": "did:key:z6Mk"}, {"event_cid": "x"}, {"data": 5}):
            ceramic.streams[name] = {**genuine, **change}
            with pytest.raises(NotCanonical):
                await archive.head()


@pytest.mark.parametrize(
    ("url", "environment"),
    [
        ("ceramic+http://localhost:1", {}),
        ("ceramic+http://localhost:1?objects=ceramic%2Bhttp://x", {}),
        ("ceramic+http://localhost:1?objects=file:///x", {"CERAMIC_KEY": KEY}),
        ("ceramic+http://localhost:1?objects=file:///x", {"CERAMIC_MODEL": MODEL, "CERAMIC_KEY": "c2hvcnQ="}),
        ("ceramic+http://localhost:1?objects=ftp://x", {"CERAMIC_MODEL": MODEL, "CERAMIC_KEY": KEY}),
    ],
)
async def test_what_is_not_usable(url: str, environment: dict[str, str]) -> None:
    with pytest.raises(UnusableArchive):
        async with open_store(url, "town", "discord", Deployment(environment)):
            pass


@pytest.mark.parametrize("text", ["", "b", "z123", "b" + "a" * 500, "bé"])
def test_ids_that_are_none(text: str) -> None:
    for read in (read_cid, read_stream_id, read_multibase):
        with pytest.raises(ValueError):  # noqa: PT011 -- each says it in its own words
            read(text)
