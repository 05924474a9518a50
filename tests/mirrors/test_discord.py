"""Discord's mirror against the fake: equal to the platform, whatever happens there."""

from __future__ import annotations

from tests.fakes.discord import FakeDiscord
from tests.mirrors.conftest import Mirrored, own_app
from tests.mirrors.town import build_town


async def test_a_first_run_holds_everything(mirror: Mirrored, discord: FakeDiscord) -> None:
    town = build_town(discord, channels=6, messages=900, threads=4)
    await mirror.enable(own_app(discord, town.guild))
    stands = await mirror.sync()
    assert await mirror.holds(town) == []
    assert stands["state"] == "idle"
    tables = {table["name"]: table for table in stands["tables"]}
    assert tables["discord.message"]["rows"] == 900
    assert all(table["complete_through"] for table in tables.values())
    assert all(table["error"] is None for table in tables.values())
