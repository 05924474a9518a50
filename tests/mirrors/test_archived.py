"""What a run has read is archived, verified, and fills the mirror again as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.archives.moved import archive_moved
from app.archives.restore import restore
from app.archives.service import Archives
from app.mirrors.source import open_sink
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
