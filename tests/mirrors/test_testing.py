"""`metagov_sdk.testing` runs a provider as the gateway would, without one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from metagov_sdk.testing import Binding, ContractError, read_mirror
from plugins.discord import manifest
from plugins.randomness import manifest as randomness
from tests.fakes.discord import FakeDiscord
from tests.mirrors import shelf
from tests.mirrors.town import Town, build_town, truth


@pytest.fixture
async def town(discord: FakeDiscord) -> Town:
    return build_town(discord, channels=4, messages=130, threads=4, reactions=0.2)


@pytest.fixture
async def binding(discord: FakeDiscord, town: Town) -> AsyncIterator[Binding]:
    async with httpx.AsyncHTTPTransport() as transport:
        yield Binding(config={"guild_id": str(town.guild.id)}, settings=discord.settings(), transport=transport)


async def test_it_reads_what_the_gateway_reads(town: Town, binding: Binding) -> None:
    mirror = await read_mirror(manifest, **binding)
    for _ in range(3):
        assert {table: set(rows) for table, rows in mirror.tables.items()} == {
            table: set(rows) for table, rows in truth(town).items()
        }
        town.happen(60)
        await mirror.sync(sweep=True, **binding)
    await mirror.sync(**binding)
    assert len(mirror.requests) <= len(town.channels) + 6


async def test_what_is_no_page_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def books(self: object, place: object) -> None:
        return None

    monkeypatch.setattr(shelf.ShelfMirror, "books", books)
    with pytest.raises(ContractError, match="return a Page"):
        await read_mirror(shelf.manifest)


async def test_a_plugin_without_a_provider_is_said_to_have_none() -> None:
    with pytest.raises(LookupError, match="mirrors nothing"):
        await read_mirror(randomness, config={"default_low": 0, "default_high": 1})
