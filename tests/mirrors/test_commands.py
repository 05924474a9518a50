"""`metagov mirror …` on a real database: what the operator sees."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest

from app.core.settings import Settings
from tests.fakes.discord import FakeDiscord
from tests.mirrors.conftest import Mirrored, own_app
from tests.mirrors.forgetting import Deletion, deletion
from tests.mirrors.town import build_town

__all__ = ["deletion"]


async def run(
    settings: Settings, discord: FakeDiscord, *arguments: str, **more: str
) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        **more,
        "METAGOV_DATABASE_URL": settings.database_url,
        "METAGOV_REDIS_URL": settings.redis_url,
        "METAGOV_SECRET_KEYS": settings.secret_keys.get_secret_value(),
        "METAGOV_ALLOW_PRIVATE_NETWORKS": "true",
        "METAGOV_LOG_LEVEL": "error",
        "COLUMNS": "200",
        **{f"METAGOV_DISCORD_{name.upper()}": value for name, value in discord.settings().items()},
    }
    command = [sys.executable, "-m", "app.cli", "mirror", *arguments]
    return await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.slow
async def test_a_mirror_from_the_command_line(mirror: Mirrored, discord: FakeDiscord, settings: Settings) -> None:
    town = build_town(discord, channels=3, messages=30)
    await mirror.enable(own_app(discord, town.guild))
    done = await run(settings, discord, "sync", "town", "discord")
    assert done.returncode == 0, done.stderr
    assert "discord.message" in done.stdout
    assert await mirror.holds(town) == []
    town.channels[0].remove(town.channels[0].order[0])
    done = await run(settings, discord, "sync", "--sweep", "town", "discord")
    assert done.returncode == 0, done.stderr
    assert await mirror.holds(town) == []
    done = await run(settings, discord, "status", "town", "discord")
    assert "29" in next(line for line in done.stdout.splitlines() if "discord.message" in line)
    person = str(town.people[0].id)
    done = await run(settings, discord, "forget", person, "--plugin", "discord", "--community", "town")
    assert "discord.member: rows" in done.stdout, done.stderr
    assert "Not finished" not in done.stdout
    members = await mirror.rows("member")
    assert person not in members
    discord.hidden.add(town.channels[1].id)
    done = await run(settings, discord, "sync", "--sweep", "town", "discord")
    assert done.returncode == 1
    assert "refused, everything else was read" in done.stderr
    assert "may not see it" in done.stderr
    assert "discord: incomplete" in done.stdout


async def test_what_is_not_there_is_said_in_one_line(
    mirror: Mirrored, discord: FakeDiscord, settings: Settings
) -> None:
    for arguments in (["status", "nowhere", "discord"], ["forget", "1", "--plugin", "randomness"]):
        done = await run(settings, discord, *arguments)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "there is no" in done.stderr


async def test_old_snapshots_that_hold_somebody_are_named(
    mirror: Mirrored, discord: FakeDiscord, settings: Settings, deletion: Deletion
) -> None:
    town = build_town(discord, channels=3, messages=30)
    await mirror.enable(own_app(discord, town.guild))
    await mirror.sync()
    await deletion.archive(mirror)
    community = await mirror.gateway.db.pool.fetchval("SELECT id FROM communities")
    head = await deletion.archives.head(community, "town", "discord")
    assert head is not None
    person, url = str(town.people[0].id), deletion.archives.url
    done = await run(settings, discord, "forget", person, "--plugin", "discord", METAGOV_ARCHIVE_URL=url)
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if head.snapshot in line)
    assert "discord.member" in row
    done = await run(settings, discord, "forget", person, "--plugin", "discord", "--json", METAGOV_ARCHIVE_URL=url)
    (said,) = json.loads(done.stdout)
    assert (said["community"], said["finished"], said["waits"]) == ("town", True, None)
    (held,) = said["held"]
    assert (held["seq"], held["snapshot"], held["newest"], held["archive"]) == (1, head.snapshot, False, url)
    assert {"discord.member", "discord.message"} <= set(held["tables"])
    assert said["snapshots"].keys() == {"discord"} and said["snapshots"]["discord"] != head.snapshot
    assert said["rows"] == {}
