"""A gateway whose plugins mirror: Discord, pointed at the fake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import pytest
from fastapi import FastAPI

from app.core.settings import Settings
from app.gateway import Gateway
from app.host.discovery import Loaded, Plugins, discover
from app.main import create_app
from app.mirrors.mirrors import Mirrors
from app.mirrors.schema import apply_schemas
from app.mirrors.walking import sync_due
from metagov_sdk import Limit
from plugins.discord import buckets, manifest
from tests.conftest import Driver, make_settings
from tests.fakes.discord import FakeDiscord
from tests.fakes.discord_world import Guild
from tests.mirrors import shelf
from tests.mirrors.town import Rows, Town, differences, mirrored, truth
from tests.support.databases import create_database, drop_database


@pytest.fixture(scope="session")
async def discord_server() -> AsyncIterator[FakeDiscord]:
    """Discord, for the whole session."""
    async with FakeDiscord(pace=0.0005, enforce_limits=False) as fake:
        yield fake


@pytest.fixture(autouse=True)
def _no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin asks as fast as it can: what is tested is not its pace."""
    monkeypatch.setattr(buckets, "GLOBAL", Limit("global", rate=1e6, per=1, burst=10_000))
    monkeypatch.setattr(buckets, "INVALID", Limit("invalid", rate=1e6, per=1, burst=10_000))
    monkeypatch.setattr(buckets, "_INVALID_GUARD", Limit("invalid", rate=1e6, per=1, burst=10_000, cost=0))


@pytest.fixture
def discord(discord_server: FakeDiscord) -> Iterator[FakeDiscord]:
    """Discord, with nothing asked of it yet."""
    discord_server.reset()
    yield discord_server
    discord_server.watch = None
    discord_server.guilds.clear()
    discord_server.channels.clear()


@pytest.fixture(scope="session")
def plugins(discord_server: FakeDiscord) -> Plugins:
    """The first-party plugins, Discord among them, and the shelf."""
    found = discover({})
    settings = manifest.settings.model_validate(discord_server.settings())
    loaded = {
        **found.loaded,
        "discord": Loaded(manifest, "tests", "0", settings),
        "shelf": Loaded(shelf.manifest, "tests", "0", shelf.manifest.settings()),
    }
    return replace(found, loaded=MappingProxyType(loaded), broken=())


@pytest.fixture(scope="session")
async def settings(worker_name: str) -> AsyncIterator[Settings]:
    """A database of its own: another app runs on the common one."""
    name = f"{worker_name}_mirrors"
    yield make_settings(await create_database(name), mirror_pages_at_once=8)
    await drop_database(name)


@pytest.fixture(scope="session")
async def app(settings: Settings, plugins: Plugins) -> AsyncIterator[FastAPI]:
    """The API with the plugins, its lifespan running, their tables made."""
    api = create_app(settings, plugins)
    async with api.router.lifespan_context(api):
        use: Mirrors = api.state.mirrors
        done = await apply_schemas(use.db, use.specs())
        assert done.refused == {}
        yield api


@pytest.fixture
async def gateway(gateway: Gateway) -> AsyncIterator[Gateway]:
    """The parts of the app, on an empty database whose mirrors are empty too."""
    shelf.SHELF.reset()
    yield gateway
    tables = await gateway.db.pool.fetch(
        "SELECT format('%I.%I', table_schema, table_name) AS name FROM information_schema.tables "
        "WHERE table_schema LIKE 'mirror\\_%'"
    )
    for table in tables:
        await gateway.db.pool.execute(f"DELETE FROM {table['name']}")


@dataclass(slots=True)
class Mirrored:
    """A community whose instance is mirrored, and the worker's hand on it."""

    gateway: Gateway
    driver: Driver
    plugin: str
    instance: str = ""

    @property
    def use(self) -> Mirrors:
        return self.gateway.mirrors

    async def enable(self, config: dict[str, Any]) -> None:
        """The community with its instance."""
        answer = await self.driver.put(plugins=[{"name": self.plugin, "config": config}])
        assert answer.status_code == 201, answer.text
        (self.instance,) = [each["id"] for each in answer.json()["plugins"]]

    async def ask(self, *, sweep: bool = False) -> dict[str, Any]:
        """What the API answers to being asked for a run."""
        answer = await self.driver.post(f"mirror/{self.plugin}/sync", {"sweep": sweep})
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    async def sync(self, *, sweep: bool = False) -> dict[str, Any]:
        """A run to its end; how the mirror stands then."""
        await self.ask(sweep=sweep)
        await self.work()
        return await self.status()

    async def drain(self) -> None:
        """What a worker does while there is something due."""
        while await sync_due(self.use):
            pass

    async def work(self, patience: float = 60) -> None:
        """Read until no run is under way and nothing is due."""
        async with asyncio.timeout(patience):
            while True:
                await self.drain()
                if not await self.gateway.db.pool.fetchval(
                    "SELECT EXISTS (SELECT FROM mirror_runs WHERE finished_at IS NULL) "
                    "OR EXISTS (SELECT FROM mirror_partitions WHERE next_at IS NOT NULL) "
                    "OR EXISTS (SELECT FROM dirty_marks)"
                ):
                    return
                await self.hurry()

    async def hurry(self) -> None:
        """Time passes: what waits for another try is due, and the leases of the dead have ended."""
        await self.gateway.db.pool.execute(
            "UPDATE mirror_partitions SET next_at = now(), lease_until = NULL WHERE next_at IS NOT NULL"
        )

    async def status(self) -> dict[str, Any]:
        """GET …/mirror/<plugin>."""
        answer = await self.driver.get(f"mirror/{self.plugin}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def rows(self, table: str) -> dict[str, dict[str, Any]]:
        """A table's rows of one key, deleted ones too."""
        found = await self.gateway.db.pool.fetch(
            f'SELECT * FROM "mirror_{self.plugin}"."{table}" WHERE instance_id = $1', self.instance
        )
        return {str(row["id"]): dict(row) for row in found}

    async def holds(self, town: Town) -> list[str]:
        """In what the tables differ from the platform."""
        wanted: Rows = truth(town)
        async with self.gateway.db.pool.acquire() as connection:
            return differences(await mirrored(connection, self.instance, wanted), wanted)


@pytest.fixture
def mirror(gateway: Gateway, driver: Driver) -> Mirrored:
    """Discord's mirror; `enable` comes first."""
    return Mirrored(gateway, driver, "discord")


@pytest.fixture
async def books(gateway: Gateway, driver: Driver) -> Mirrored:
    """The shelf's mirror."""
    made = Mirrored(gateway, driver, "shelf")
    await made.enable({})
    return made


def own_app(discord: FakeDiscord, guild: Guild) -> dict[str, Any]:
    """The config of a community with an app of its own, which needs nobody's leave."""
    key = discord.interactions.public_key
    return {"guild_id": str(guild.id), "bot_token": discord.bot_token, "public_key": key}
