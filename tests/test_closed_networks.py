"""With private networks closed, nothing a driver names is reached inside: endpoints, callbacks, plugins' URLs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from app.core.settings import Settings
from app.gateway import Gateway
from app.host.discovery import Plugins
from app.main import create_app
from app.worker import Drains, open_drains
from tests.conftest import Driver
from tests.core.loopback import Server, answering, serving
from tests.events.test_deliveries import close_a_vote, listed
from tests.events.test_endpoints import PROBE, register
from tests.support.problems import problem


@pytest.fixture
async def closed(gateway: Gateway, settings: Settings, plugins: Plugins) -> AsyncIterator[FastAPI]:
    """The API on the same database, private networks closed."""
    api = create_app(settings.model_copy(update={"allow_private_networks": False}), plugins)
    async with api.router.lifespan_context(api):
        yield api


@pytest.fixture
async def closed_drains(closed: FastAPI) -> AsyncIterator[Drains]:
    """A worker's queues, private networks closed."""
    async with open_drains(closed.state.gateway) as opened:
        yield opened


@pytest.fixture
async def inside() -> AsyncIterator[Server]:
    """A server that nobody outside should reach."""
    async with serving(answering(b"{}")) as server:
        yield server


def hosts(server: Server) -> list[str]:
    return [f"http://{host}:{server.port}" for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1")]


async def test_endpoints_and_callbacks(driver: Driver, closed_drains: Drains, inside: Server) -> None:
    """Those that were registered before the operator closed the networks, or whose names point inside by now."""
    await driver.put(plugins=[PROBE])
    for url in hosts(inside):
        await register(driver, f"{url}/endpoint")
        await close_a_vote(driver, f"{url}/callback")
    await closed_drains.until_idle()
    assert inside.connections == 0
    rows = await listed(driver)
    tried = [row for row in rows if row["attempts"]]
    assert tried
    for row in tried:
        attempts = (await driver.get(f"deliveries/{row['id']}/attempts")).json()["attempts"]
        assert all(attempt["status"] is None and "loopback" in attempt["error"] for attempt in attempts)


async def test_urls_in_a_plugins_config(driver: Driver, closed: FastAPI, inside: Server) -> None:
    transport = httpx.ASGITransport(closed, raise_app_exceptions=False)
    headers = {**driver.http.headers, "X-Metagov-Community": "town"}
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test", headers=headers) as http:
        for url in hosts(inside):
            put = await driver.put(plugins=[{"name": "sourcecred", "config": {"server_url": url}}])
            assert put.status_code in (200, 201), put.text
            problem(await http.post("/api/action/sourcecred.total-cred", json={"parameters": {}}), 502)
    assert inside.connections == 0
