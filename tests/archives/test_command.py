"""`metagov archive …`, run as processes."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pyarrow.parquet as parquet
import pytest

from app.accounts.service import create_driver
from app.archives.format import Signer
from app.archives.service import Archives
from app.archives.snapshot import write_snapshot
from app.archives.stores.filesystem import FilesystemArchive
from app.core.crypto import Vault
from app.core.db import Database, plain_dsn
from tests.archives.memory import make_source
from tests.conftest import make_settings
from tests.support.databases import create_database, drop_database

pytestmark = pytest.mark.slow

Run = Callable[..., subprocess.CompletedProcess[str]]
KEY = base64.b64encode(b"k" * 32).decode()


@pytest.fixture(scope="module")
async def deployment(worker_name: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, str]]:
    """A database with one community whose archive has two snapshots, signed."""
    folder = tmp_path_factory.mktemp("commands") / "an archive"
    name = f"{worker_name}_archives"
    settings = make_settings(await create_database(name), archive_url=folder.as_uri(), archive_signing_key=KEY)
    async with Database(settings) as db:
        async with db.begin() as session:
            made = await create_driver(session, Vault(settings.fernet_keys), "one")
        await db.pool.execute(
            "INSERT INTO communities (id, driver_id, slug, readable_name) VALUES ('com_1', $1, 'town', 'Town')", made.id
        )
        archives = Archives(settings, db.pool, {})
        for count in (900, 1000):
            await archives.write("com_1", make_source(messages=count))
        await archives.write("com_1", make_source(messages=10), name="discord.42")
    yield {
        "METAGOV_DATABASE_URL": settings.database_url,
        "METAGOV_SECRET_KEYS": settings.secret_keys.get_secret_value(),
        "METAGOV_ARCHIVE_URL": folder.as_uri(),
        "METAGOV_ARCHIVE_PUBLIC_KEYS": Signer(KEY).public_key,
    }
    await drop_database(name)


@pytest.fixture
def run(deployment: dict[str, str]) -> Run:
    def metagov(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", "archive", *words],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "COLUMNS": "220", **deployment, **more},
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return metagov


def test_list(run: Run) -> None:
    archives = run("list")
    assert archives.returncode == 0
    assert re.search(r"town\W+discord\W+file:///\S+\W+2\W+[0-9a-f]{64}", archives.stdout)
    snapshots = run("list", "town", "discord")
    assert re.findall(r"(\d)\W+[0-9a-f]{64}\W+2026-01-30T00:00:00\W+2\W+(\S+)", snapshots.stdout) == [
        ("2", "1,050"),
        ("1", "950"),
    ]
    assert run("list", "town").returncode == 2
    assert "no community" in run("list", "nonesuch", "discord").stderr
    assert "NoSnapshot" in run("list", "town", "slack").stderr


def test_verify(run: Run) -> None:
    newest = run("verify", "town", "discord")
    assert newest.returncode == 0, newest.stderr
    assert re.search(r"Genuine: 2 snapshots, 1,050 rows of the newest; newest [0-9a-f]{64}", newest.stdout)
    assert "2 snapshots, 2,000 rows" in run("verify", "town", "discord", "--all").stdout
    distrusted = run("verify", "town", "discord", METAGOV_ARCHIVE_PUBLIC_KEYS=base64.b64encode(b"x" * 32).decode())
    assert distrusted.returncode == 1
    assert "BadSignature" in distrusted.stderr


def test_the_archive_of_another_instance_by_its_name(run: Run, deployment: dict[str, str]) -> None:
    assert re.search(r"town\W+discord\.42\W+file:///", run("list").stdout)
    assert "60 rows of the newest" in run("verify", "town", "discord.42").stdout
    by_url = run(*("verify", "town", "discord.42", "--url", deployment["METAGOV_ARCHIVE_URL"]), METAGOV_DATABASE_URL="")
    assert "60 rows of the newest" in by_url.stdout, by_url.stderr


def test_verify_finds_damage_without_a_database(run: Run, tmp_path: Path) -> None:
    archive = FilesystemArchive(tmp_path / "town/discord")
    asyncio.run(write_snapshot(archive, make_source()))
    nowhere = {"METAGOV_DATABASE_URL": "", "METAGOV_ARCHIVE_PUBLIC_KEYS": ""}
    words = ("verify", "town", "discord", "--url", tmp_path.as_uri())
    assert run(*words, **nowhere).returncode == 0
    blob = max((tmp_path / "town/discord/blobs").rglob("*.zst"), key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    damaged = run(*words, **nowhere)
    assert damaged.returncode == 1
    assert re.search(r"BadDigest: the blob [0-9a-f]{64}", damaged.stderr)


def test_a_rolled_back_head_until_it_is_accepted(run: Run, deployment: dict[str, str], tmp_path: Path) -> None:
    url = tmp_path.as_uri()
    folder = tmp_path / "town/discord"
    asyncio.run(write_snapshot(FilesystemArchive(folder), make_source()))
    trust = {"METAGOV_ARCHIVE_URL": url, "METAGOV_ARCHIVE_PUBLIC_KEYS": ""}
    old = (folder / "HEAD").read_bytes()
    asyncio.run(write_snapshot(FilesystemArchive(folder), make_source(messages=301)))
    assert run("verify", "town", "discord", **trust).returncode == 0
    (folder / "HEAD").write_bytes(old)
    assert "RolledBack" in run("verify", "town", "discord", **trust).stderr
    assert run("verify", "town", "discord", "--accept", **trust).returncode == 0
    assert run("verify", "town", "discord", **trust).returncode == 0


async def test_restore(run: Run, deployment: dict[str, str]) -> None:
    restored = await asyncio.to_thread(run, "restore", "town", "discord", "--schema", "from archive")
    assert restored.returncode == 0, restored.stderr
    assert "1,050 rows" in restored.stdout
    connection = await asyncpg.connect(plain_dsn(deployment["METAGOV_DATABASE_URL"]))
    try:
        assert await connection.fetchval('SELECT count(*) FROM "from archive".message') == 1000
        assert await connection.fetchval('SELECT count(DISTINCT emoji) FROM "from archive".reaction') == 3
    finally:
        await connection.close()
    first = re.findall("[0-9a-f]{64}", (await asyncio.to_thread(run, "list", "town", "discord")).stdout)[1]
    earlier = await asyncio.to_thread(run, "restore", "town", "discord", "--snapshot", first)
    assert "950 rows" in earlier.stdout
    for schema, said in (("public", "made anew"), ("pg_catalog", "made anew"), ("mirror_discord", "--mirror")):
        refused = await asyncio.to_thread(run, "restore", "town", "discord", "--schema", schema)
        assert (refused.returncode, said in refused.stderr) == (2, True)


def test_export(run: Run, tmp_path: Path) -> None:
    exported = run("export", "town", "discord", "--to", str(tmp_path / "out"))
    assert exported.returncode == 0, exported.stderr
    assert parquet.read_table(tmp_path / "out/discord.message.parquet").num_rows == 1000


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"METAGOV_ARCHIVE_URL": ""}, "METAGOV_ARCHIVE_URL"),
        ({"METAGOV_ARCHIVE_URL": "gopher://x"}, "there is no store for gopher://"),
        ({"METAGOV_ARCHIVE_PUBLIC_KEYS": "abc"}, "32 bytes in base64"),
        ({"METAGOV_DATABASE_URL": ""}, "METAGOV_DATABASE_URL"),
    ],
)
def test_what_is_not_set_up_is_said_with_the_mend(run: Run, variables: dict[str, str], said: str) -> None:
    done = run("verify", "town", "discord", **variables)
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr
