"""A mirror lost with its database, and filled again from its archive alone, as an operator would do it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet

from app.archives.moved import archive_moved
from app.archives.restore import restore
from app.archives.service import Archives
from app.archives.snapshot import write_snapshot
from app.archives.stores.filesystem import FilesystemArchive
from app.core.crypto import Vault
from app.core.db import Database
from app.core.settings import Settings
from app.host.binding import InstanceData
from app.mirrors.parts import TableInfo
from app.mirrors.source import DoesNotFit, open_sink, open_source
from app.runtime import instances
from metagov_sdk.provider import ProviderSpec
from plugins.discord import manifest
from tests.conftest import make_settings
from tests.fakes.discord import FakeDiscord
from tests.mirrors.conftest import Mirrored, own_app
from tests.mirrors.shelf import SHELF
from tests.mirrors.test_runs import fill
from tests.mirrors.test_source import found, read_all, read_tables
from tests.mirrors.town import build_town, differences, mirrored, truth
from tests.support.databases import create_empty, drop_database
from tests.support.servers import free_port, stop, wait_ready

_TIMES = ("first_seen", "synced_at")
_COMMAND = [sys.executable, "-m", "app.cli"]


def plain(tables: Mapping[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Without what tells of the machine."""
    return {
        table: [{name: value for name, value in row.items() if name not in _TIMES} for row in rows]
        for table, rows in tables.items()
    }


@pytest.fixture
async def elsewhere(worker_name: str, discord: FakeDiscord, tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """The environment of another deployment: an empty database, other keys, the same archives."""
    name = f"{worker_name}_restored"
    settings = make_settings(await create_empty(name))
    yield {
        **os.environ,
        "METAGOV_DATABASE_URL": settings.database_url,
        "METAGOV_REDIS_URL": settings.redis_url,
        "METAGOV_SECRET_KEYS": Fernet.generate_key().decode(),
        "METAGOV_ALLOW_PRIVATE_NETWORKS": "true",
        "METAGOV_LOG_LEVEL": "error",
        "METAGOV_ARCHIVE_URL": f"file://{tmp_path}",
        "COLUMNS": "200",
        **{f"METAGOV_DISCORD_{key.upper()}": value for key, value in discord.settings().items()},
    }
    await drop_database(name)


async def metagov(environment: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    done = await asyncio.to_thread(
        subprocess.run, [*_COMMAND, *words], env=environment, capture_output=True, text=True, timeout=90, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


async def install(environment: Mapping[str, str], config: Mapping[str, Any]) -> None:
    """The driver makes its community anew, by the API of the new deployment."""
    made = await metagov(environment, "driver", "create", "one")
    key = re.search(r"mgk_\S+", made.stdout)
    assert key is not None, made.stderr
    port = free_port()
    api = subprocess.Popen([*_COMMAND, "serve", "--port", str(port)], env=environment)
    try:
        await wait_ready(f"http://127.0.0.1:{port}", 60)
        url, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {key[0]}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as http:
            plugins = [{"name": "discord", "config": config}]
            body = {"readable_name": "Town", "plugins": plugins}
            answer = await http.put("/api/internal/community/town", json=body)
            assert answer.status_code == 201, answer.text
    finally:
        await asyncio.to_thread(stop, api)


@pytest.mark.slow
async def test_a_fresh_database_filled_from_the_archive_alone_equals_the_original(
    mirror: Mirrored, discord: FakeDiscord, elsewhere: dict[str, str], tmp_path: Path
) -> None:
    settings = mirror.gateway.settings.model_copy(update={"archive_url": f"file://{tmp_path}"})
    archives = Archives(settings, mirror.gateway.db.pool)
    town = build_town(discord, channels=4, messages=300, threads=3, reactions=0.3)
    config = own_app(discord, town.guild)
    await mirror.enable(config)
    await mirror.sync()
    town.happen(40)
    town.channels[0].remove(town.channels[0].order[0])
    await mirror.sync(sweep=True)
    assert await archive_moved(mirror.use, archives) == 1
    before = await read_all(mirror)
    assert any(row["deleted_at"] for row in before["discord.message"])

    too_early = await metagov(elsewhere, "archive", "restore", "town", "discord", "--mirror")
    assert too_early.returncode == 1
    assert "metagov migrate" in too_early.stderr
    assert (await metagov(elsewhere, "migrate")).returncode == 0
    for problem, words in {
        "there is no community 'town'": ("town", "discord", "--mirror"),
        "mirrors its platform": ("town", "randomness", "--mirror"),
        "without --schema": ("town", "discord", "--mirror", "--schema", "x"),
        "with --mirror": ("town", "discord", "--schema", "mirror_discord"),
    }.items():
        refused = await metagov(elsewhere, "archive", "restore", *words)
        assert (refused.returncode > 0, problem in refused.stderr) == (True, True), refused.stderr
    await install(elsewhere, config)
    done = await metagov(elsewhere, "archive", "restore", "town", "discord", "--mirror")
    assert done.returncode == 0, done.stderr
    assert f"{sum(map(len, before.values())):,} rows" in done.stdout

    there = Settings(
        database_url=elsewhere["METAGOV_DATABASE_URL"], secret_keys=elsewhere["METAGOV_SECRET_KEYS"], database_pool=2
    )
    async with Database(there) as db:
        instance_id = await db.pool.fetchval("SELECT id FROM instances")
        bound = await instances.by_id(db.pool, Vault(there.fernet_keys), instance_id)
        assert bound is not None
        assert manifest.provider is not None
        async with open_source(db, bound[0], manifest.provider) as source:
            after = await read_tables(db.pool, instance_id, manifest.provider)
            again = await write_snapshot(FilesystemArchive(tmp_path / "again"), source)
        assert plain(after) == plain(before)
        instance, _ = await found(mirror)
        async with archives.reader(instance.community_id, "town", "discord") as reader:
            first = {table.name: [chunk.sha256 for chunk in table.chunks] for table in reader.manifest.tables}
            copy = await FilesystemArchive(tmp_path / "again").head()
            assert copy.data is not None
        assert again.rows == sum(map(len, before.values()))
        blobs = {path.stem for path in (tmp_path / "again/blobs").rglob("*.zst")}
        assert blobs >= {chunk for chunks in first.values() for chunk in chunks}, "byte for byte the same chunks"

        # And it is in use: the next sweep finds what has changed, and what is gone.
        town.happen(20)
        town.channels[1].remove(town.channels[1].order[0])
        swept = await metagov(elsewhere, "mirror", "sync", "--sweep", "town", "discord")
        assert swept.returncode == 0, swept.stderr
        wanted = truth(town)
        async with db.pool.acquire() as connection:
            assert differences(await mirrored(connection, instance_id, wanted), wanted) == []


@pytest.fixture
def archives(books: Mirrored, tmp_path: Path) -> Archives:
    settings = books.gateway.settings.model_copy(update={"archive_url": f"file://{tmp_path}"})
    return Archives(settings, books.gateway.db.pool)


async def refill(books: Mirrored, archives: Archives) -> None:
    instance, spec = await found(books)
    async with (
        archives.reader(instance.community_id, "town", "shelf") as reader,
        open_sink(books.gateway.db, instance, spec, books.gateway.vault) as sink,
    ):
        await restore(reader, sink)


async def test_numbers_within_json_come_back_as_they_were(books: Mirrored, archives: Archives) -> None:
    fill(1)
    SHELF.notes["b0"][0] |= {"score": 0.1, "large": 2**70, "mood": [1.5, {"$number": "2"}]}
    await books.sync()
    assert await archive_moved(books.use, archives) == 1
    before = await read_all(books)
    (odd,) = [row for row in before["shelf.note"] if row["id"] == 1]
    assert Decimal(str(odd["extra"]["score"])) == Decimal("0.1")
    await refill(books, archives)
    assert plain(await read_all(books)) == plain(before)


async def test_a_run_that_a_restore_overtakes_is_over_and_not_clean(books: Mirrored, archives: Archives) -> None:
    fill(2)
    await books.sync()
    assert await archive_moved(books.use, archives) == 1
    before = await read_all(books)
    await books.ask(sweep=True)
    await refill(books, archives)
    await books.work()
    stands = await books.status()
    assert stands["state"] == "failed"
    assert plain(await read_all(books)) == plain(before)
    assert (await books.sync(sweep=True))["state"] == "idle"
    assert plain(await read_all(books)) == plain(before)


async def test_what_the_installed_plugin_does_not_have_is_named(books: Mirrored) -> None:
    fill(1)
    await books.sync()
    before = await read_all(books)
    instance, spec = await found(books)
    async with open_source(books.gateway.db, instance, spec) as source:
        note = next(info for info in await source.tables() if info.name == "shelf.note")
    for info, said in (
        (TableInfo("shelf.pen", {"properties": {}}, ("id",)), "no table shelf.pen"),
        (TableInfo("shelf.note", {"properties": {"id": {}, "colour": {}}}, ("id",)), "has no colour"),
        (TableInfo("shelf.note", note.json_schema, ("id", "book_id")), "another key"),
    ):
        with pytest.raises(DoesNotFit, match=said):
            await begin(books, instance, spec, info)
    assert await read_all(books) == before


async def begin(books: Mirrored, instance: InstanceData, spec: ProviderSpec, info: TableInfo) -> None:
    async with open_sink(books.gateway.db, instance, spec, books.gateway.vault) as sink:
        await sink.begin([info])
