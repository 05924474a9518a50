"""What a run has read is archived, verified, and fills the mirror again as it was."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from app.archives.moved import archive_moved
from app.archives.restore import restore
from app.archives.service import Archives
from app.archives.snapshot import Written
from app.mirrors.source import open_sink, open_source
from tests.fakes.discord import FakeDiscord
from tests.mirrors.conftest import Mirrored, own_app
from tests.mirrors.test_source import found, read_all
from tests.mirrors.town import build_town


@pytest.fixture
def archives(mirror: Mirrored, tmp_path: Path) -> Archives:
    settings = mirror.gateway.settings.model_copy(update={"archive_url": f"file://{tmp_path}"})
    return Archives(settings, mirror.gateway.db.pool)


async def test_a_mirror_and_its_archive_are_equal(mirror: Mirrored, archives: Archives, discord: FakeDiscord) -> None:
    town = build_town(discord, channels=3, messages=60, reactions=0.3)
    await mirror.enable(own_app(discord, town.guild))
    assert await archive_moved(mirror.use, archives) == 0, "nothing was read yet"
    await mirror.sync(sweep=True)
    assert await archive_moved(mirror.use, archives) == 1
    assert await archive_moved(mirror.use, archives) == 0, "it stands as it did"
    before = await read_all(mirror)
    instance, spec = await found(mirror)
    async with (
        archives.reader(instance.community_id, "town", "discord") as reader,
        open_sink(mirror.gateway.db, instance, spec, mirror.use.vault) as sink,
    ):
        assert await restore(reader, sink) == sum(map(len, before.values()))
    after = await read_all(mirror)
    for table, rows in before.items():
        times = ("first_seen", "synced_at")
        plain = [{name: value for name, value in row.items() if name not in times} for row in rows]
        assert [{name: value for name, value in row.items() if name not in times} for row in after[table]] == plain

    # The next sweep finds the same, and the archive stays as it is.
    await mirror.sync(sweep=True)
    assert await archive_moved(mirror.use, archives) == 1
    async with archives.reader(instance.community_id, "town", "discord") as reader:
        chunks = {chunk.sha256 for table in reader.manifest.tables for chunk in table.chunks}

    channel = next(iter(town.guild.channels.values()))
    discord.say(channel, next(iter(town.guild.members.values())).user, "something new")
    await mirror.sync()
    assert await archive_moved(mirror.use, archives) == 1
    async with archives.reader(instance.community_id, "town", "discord") as reader:
        newer = {chunk.sha256 for table in reader.manifest.tables for chunk in table.chunks}
        assert reader.head.seq > 1
    assert len(newer - chunks) <= 4, "only what changed is written anew"


async def test_each_of_several_instances_has_an_archive_of_its_own(
    mirror: Mirrored, archives: Archives, discord: FakeDiscord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror.gateway.archives, "url", archives.url)
    towns = [build_town(discord, channels=2, messages=count, people=4) for count in (20, 30)]
    configs = [own_app(discord, town.guild) for town in towns]
    await mirror.enable(configs[0])
    await mirror.sync()
    assert await archive_moved(mirror.use, archives) == 1
    only = (await mirror.driver.get("archive/discord")).json()
    assert only["seq"] == 1
    plugins = [{"name": "discord", "config": config} for config in configs]
    answer = await mirror.driver.put(plugins=plugins)
    assert answer.status_code == 200, answer.text
    ids = [str(town.guild.id) for town in towns]
    for number in ids:
        asked = await mirror.driver.post(f"mirror/discord/sync?community_platform_id={number}", {})
        assert asked.status_code == 202, asked.text
    await mirror.work()
    assert await archive_moved(mirror.use, archives) == 2
    assert await archive_moved(mirror.use, archives) == 0, "both stand as they did"
    names = ["discord", f"discord.{ids[1]}"]
    assert sorted(path.name for path in (tmp_path / "town").iterdir()) == names
    community = await mirror.gateway.db.pool.fetchval("SELECT id FROM communities WHERE slug = 'town'")
    for name, number, seq, count in zip(names, ids, (2, 1), (20, 30), strict=True):
        async with archives.reader(community, "town", name) as reader:
            assert (reader.head.provider, reader.head.seq) == ("discord", seq)
            tables = {each.name: each.rows for each in reader.manifest.tables}
            assert tables["discord.message"] == count
            table = next(each for each in reader.tables() if each.name == "discord.guild")
            assert [row["id"] async for batch in reader.batches(table) for row in batch] == [number]

    # Over HTTP each is asked for as instances are, and one alone needs no name.
    assert (await mirror.driver.get("archive/discord")).status_code == 409
    heads = [(await mirror.driver.get("archive/discord", community_platform_id=number)).json() for number in ids]
    assert [head["seq"] for head in heads] == [2, 1]
    assert {(head["provider"], head["community"]) for head in heads} == {("discord", "town")}
    for head, number, count in zip(heads, ids, (20, 30), strict=True):
        of = {"community_platform_id": number}
        manifest = await mirror.driver.get(f"archive/discord/manifest/{head['snapshot']}", **of)
        assert hashlib.sha256(manifest.content).hexdigest() == head["snapshot"]
        chunk = next(each for table in manifest.json()["tables"] for each in table["chunks"])
        blob = await mirror.driver.get(f"archive/discord/blob/{chunk['sha256']}", **of)
        assert hashlib.sha256(blob.content).hexdigest() == chunk["stored_sha256"]
        rows = await mirror.driver.get("archive/discord/table/message", limit=100, **of)
        assert len(rows.json()["rows"]) == count
    others = heads[1]["snapshot"]
    answer = await mirror.driver.get(f"archive/discord/manifest/{others}", community_platform_id=ids[0])
    assert answer.status_code == 404
    assert (await mirror.driver.get("archive/discord", community_platform_id="404")).status_code == 404

    # The first goes: the other stays where it is, and the first's place is kept for it.
    await mirror.driver.put(plugins=plugins[1:])
    await mirror.sync()
    assert await archive_moved(mirror.use, archives) == 1
    assert (await mirror.driver.get("archive/discord")).json()["seq"] == 2
    await mirror.driver.put(plugins=plugins)
    await mirror.driver.post(f"mirror/discord/sync?community_platform_id={ids[0]}", {})
    await mirror.work()
    assert await archive_moved(mirror.use, archives) == 1
    async with archives.reader(community, "town", "discord") as reader:
        assert reader.head.seq == 3


async def test_what_is_unchanged_is_neither_read_nor_stored_again(
    mirror: Mirrored, archives: Archives, discord: FakeDiscord, tmp_path: Path
) -> None:
    town = build_town(discord, channels=6, messages=120, reactions=0.2)
    await mirror.enable(own_app(discord, town.guild))
    await mirror.sync(sweep=True)

    async def write() -> Written:
        instance, spec = await found(mirror)
        async with open_source(mirror.gateway.db, instance, spec) as source:
            return await archives.write(instance.community_id, source)

    def blobs() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("*.zst")}

    first = await write()
    assert (first.rows_read, first.chunks_packed) == (first.rows, first.chunks)
    stored = blobs()
    for sweep in (False, True):
        await mirror.sync(sweep=sweep)
        again = await write()
        assert (again.rows, again.chunks) == (first.rows, first.chunks)
        assert (again.rows_read, again.chunks_packed, again.blobs_stored, again.bytes_stored) == (0, 0, 0, 0)
        assert blobs() == stored, "not a byte was written anew"

    # A message more: its channel's newest month is read and stored, and the channel's own row names the message.
    channel = town.channels[2]
    discord.say(channel, town.people[0], "something new")
    await mirror.sync()
    more = await write()
    assert more.rows == first.rows + 1
    assert 1 <= more.blobs_stored <= 2
    assert more.chunks_packed == more.blobs_stored
    assert more.rows_read <= 1 + len(town.channels)
    assert stored.items() <= blobs().items()
