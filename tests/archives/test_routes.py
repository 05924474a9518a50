"""Archives over HTTP: what a driver and its readers get, and what is refused by name."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest
import zstandard
from fastapi import FastAPI

from app.archives.read import SeenHead
from app.archives.service import Archives
from app.archives.snapshot import Written
from app.gateway import Gateway
from tests.archives.conftest import folder_of
from tests.archives.memory import LIKES, MESSAGES, make_source
from tests.conftest import Driver, make_settings
from tests.support.problems import problem


@pytest.fixture
async def community(driver: Driver, gateway: Gateway) -> str:
    """The id of a town with the probe."""
    plugins = [{"name": "probe", "config": {"label": "a", "webhook_secret": "s"}}]
    assert (await driver.put(plugins=plugins)).status_code == 201
    found: str = await gateway.db.pool.fetchval("SELECT id FROM communities WHERE slug = 'town'")
    return found


async def write(archives: Archives, community: str, **options: Any) -> Written:
    """Archive made-up messages of the probe's."""
    return await archives.write(community, make_source(provider="probe", **options))


async def test_before_the_first_snapshot(archives: Archives, community: str, driver: Driver) -> None:
    head = await driver.get("archive/probe")
    assert head.json() == {"provider": "probe", "community": "town", "snapshot": None, "seq": 0, "created_at": None}
    problem(await driver.get("archive/probe/table/message"), 404)
    problem(await driver.get(f"archive/probe/manifest/{'0' * 64}"), 404)
    problem(await driver.get(f"archive/probe/blob/{'0' * 64}"), 404)
    problem(await driver.get("archive/nonesuch"), 404)


async def test_a_reader_over_http_can_check_everything(archives: Archives, community: str, driver: Driver) -> None:
    written = await write(archives, community, messages=300)
    head = (await driver.get("archive/probe")).json()
    assert (head["snapshot"], head["seq"]) == (written.head.snapshot, 1)
    manifest = await driver.get(f"archive/probe/manifest/{head['snapshot']}")
    assert hashlib.sha256(manifest.content).hexdigest() == head["snapshot"]
    rows = 0
    for table in manifest.json()["tables"]:
        names = [chunk["sha256"] for chunk in table["chunks"]]
        for name in [*names, table["schema_sha256"]]:
            blob = await driver.get(f"archive/probe/blob/{name}")
            assert blob.headers["content-type"] == "application/octet-stream"
            data = zstandard.ZstdDecompressor().decompress(blob.content)
            assert hashlib.sha256(data).hexdigest() == name
            rows += data.count(b"\n")
        for chunk in table["chunks"]:
            blob = await driver.get(f"archive/probe/blob/{chunk['sha256']}")
            assert hashlib.sha256(blob.content).hexdigest() == chunk["stored_sha256"]
    assert rows == 350


async def test_conditional_and_range_requests(archives: Archives, community: str, driver: Driver) -> None:
    written = await write(archives, community, messages=300)
    manifest = (await driver.get(f"archive/probe/manifest/{written.head.snapshot}")).json()
    name = manifest["tables"][0]["chunks"][0]["sha256"]
    path = f"/api/internal/archive/probe/blob/{name}"

    async def get(**headers: str) -> httpx.Response:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return await driver.http.get(path, headers={"X-Metagov-Community": "town", **named})

    whole = await get()
    data, etag = whole.content, whole.headers["etag"]
    assert etag == f'"{name}"'
    assert "immutable" in whole.headers["cache-control"]
    assert "private" in whole.headers["cache-control"]
    assert "x-metagov-community" in whole.headers["vary"].lower()
    assert whole.headers["accept-ranges"] == "bytes"
    for tags in (etag, f'"x", W/{etag}', "*"):
        known = await get(If_None_Match=tags)
        assert (known.status_code, known.content) == (304, b"")
    assert (await get(If_None_Match='"x"')).status_code == 200
    size = len(data)
    for asked, start, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        ("bytes=5-", 5, size),
        ("bytes=-7", size - 7, size),
        (f"bytes=-{size + 5}", 0, size),
        (f"bytes=3-{size * 9}", 3, size),
    ):
        part = await get(Range=asked, If_Range=etag)
        assert part.status_code == 206, asked
        assert part.content == data[start:end]
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
    for ignored in ("bytes=9-5", "bytes=0-1,4-5", "lines=1-2", "bytes=", "bytes=x-y", "bytes=--5"):
        assert (await get(Range=ignored)).content == data
    assert (await get(Range="bytes=0-1", If_Range='"other"')).content == data
    for beyond in (f"bytes={size}-", f"bytes={size + 1}-{size + 9}", "bytes=-0"):
        answer = await get(Range=beyond)
        problem(answer, 416)
        assert answer.headers["content-range"] == f"bytes */{size}"
    head = await driver.get("archive/probe")
    again = await driver.http.get(
        "/api/internal/archive/probe",
        headers={"X-Metagov-Community": "town", "If-None-Match": head.headers["etag"]},
    )
    assert again.status_code == 304


async def pages(driver: Driver, table: str, **query: Any) -> list[dict[str, Any]]:
    """All of a table's rows, page by page."""
    found: list[dict[str, Any]] = []
    after = None
    while True:
        answer = await driver.get(f"archive/probe/table/{table}", **query, **({"after": after} if after else {}))
        assert answer.status_code == 200, answer.text
        found += answer.json()["rows"]
        after = answer.json()["next"]
        if after is None:
            return found


@pytest.mark.parametrize("limit", [7, 100, 500])
async def test_rows_page_by_page(archives: Archives, community: str, driver: Driver, limit: int) -> None:
    source = make_source(messages=1000, provider="probe")
    await archives.write(community, source)
    found = await pages(driver, "discord.message", limit=limit)
    assert sorted(row["id"] for row in found) == sorted(row["id"] for row in source.data["discord.message"][1])
    order = [(row["channel_id"], row["created_at"][:7], row["id"]) for row in found]
    assert order == sorted(order)
    assert all(None not in row.values() for row in found)


async def test_later_pages_are_of_the_same_snapshot(archives: Archives, community: str, driver: Driver) -> None:
    first = await write(archives, community, messages=300)
    page = (await driver.get("archive/probe/table/discord.message", limit=200)).json()
    second = await write(archives, community, messages=400)
    rest = (await driver.get("archive/probe/table/discord.message", limit=500, after=page["next"])).json()
    assert (page["snapshot"], rest["snapshot"]) == (first.head.snapshot, first.head.snapshot)
    assert len(page["rows"]) + len(rest["rows"]) == 300
    newest = (await driver.get("archive/probe/table/discord.message", limit=500)).json()
    assert (newest["snapshot"], len(newest["rows"])) == (second.head.snapshot, 400)
    older = await pages(driver, "discord.message", snapshot=first.head.snapshot, limit=500)
    assert len(older) == 300
    wrong = await driver.get("archive/probe/table/discord.message", after=page["next"], snapshot=second.head.snapshot)
    problem(wrong, 422)
    problem(await driver.get("archive/probe/table/discord.reaction", after=page["next"]), 422)


@pytest.mark.parametrize("after", ["x", "WyJhIl0", "é", "W10"])
async def test_cursors_that_are_none(archives: Archives, community: str, driver: Driver, after: str) -> None:
    await write(archives, community)
    problem(await driver.get("archive/probe/table/discord.message", after=after), 422)


@pytest.mark.parametrize("path", ["table/nonesuch", "table/discord.none"])
async def test_tables_that_are_not_there(archives: Archives, community: str, driver: Driver, path: str) -> None:
    await write(archives, community)
    assert "discord.message" in problem(await driver.get(f"archive/probe/{path}"), 404)["detail"]


@pytest.mark.parametrize("name", ["..%2f..%2fHEAD", "A" * 64, "0" * 63, "HEAD"])
async def test_names_that_are_no_digest(archives: Archives, community: str, driver: Driver, name: str) -> None:
    await write(archives, community)
    for kind in ("blob", "manifest"):
        assert (await driver.get(f"archive/probe/{kind}/{name}")).status_code in (404, 422)


async def test_a_damaged_archive_is_refused_by_name(
    archives: Archives, community: str, driver: Driver, gateway: Gateway
) -> None:
    written = await write(archives, community, messages=300)
    folder = folder_of(gateway) / "town/probe"
    old = (folder / "HEAD").read_bytes()
    manifest = (await driver.get(f"archive/probe/manifest/{written.head.snapshot}")).json()
    name = manifest["tables"][0]["chunks"][0]["sha256"]
    blob = folder / f"blobs/{name[:2]}/{name}.zst"
    whole = blob.read_bytes()
    blob.write_bytes(whole[:-3])
    problem(await driver.get(f"archive/probe/blob/{name}"), 502, "archive-truncated")
    problem(await driver.get("archive/probe/table/discord.message"), 502, "archive-truncated")
    blob.write_bytes(whole[:-3] + b"xyz")
    problem(await driver.get("archive/probe/table/discord.message"), 502, "archive-bad-digest")
    blob.write_bytes(whole)
    await write(archives, community, messages=301)
    assert (await driver.get("archive/probe")).json()["seq"] == 2
    (folder / "HEAD").write_bytes(old)
    for path in ("archive/probe", "archive/probe/table/discord.message"):
        problem(await driver.get(path), 502, "archive-rolled-back")


async def test_what_was_seen_is_remembered_only_when_it_is_genuine(
    archives: Archives, community: str, driver: Driver, gateway: Gateway
) -> None:
    written = await write(archives, community)
    path = folder_of(gateway) / "town/probe/HEAD"
    genuine = path.read_bytes()
    path.write_bytes(orjson.dumps({**orjson.loads(genuine), "seq": 900}))
    problem(await driver.get("archive/probe"), 502, "archive-broken-chain")
    path.write_bytes(genuine)
    assert (await driver.get("archive/probe")).json()["seq"] == 1
    assert await archives.seen(community, "probe") == SeenHead(1, written.head.snapshot)
    await archives.forget_seen(community, "probe")
    assert await archives.seen(community, "probe") is None


async def test_an_archive_that_cannot_be_reached(
    archives: Archives, community: str, driver: Driver, gateway: Gateway
) -> None:
    folder = folder_of(gateway)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "town").write_text("a file")
    try:
        answer = await driver.get(f"archive/probe/blob/{'0' * 64}")
        assert answer.status_code in (404, 503)
        await asyncio.to_thread((folder / "town").unlink)
        (folder / "town").mkdir()
        (folder / "town/probe").symlink_to("probe")
        problem(await driver.get("archive/probe"), 503)
    finally:
        (folder / "town/probe").unlink(missing_ok=True)


async def test_a_deployment_without_archives(
    app: FastAPI, archives: Archives, community: str, driver: Driver, gateway: Gateway
) -> None:
    none = Archives(make_settings(gateway.settings.database_url), gateway.db.pool, {})
    app.state.gateway = replace(gateway, archives=none)
    try:
        for path in ("", "/table/message", f"/blob/{'0' * 64}", f"/manifest/{'0' * 64}"):
            assert "METAGOV_ARCHIVE_URL" in problem(await driver.get(f"archive/probe{path}"), 404)["detail"]
    finally:
        app.state.gateway = gateway


async def test_unchanged_parts_are_not_read_again(archives: Archives, community: str) -> None:
    source = make_source(messages=300, provider="probe", marked=True)
    await archives.write(community, source)
    source.read.clear()
    again = await archives.write(community, source)
    assert (again.moved, again.rows, source.read.total()) == (False, 350, 0)
    row = source.data["discord.message"][1][7]
    source.touch(MESSAGES, row)
    row["content"] = "edited"
    edited = await archives.write(community, source)
    assert (edited.moved, edited.chunks_packed) == (True, 1)
    assert 0 < source.read["discord.message"] < 300
    assert source.read[LIKES.name] == 0


async def test_anothers_archive_is_not_there(
    archives: Archives, community: str, driver: Driver, other_driver: Driver
) -> None:
    written = await write(archives, community)
    plugins = [{"name": "probe", "config": {"label": "b", "webhook_secret": "s"}}]
    assert (await other_driver.put("city", plugins=plugins)).status_code == 201
    problem(await other_driver.get("archive/probe", slug="town"), 400)
    problem(await other_driver.get(f"archive/probe/manifest/{written.head.snapshot}", slug="city"), 404)
    assert (await other_driver.get("archive/probe", slug="city")).json()["snapshot"] is None


async def test_without_a_key(archives: Archives, community: str, anonymous: httpx.AsyncClient) -> None:
    answer = await anonymous.get("/api/internal/archive/probe", headers={"X-Metagov-Community": "town"})
    problem(answer, 401)
