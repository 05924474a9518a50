"""Every store keeps the same promises; and GitHub's is checked with plain git, S3's against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from starlette.responses import JSONResponse, Response

from app.archives.format import blob_name, digest
from app.archives.read import ancestors, open_archive
from app.archives.snapshot import write_snapshot
from app.archives.stores import Deployment, UnusableArchive, open_store
from app.archives.stores.github import GitHubArchive, Pace, git_id
from metagov_sdk.archive import (
    ArchiveAway,
    BadDigest,
    CorruptArchive,
    DataArchive,
    Head,
    HeadMoved,
    MissingObject,
    TooLarge,
)
from tests.archives.memory import make_source
from tests.fakes.github_git import FakeGitHub, open_github

Open = Callable[[], AbstractAsyncContextManager[DataArchive]]


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    """A local S3."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_url: str, request: pytest.FixtureRequest) -> str:
    """A bucket of the test's own."""
    name = f"b-{digest(request.node.nodeid.encode())[:30]}"
    s3(s3_url).create_bucket(Bucket=name)
    return name


def s3(url: str):  # type: ignore[no-untyped-def]
    """Amazon's own client."""
    return boto3.client(
        "s3", endpoint_url=url, aws_access_key_id="key", aws_secret_access_key="secret", region_name="us-east-1"
    )


@pytest.fixture
async def github(tmp_path: Path) -> AsyncIterator[FakeGitHub]:
    """A repository with a first commit."""
    async with open_github(tmp_path / "repo.git") as fake:
        fake.first_commit()
        yield fake


def github_opener(fake: FakeGitHub, url: str = "github://owner/repo/archives") -> Open:
    deployment = Deployment({"GITHUB_API_URL": fake.url, "GITHUB_TOKEN": fake.token})
    return lambda: open_store(url, "town", "discord", deployment)


def s3_opener(url: str, bucket: str) -> Open:
    environment = {"S3_ENDPOINT": url, "S3_ACCESS_KEY_ID": "key", "S3_SECRET_ACCESS_KEY": "secret"}
    return lambda: open_store(f"s3://{bucket}/some/prefix", "town", "discord", Deployment(environment))


def file_opener(folder: Path) -> Open:
    return lambda: open_store(folder.as_uri(), "town", "discord", Deployment())


@pytest.fixture(params=["file", "github", "s3"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """How to open an archive, again and again the same."""
    if request.param == "github":
        return github_opener(request.getfixturevalue("github"))
    if request.param == "s3":
        return s3_opener(request.getfixturevalue("s3_url"), request.getfixturevalue("bucket"))
    return file_opener(tmp_path / "an archive")


async def test_objects_and_head(opener: Open) -> None:
    name, other = "blobs/ab/" + "ab" * 32 + ".zst", "manifests/" + "cd" * 32 + ".json"
    async with opener() as archive:
        before = await archive.head()
        assert before.data is None
        assert await archive.missing([name, other]) == {name, other}
        assert await archive.add(name, b"one")
        await archive.move_head(b"first", before)
    async with opener() as archive:
        first = await archive.head()
        assert first.data == b"first"
        assert await archive.missing([name, other]) == {other}
        assert await archive.read(name, 3) == b"one"
        with pytest.raises(TooLarge):
            await archive.read(name, 2)
        with pytest.raises(MissingObject):
            await archive.read(other, 100)
        assert not await archive.add(name, b"two")
        assert await archive.read(name, 100) == b"one"
        assert await archive.add(name, b"three", replace=True)
        with pytest.raises(HeadMoved):
            await archive.move_head(b"second", before)
        await archive.move_head(b"second", first)
        with pytest.raises(HeadMoved):
            await archive.move_head(b"third", first)
    async with opener() as archive:
        assert (await archive.head()).data == b"second"
        assert await archive.read(name, 100) == b"three"


async def test_of_two_heads_at_once_one_is_set(opener: Open) -> None:
    async with opener() as one, opener() as two:
        heads = await one.head(), await two.head()
        results = await asyncio.gather(
            one.move_head(b"one", heads[0]), two.move_head(b"two", heads[1]), return_exceptions=True
        )
        lost = [result for result in results if result is not None]
        assert [type(result) for result in lost] == [HeadMoved]
        assert (await one.head()).data == (b"two" if results[0] else b"one")


async def test_snapshots_are_written_read_and_written_on_top(opener: Open) -> None:
    async with opener() as archive:
        first = await write_snapshot(archive, make_source(messages=300))
    async with opener() as archive:
        again = await write_snapshot(archive, make_source(messages=300))
        assert (again.moved, again.blobs_stored) == (False, 0)
    async with opener() as archive:
        second = await write_snapshot(archive, make_source(messages=301))
        assert (second.moved, second.chunks_packed, second.blobs_stored) == (True, 1, 1)
    async with opener() as archive:
        reader = await open_archive(archive, "discord", "town")
        assert await reader.verify() == 351
        assert [each async for each, _ in ancestors(archive, reader.snapshot, reader.manifest)] == [first.head.snapshot]
        assert await (await open_archive(archive, "discord", "town", snapshot=first.head.snapshot)).verify() == 350


async def test_two_writers_on_one_archive(opener: Open) -> None:
    async with opener() as one, opener() as two:
        written = await asyncio.gather(
            write_snapshot(one, make_source(messages=100)), write_snapshot(two, make_source(messages=200))
        )
        assert sorted(each.head.seq for each in written) == [1, 2]
    async with opener() as archive:
        for each in written:
            reader = await open_archive(archive, "discord", "town", snapshot=each.head.snapshot)
            assert await reader.verify() == each.rows


# The folder


async def test_a_link_in_a_folder_leads_nowhere(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    async with file_opener(tmp_path / "a")() as archive:
        await archive.move_head(b"1", await archive.head())
        (tmp_path / "a/town/discord/blob").symlink_to(secret)
        with pytest.raises(ArchiveAway):
            await archive.read("blob", 100)
        os.mkfifo(tmp_path / "a/town/discord/pipe")
        with pytest.raises(MissingObject):
            await archive.read("pipe", 100)


async def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    async with file_opener(tmp_path / "file")() as archive:
        with pytest.raises(ArchiveAway, match="cannot be used"):
            await archive.move_head(b"1", Head(None, "none"))


def test_the_lock_ends_with_its_holder(tmp_path: Path) -> None:
    code = """
import fcntl, os, sys, pathlib
folder = pathlib.Path(sys.argv[1]); folder.mkdir(parents=True)
lock = open(folder / "lock", "ab"); fcntl.flock(lock, fcntl.LOCK_EX); print("held", flush=True); sys.stdin.read()
"""
    held = subprocess.Popen(
        ["python3", "-c", code, str(tmp_path / "town/discord")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert held.stdout is not None
    held.stdout.readline()

    async def move() -> None:
        async with file_opener(tmp_path)() as archive:
            moving = asyncio.create_task(archive.move_head(b"1", await archive.head()))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(moving), 0.3)
            assert not moving.done()
            held.kill()
            await asyncio.wait_for(moving, 10)
            assert (await archive.head()).data == b"1"

    asyncio.run(move())
    held.communicate()
    assert stat.S_ISREG((tmp_path / "town/discord/HEAD").stat().st_mode)


# GitHub


def git(*arguments: str, data: bytes = b"") -> bytes:
    done = subprocess.run(["git", *arguments], input=data, check=True, capture_output=True, timeout=60)
    return done.stdout


async def test_plain_git_reads_the_archive(github: FakeGitHub, tmp_path: Path) -> None:
    async with github_opener(github)() as archive:
        await write_snapshot(archive, make_source(messages=300))
        written = await write_snapshot(archive, make_source(messages=400))
    clone = tmp_path / "clone"
    await asyncio.to_thread(git, "clone", "--quiet", str(github.folder), str(clone))
    await asyncio.to_thread(git, "-C", str(clone), "fsck", "--strict")
    for line in (
        (await asyncio.to_thread(git, "-C", str(clone), "ls-tree", "-r", "HEAD", "archives")).decode().splitlines()
    ):
        _, _, sha, path = line.split(maxsplit=3)
        hashed = await asyncio.to_thread(git, "hash-object", str(clone / path))
        assert hashed.decode().strip() == sha == git_id(b"blob", (clone / path).read_bytes())
    # The clone is an archive by itself.
    async with open_store((clone / "archives").as_uri(), "town", "discord", Deployment()) as folder:
        reader = await open_archive(folder, "discord", "town")
        assert (reader.snapshot, await reader.verify()) == (written.head.snapshot, 450)
    log = (await asyncio.to_thread(git, "-C", str(clone), "log", "--format=%s")).decode().splitlines()
    assert log == ["Snapshot of archives/town/discord"] * 2 + ["first"]


async def test_only_missing_blobs_are_sent(github: FakeGitHub) -> None:
    opened = github_opener(github)
    async with opened() as archive:
        first = await write_snapshot(archive, make_source(messages=3000))
    assert github.counts["POST blobs"] == first.blobs_stored + 2, "and the manifest and HEAD"
    github.counts.clear()
    async with opened() as archive:
        await write_snapshot(archive, make_source(messages=3000))
    assert sum(count for kind, count in github.counts.items() if not kind.startswith("GET")) == 0
    async with opened() as archive:
        await write_snapshot(archive, make_source(messages=3001))
    posted = {kind: count for kind, count in github.counts.items() if not kind.startswith("GET")}
    assert posted == {"POST blobs": 3, "POST trees": 1, "POST commits": 1, "PATCH refs": 1}


async def test_archives_beside_each_other_on_one_branch(github: FakeGitHub) -> None:
    deployment = Deployment({"GITHUB_API_URL": github.url, "GITHUB_TOKEN": github.token})

    async def write(community: str) -> None:
        async with open_store("github://owner/repo/archives", community, "discord", deployment) as archive:
            written = await write_snapshot(archive, make_source(messages=50, community=community))
            assert written.attempts == 1, "the branch moved, HEAD did not"

    await asyncio.gather(*(write(f"town-{number}") for number in range(4)))
    for number in range(4):
        async with open_store("github://owner/repo/archives", f"town-{number}", "discord", deployment) as archive:
            assert await (await open_archive(archive, "discord", f"town-{number}")).verify() == 100


async def test_a_new_branch(github: FakeGitHub) -> None:
    opened = github_opener(github, "github://owner/repo/archives@data/town")
    async with opened() as archive:
        await write_snapshot(archive, make_source(messages=50))
    async with opened() as archive:
        assert await (await open_archive(archive, "discord", "town")).verify() == 100
    assert github.git("log", "--format=%s", "data/town") == "Snapshot of archives/town/discord"


async def test_a_tree_too_large_for_one_answer(github: FakeGitHub) -> None:
    github.truncate = True
    opened = github_opener(github)
    async with opened() as archive:
        await write_snapshot(archive, make_source(messages=50))
    async with opened() as archive:
        assert not (await write_snapshot(archive, make_source(messages=50))).moved


Interfere = Callable[[str, str], Response | None]


def every_other(answer: Callable[[], Response]) -> Interfere:
    asked = 0

    def interfere(method: str, path: str) -> Response | None:
        nonlocal asked
        asked += 1
        return answer() if asked % 2 else None

    return interfere


@pytest.mark.parametrize(
    "answer",
    [
        lambda: JSONResponse({"message": "secondary rate limit"}, 403, {"Retry-After": "0"}),
        lambda: JSONResponse({"message": "slow down"}, 429, {"Retry-After": "0"}),
        lambda: JSONResponse({"message": "oops"}, 502),
    ],
    ids=["403", "429", "502"],
)
async def test_limits_and_failures_are_waited_out(
    github: FakeGitHub, answer: Callable[[], Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    naps = quick_sleep(monkeypatch)
    github.interfere = every_other(answer)
    async with github_opener(github)() as archive:
        await write_snapshot(archive, make_source(messages=50))
    async with github_opener(github)() as archive:
        assert await (await open_archive(archive, "discord", "town")).verify() == 100
    assert naps


def quick_sleep(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Have the store wait without waiting; what it would have waited."""
    naps: list[float] = []
    real = asyncio.sleep

    def sleep(seconds: float) -> Awaitable[None]:
        naps.append(seconds)
        return real(0)

    monkeypatch.setattr("app.archives.stores.github.asyncio.sleep", sleep)
    return naps


async def test_a_lost_answer_to_the_last_step(github: FakeGitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    quick_sleep(monkeypatch)
    real = github._move_ref

    def lost(request: object, body: object) -> Response:
        real(request, body)  # type: ignore[arg-type]
        return JSONResponse({"message": "oops"}, 500)

    monkeypatch.setattr(github, "_move_ref", lost)
    # Routes hold the method that was there; serve a second API over the same repository.
    from tests.fakes.github_git import serve

    async with serve(github.app()) as url:
        github.url = url
        async with github_opener(github)() as archive:
            written = await write_snapshot(archive, make_source(messages=50))
    assert (written.head.seq, written.attempts) == (1, 1)


@pytest.mark.parametrize(
    ("status", "mend"),
    [
        (401, "METAGOV_ARCHIVE_GITHUB_TOKEN"),
        (403, "contents: read and write"),
        (404, "no such repository"),
        (409, "first commit"),
    ],
)
async def test_what_github_refuses_is_said_with_the_mend(github: FakeGitHub, status: int, mend: str) -> None:
    github.interfere = lambda method, path: JSONResponse({"message": "no"}, status) if method == "POST" else None
    async with github_opener(github)() as archive:
        with pytest.raises((ArchiveAway, CorruptArchive), match=mend) as refused:
            await write_snapshot(archive, make_source(messages=50))
    assert github.token not in str(refused.value)


async def test_a_blob_that_came_damaged(github: FakeGitHub) -> None:
    async with github_opener(github)() as archive:
        await write_snapshot(archive, make_source(messages=50))
    github.interfere = lambda method, path: Response(b"x") if "/git/blobs/" in path else None
    async with github_opener(github)() as archive:
        with pytest.raises(BadDigest, match="HEAD"):
            await archive.head()


async def test_a_pace_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    starts = []

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr("app.archives.stores.github.asyncio.sleep", sleep)
    monkeypatch.setattr("app.archives.stores.github.time.monotonic", lambda: now)
    pace = Pace(most=80, seconds=60)
    for _ in range(400):
        await pace.wait()
        starts.append(now)
        now += 0.01
    for start in starts:
        assert sum(start <= other < start + 60 for other in starts) <= 80


def test_git_ids_are_gits() -> None:
    assert git_id(b"blob", b"hello\n") == git("hash-object", "--stdin", data=b"hello\n").decode().strip()


# S3


async def test_objects_lie_where_they_should(s3_url: str, bucket: str) -> None:
    async with s3_opener(s3_url, bucket)() as archive:
        await write_snapshot(archive, make_source(messages=50))
    listed = await asyncio.to_thread(s3(s3_url).list_objects_v2, Bucket=bucket)
    names = {each["Key"] for each in listed["Contents"]}
    assert "some/prefix/town/discord/HEAD" in names
    assert all(name.startswith("some/prefix/town/discord/") for name in names)


async def test_a_damaged_object_is_found(s3_url: str, bucket: str) -> None:
    async with s3_opener(s3_url, bucket)() as archive:
        await write_snapshot(archive, make_source(messages=50))
        reader = await open_archive(archive, "discord", "town")
        chunk = reader.manifest.tables[0].chunks[0]
        stored = bytearray(await archive.read(blob_name(chunk.sha256), 10**6))
        stored[20] ^= 1
        key = f"some/prefix/town/discord/{blob_name(chunk.sha256)}"
        await asyncio.to_thread(s3(s3_url).put_object, Bucket=bucket, Key=key, Body=bytes(stored))
        with pytest.raises(BadDigest):
            await reader.verify()


async def test_no_server_and_no_bucket(s3_url: str, bucket: str) -> None:
    async with s3_opener(s3_url, "nonesuch")() as archive:
        with pytest.raises((ArchiveAway, MissingObject)):
            await archive.add("blobs/x", b"x")


# URLs


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "should look like"),
        ("/var/lib/archives", "should look like"),
        ("ftp://host/x", "there are .*file://.*github://.*s3://"),
        ("file://host/x", "absolute path"),
        ("file:///x?y", "absolute path"),
        ("s3://", "s3://bucket/prefix"),
        ("s3://key:secret@bucket/x", "settings of their own"),
        ("github://owner", "github://owner/repo"),
        ("github://owner/repo/../x", "github://owner/repo"),
        ("github://owner/repo@a..b", "name of a branch"),
        ("github://owner/repo@-x", "name of a branch"),
        ("github://owner/re po", "github://owner/repo"),
    ],
)
async def test_urls_that_name_no_archive(url: str, said: str) -> None:
    with pytest.raises(UnusableArchive, match=said) as refused:
        async with open_store(url, "town", "discord", Deployment()):
            pass
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "-x", "a\0b", "x" * 300])
async def test_names_that_are_no_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnusableArchive, match="name of a folder"):
        async with open_store(tmp_path.as_uri(), name, "discord", Deployment()):
            pass


@pytest.mark.parametrize(
    ("url", "repository", "branch", "folder"),
    [
        ("github://owner/repo", "owner/repo", "main", "town/discord"),
        ("github://owner/repo@x/y", "owner/repo", "x/y", "town/discord"),
        ("github://owner/repo/a/b", "owner/repo", "main", "a/b/town/discord"),
        ("github://owner/repo/a@b", "owner/repo", "b", "a/town/discord"),
    ],
)
async def test_where_in_a_repository(url: str, repository: str, branch: str, folder: str) -> None:
    async with open_store(url, "town", "discord", Deployment()) as archive:
        assert isinstance(archive, GitHubArchive)
        assert (archive._repository, archive._branch, archive._folder) == (repository, branch, folder)


def test_credentials_are_not_in_the_text_of_what_holds_them() -> None:
    assert "hidden" not in repr(Deployment({"GITHUB_TOKEN": "hidden"}))
