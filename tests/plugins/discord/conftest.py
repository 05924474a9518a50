"""A fake Discord, and the gateway with the plugin pointed at it. All requests are held to Discord's own document."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.core.settings import Settings
from app.host.discovery import Loaded, Plugins, discover
from app.main import create_app
from app.worker import Drains
from metagov_sdk.testing import Binding
from plugins.discord import manifest
from plugins.discord.api import FACTS
from tests.conftest import Driver, make_settings
from tests.fakes.discord import FakeDiscord
from tests.fakes.discord_world import Channel, Guild, Message
from tests.support.databases import create_database, drop_database
from tests.support.discord_spec import REQUIRED, SPEC, load_spec

VOTE = "process/discord.vote"
SHARED = "/api/hooks/discord"
TOWN = {"X-Metagov-Community": "town"}


@pytest.fixture(scope="session")
async def discord_server() -> AsyncIterator[FakeDiscord]:
    """Discord, for the whole session: the app's settings hold its address and its key."""
    async with FakeDiscord() as fake:
        yield fake


@pytest.fixture
def discord(discord_server: FakeDiscord) -> Iterator[FakeDiscord]:
    """Discord, with nothing asked of it yet. Afterwards every request is held to its published document."""
    discord_server.reset()
    FACTS.clear()
    yield discord_server
    # Where the document is absent, test_spec.py says so.
    if SPEC.exists() or os.environ.get(REQUIRED) == "required":
        assert load_spec().faults(discord_server.requests) == []


@pytest.fixture
def town(discord: FakeDiscord) -> Guild:
    """A server that the bot is in."""
    return discord.add_guild("Town")


@pytest.fixture
async def binding(discord: FakeDiscord, town: Guild) -> AsyncIterator[Binding]:
    """What runs the plugin's code against the fake, without a gateway: `perform(manifest, …, **binding)`.

    It is the gateway that keeps to limits, so there are none here.
    """
    discord.limits.enforce = False
    async with httpx.AsyncHTTPTransport() as transport:
        yield Binding(config={"guild_id": str(town.id)}, settings=discord.settings(), transport=transport)


@pytest.fixture(scope="session")
def plugins(discord_server: FakeDiscord) -> Plugins:
    """The first-party plugins, Discord among them."""
    found = discover({})
    settings = manifest.settings.model_validate(discord_server.settings())
    loaded = Loaded(manifest, "tests", "0", settings)
    return replace(found, loaded=MappingProxyType({**found.loaded, "discord": loaded}))


@pytest.fixture(scope="session")
async def settings(worker_name: str) -> AsyncIterator[Settings]:
    """A database of its own: another app runs on the common one."""
    name = f"{worker_name}_discord"
    yield make_settings(await create_database(name))
    await drop_database(name)


@pytest.fixture(scope="session")
async def app(settings: Settings, plugins: Plugins) -> AsyncIterator[FastAPI]:
    """The API with the plugin, its lifespan running."""
    api = create_app(settings, plugins)
    async with api.router.lifespan_context(api):
        yield api


def own_app(discord: FakeDiscord, guild: Guild) -> dict[str, Any]:
    """The config of a community with an app of its own, which needs nobody's leave."""
    key = discord.interactions.public_key
    return {"guild_id": str(guild.id), "bot_token": discord.bot_token, "public_key": key}


@pytest.fixture
async def square(driver: Driver, discord: FakeDiscord, town: Guild) -> Channel:
    """The town's one channel, the plugin enabled."""
    put = await driver.put(plugins=[{"name": "discord", "config": own_app(discord, town)}])
    assert put.status_code == 201, put.text
    return next(iter(town.channels.values()))


async def shown(driver: Driver, started: httpx.Response) -> dict[str, Any]:
    answer = await driver.http.get(started.headers["location"], headers=TOWN)
    process: dict[str, Any] = answer.json()
    return process


def counts(process: dict[str, Any]) -> dict[str, int]:
    return {tally["option"]: tally["count"] for tally in process["outcome"]["options"]}


async def counted(driver: Driver, drains: Drains, started: httpx.Response, total: int) -> dict[str, Any]:
    """The process once so many have voted; steps are taken at a pace."""
    async with asyncio.timeout(20):
        while (process := await shown(driver, started))["outcome"]["total_voters"] < total:
            await drains.until_idle()
            await asyncio.sleep(0.1)
    return process


async def completed(driver: Driver, drains: Drains, started: httpx.Response) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while (process := await shown(driver, started))["status"] != "completed":
            await drains.until_idle()
            await asyncio.sleep(0.1)
    await drains.until_idle()
    return process


async def drawn(drains: Drains, message: Message, text: str) -> None:
    """Until the message shows a text; it is drawn at a pace."""
    async with asyncio.timeout(20):
        while text not in str(message.embeds):
            await drains.until_idle()
            await asyncio.sleep(0.1)
