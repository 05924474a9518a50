"""What is left of mirrors and archives when nobody needs it any more."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from app.archives.stores.filesystem import FilesystemArchive
from app.worker import drop_old
from tests.fakes.discord import FakeDiscord
from tests.mirrors.conftest import Mirrored, own_app
from tests.mirrors.shelf import SHELF
from tests.mirrors.test_runs import fill
from tests.mirrors.town import build_town

OWN = ("mirrors", "mirror_runs", "mirror_oddities", "mirror_bodies", "mirror_partitions", "mirror_answers")


async def counts(mirror: Mirrored) -> dict[str, int]:
    tables = [*OWN, *(f"mirror_{mirror.plugin}.{name}" for name in ("channel", "message", "reaction"))]
    return {table: await mirror.gateway.db.pool.fetchval(f"SELECT count(*) FROM {table}") for table in tables}


async def keep_house(mirror: Mirrored) -> None:
    await drop_old({"gateway": mirror.gateway})


async def test_what_was_mirrored_for_a_deleted_instance_goes_after_the_retention(
    mirror: Mirrored, discord: FakeDiscord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror.use, "keep_answers", True)
    pool = mirror.gateway.db.pool
    town = build_town(discord, channels=2, messages=40, reactions=0.3)
    await mirror.enable(own_app(discord, town.guild))
    await mirror.sync()
    await pool.execute(
        "INSERT INTO mirror_oddities (instance_id, table_name, sha256, body) VALUES ($1, 'message', '', '{}')",
        mirror.instance,
    )
    before = await counts(mirror)
    assert all(before.values()), before
    await keep_house(mirror)
    assert await counts(mirror) == before, "an instance that is there loses nothing"

    path, header = f"/api/internal/plugin/discord/{mirror.instance}", {"X-Metagov-Community": "town"}
    assert (await mirror.driver.http.delete(path, headers=header)).status_code == 204
    await pool.execute("UPDATE instances SET deleted_at = now() - interval '29 days'")
    await keep_house(mirror)
    assert await counts(mirror) == before, "not before its time"
    await pool.execute("UPDATE instances SET deleted_at = now() - interval '31 days'")
    await keep_house(mirror)
    assert await counts(mirror) == dict.fromkeys(before, 0)


async def test_rows_of_which_no_instance_is_known_go_too(books: Mirrored) -> None:
    fill(2)
    await books.sync()
    pool = books.gateway.db.pool
    await pool.execute(
        "INSERT INTO mirror_shelf.book SELECT 'ins_a', community_id, id, title, owner, pages, extra, "
        "mirror_flags, mirror_source, mirror_pass, first_seen, synced_at, deleted_at "
        "FROM mirror_shelf.book"
    )
    assert await pool.fetchval("SELECT count(*) FROM mirror_shelf.book") == 4
    await keep_house(books)
    rows = await pool.fetch("SELECT DISTINCT instance_id FROM mirror_shelf.book")
    assert [row[0] for row in rows] == [books.instance]


async def test_old_runs_go_but_the_last_and_the_last_that_was_clean(books: Mirrored) -> None:
    fill(1)
    pool = books.gateway.db.pool
    for clean in (True, True, False, False, True, False, False):
        if not clean:
            SHELF.raises = [ZeroDivisionError("a fault of the plugin")]
        await books.sync()
    runs = [row["id"] for row in await pool.fetch("SELECT id FROM mirror_runs ORDER BY id")]
    await keep_house(books)
    assert await pool.fetchval("SELECT count(*) FROM mirror_runs") == 7
    await pool.execute("UPDATE mirror_runs SET finished_at = finished_at - interval '31 days'")
    await keep_house(books)
    left = await pool.fetch("SELECT id FROM mirror_runs ORDER BY id")
    assert [row["id"] for row in left] == [runs[4], runs[6]]
    assert (await books.status())["state"] == "failed"


async def test_what_killed_writers_left_in_archives_is_swept(
    books: Mirrored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives = books.gateway.archives
    monkeypatch.setattr(archives, "url", f"file://{tmp_path}")
    community = await books.gateway.db.pool.fetchval("SELECT id FROM communities WHERE slug = 'town'")
    await books.gateway.db.pool.execute(
        "INSERT INTO archive_places (community_id, provider, community_platform_id, name) "
        "VALUES ($1, 'shelf', '', 'shelf')",
        community,
    )
    archive = FilesystemArchive(tmp_path / "town/shelf")
    await archive.add("blobs/ab/abcd.zst", b"whole")
    folder = tmp_path / "town/shelf/blobs/ab"
    long_ago = time.time() - timedelta(days=2).total_seconds()
    for name in (".abcd.zst.0123456789abcdef", ".new.zst.0123456789abcdef", ".a-note", "abcd.zst"):
        (folder / name).write_bytes(b"half")
        if "new" not in name:
            os.utime(folder / name, (long_ago, long_ago))
    await keep_house(books)
    assert sorted(path.name for path in folder.iterdir()) == [".a-note", ".new.zst.0123456789abcdef", "abcd.zst"]
