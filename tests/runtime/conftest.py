"""An app with a plugin whose platform is on loopback, and databases as other processes have them."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from types import MappingProxyType

import pytest
from fastapi import FastAPI

from app.core.db import Database
from app.core.settings import Settings
from app.gateway import Gateway
from app.host.discovery import Loaded, Plugins
from app.main import create_app
from tests.conftest import Driver, new_driver
from tests.runtime import platform as fake
from tests.runtime.platform import Paced, Platform, open_platform
from tests.support.databases import empty


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    """A platform, and the plugin as it is before a test says otherwise."""
    before = (Paced.limits_of, Paced.learned_of)
    async with open_platform() as opened:
        yield opened
    Paced.limits_of, Paced.learned_of = staticmethod(before[0]), before[1]


@pytest.fixture
def team() -> str:
    """An owner of limits that no other test has."""
    return f"T-{uuid.uuid4()}"


@pytest.fixture
async def here(settings: Settings) -> AsyncIterator[Database]:
    """One process's connections."""
    async with Database(settings) as db:
        yield db


@pytest.fixture
async def there(settings: Settings) -> AsyncIterator[Database]:
    """Another process's."""
    async with Database(settings) as db:
        yield db


@pytest.fixture(scope="session")
async def paced_app(settings: Settings, plugins: Plugins) -> AsyncIterator[FastAPI]:
    """An app that has the plugin."""
    loaded = Loaded(fake.manifest, "tests", "0", fake.manifest.settings.model_validate({}))
    api = create_app(settings, replace(plugins, loaded=MappingProxyType({**plugins.loaded, "paced": loaded})))
    async with api.router.lifespan_context(api):
        yield api


@pytest.fixture
async def paced_gateway(paced_app: FastAPI) -> AsyncIterator[Gateway]:
    """Its parts, on an empty database."""
    gateway: Gateway = paced_app.state.gateway
    gateway.targets.clear()
    yield gateway
    await empty(gateway.db.pool)


@pytest.fixture
async def town(paced_gateway: Gateway, paced_app: FastAPI, platform: Platform, team: str) -> AsyncIterator[Driver]:
    """A driver whose community has the plugin."""
    driver = await new_driver(paced_gateway, paced_app, "one")
    async with driver.http:
        config = {"url": platform.url, "team": team, "secret": "s"}
        assert (await driver.put(plugins=[{"name": "paced", "config": config}])).is_success
        yield driver
