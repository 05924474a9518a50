"""Fixtures: a real Postgres and Valkey per run, a migrated database per worker, the app in process or as processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet
from fastapi import FastAPI

from app.accounts.service import create_driver
from app.core.crypto import Vault
from app.core.db import Database
from app.core.embedded import EmbeddedServer, Postgres, Valkey, start_all, stop_all
from app.core.settings import Settings
from app.gateway import Gateway
from app.host.discovery import Loaded, Plugins, discover
from app.main import create_app
from app.worker import Drains, open_drains
from tests.support import probe
from tests.support.databases import REDIS_URL, SERVER_URL, create_database, drop_database, empty
from tests.support.servers import Server, run_server
from tests.support.sink import Sink, open_sink

PROBE_SECRET = "the deployment's webhook secret"
_servers: list[EmbeddedServer] = []
_folder: list[tempfile.TemporaryDirectory[str]] = []


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers once, in the process that the workers are started from."""
    if hasattr(config, "workerinput"):
        return
    _folder.append(tempfile.TemporaryDirectory(prefix="metagov-tests-", ignore_cleanup_errors=True))
    data = Path(_folder[0].name)
    if not os.environ.get(SERVER_URL):
        _servers.append(Postgres(data, fast=True))
    if not os.environ.get(REDIS_URL):
        _servers.append(Valkey(data))
    start_all(*_servers)
    for server in _servers:
        os.environ[SERVER_URL if isinstance(server, Postgres) else REDIS_URL] = server.url


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what was started."""
    stop_all(*_servers)
    for server in _servers:
        os.environ.pop(SERVER_URL if isinstance(server, Postgres) else REDIS_URL, None)
    _servers.clear()
    while _folder:
        _folder.pop().cleanup()


@pytest.fixture(scope="session")
def worker_name(worker_id: str) -> str:
    """Tells the databases of parallel pytest workers apart."""
    return f"test_{os.getpid()}_{worker_id}"


def make_settings(database_url: str, **overrides: Any) -> Settings:
    """Settings for a test database. Small pools: many databases are open at once, on one server."""
    overrides.setdefault("database_pool", 4)
    return Settings(
        database_url=database_url,
        redis_url=os.environ[REDIS_URL],
        secret_keys=Fernet.generate_key().decode(),
        allow_private_networks=True,
        metrics_open=True,
        log_level="error",
        **overrides,
    )


@pytest.fixture(scope="session")
async def settings(worker_name: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Settings]:
    """Settings for this worker's own database, and a folder for archives."""
    folder = tmp_path_factory.mktemp("archives")
    yield make_settings(
        await create_database(worker_name),
        archive_url=folder.as_uri(),
        graph_dir=str(tmp_path_factory.mktemp("graphs")),
        database_pool=10,
    )
    await drop_database(worker_name)


@pytest.fixture(scope="session")
def plugins() -> Plugins:
    """The first-party plugins, and the probe."""
    found = discover({})
    loaded = Loaded(
        probe.manifest, "tests", "0", probe.manifest.settings.model_validate({"webhook_secret": PROBE_SECRET})
    )
    return replace(found, loaded=MappingProxyType({**found.loaded, "probe": loaded}))


@pytest.fixture(scope="session")
async def app(settings: Settings, plugins: Plugins) -> AsyncIterator[FastAPI]:
    """The API, its lifespan running."""
    api = create_app(settings, plugins)
    async with api.router.lifespan_context(api):
        yield api


@pytest.fixture
async def gateway(app: FastAPI) -> AsyncIterator[Gateway]:
    """The parts of the app, on an empty database; the probe well-behaved."""
    gateway: Gateway = app.state.gateway
    probe.LOG.clear()
    probe.BEHAVIOUR.clear()
    gateway.targets.clear()
    app.state.public_calls.clear()
    yield gateway
    probe.BEHAVIOUR.clear()
    await empty(gateway.db.pool)


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver and a client that speaks for it."""

    id: str
    api_key: str
    signing_secret: str
    http: httpx.AsyncClient
    db: Database

    async def put(self, slug: str = "town", plugins: list[dict[str, Any]] | None = None, **body: Any) -> httpx.Response:
        """PUT a community."""
        wanted = {"readable_name": slug, **body, **({} if plugins is None else {"plugins": plugins})}
        return await self.http.put(f"/api/internal/community/{slug}", json=wanted)

    async def act(self, name: str, parameters: dict[str, Any] | None = None, slug: str = "town") -> httpx.Response:
        """Perform an action."""
        return await self.http.post(
            f"/api/action/{name}", json={"parameters": parameters or {}}, headers={"X-Metagov-Community": slug}
        )

    async def get(self, path: str, slug: str = "town", **query: Any) -> httpx.Response:
        """GET with the community header; events are read once all that is committed can be seen."""
        if path == "events":
            await settle(self.db)
        return await self.http.get(f"/api/internal/{path}", params=query, headers={"X-Metagov-Community": slug})

    async def post(self, path: str, body: Any = None, slug: str = "town", **headers: str) -> httpx.Response:
        """POST with the community header."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(f"/api/internal/{path}", json=body, headers={"X-Metagov-Community": slug, **names})


_OTHERS = """
SELECT array_agg(backend_xid::text) FROM pg_stat_activity
WHERE backend_xid IS NOT NULL AND (datname <> current_database() OR backend_type <> 'client backend')
"""


@dataclass(frozen=True)
class PatientDrains(Drains):
    """Queues that are idle only when nothing was held back by transactions of the tests that run beside this one.

    Postgres keeps one line for the whole server of what is older than every open transaction, and lanes wait for it.
    """

    db: Database

    async def until_idle(self) -> int:
        total = await super().until_idle()
        # A test that keeps a transaction open on purpose may be waiting here too: neither waits for ever.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                total += await self._until_others_are_done()
        return total

    async def _until_others_are_done(self) -> int:
        total = 0
        while others := set(await self.db.pool.fetchval(_OTHERS) or ()):
            while others & set(await self.db.pool.fetchval(_OTHERS) or ()):
                await asyncio.sleep(0.01)
            if not (done := await super().until_idle()):
                break
            total += done
        return total


async def settle(db: Database) -> None:
    """Until every committed event is below the line that readers stop at: any transaction on the server holds it up."""
    behind = "SELECT EXISTS (SELECT FROM events WHERE xid >= pg_snapshot_xmin(pg_current_snapshot()))"
    async with asyncio.timeout(10):
        while await db.pool.fetchval(behind):
            await asyncio.sleep(0.01)


async def new_driver(gateway: Gateway, app: FastAPI, name: str) -> Driver:
    """A driver account with a client on the app in this process."""
    async with gateway.db.begin() as session:
        made = await create_driver(session, gateway.vault, name)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    client = httpx.AsyncClient(
        transport=transport, base_url="http://gateway.test", headers={"Authorization": f"Bearer {made.api_key}"}
    )
    return Driver(made.id, made.api_key, made.signing_secret, client, gateway.db)


@pytest.fixture
async def driver(gateway: Gateway, app: FastAPI) -> AsyncIterator[Driver]:
    """A driver."""
    made = await new_driver(gateway, app, "one")
    async with made.http:
        yield made


@pytest.fixture
async def other_driver(gateway: Gateway, app: FastAPI) -> AsyncIterator[Driver]:
    """A second driver."""
    made = await new_driver(gateway, app, "other")
    async with made.http:
        yield made


@pytest.fixture
async def anonymous(gateway: Gateway, app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a key: platforms, and strangers."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as client:
        yield client


@pytest.fixture
async def drains(gateway: Gateway) -> AsyncIterator[Drains]:
    """The worker's queues, to be drained by hand: `await drains.until_idle()`."""
    async with open_drains(gateway) as opened:
        yield PatientDrains(**dict(opened.items()), db=gateway.db)


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """A driver's endpoint on loopback."""
    async with open_sink() as opened:
        yield opened


@pytest.fixture(scope="session")
async def server(worker_name: str) -> AsyncIterator[Server]:
    """API and worker as real processes on a database of their own."""
    name = f"{worker_name}_server"
    settings = make_settings(await create_database(name))
    async with Database(settings) as db, db.begin() as session:
        made = await create_driver(session, Vault(settings.fernet_keys), "server")
    environment = {
        "METAGOV_DATABASE_URL": settings.database_url,
        "METAGOV_DATABASE_POOL": str(settings.database_pool),
        "METAGOV_REDIS_URL": settings.redis_url,
        "METAGOV_SECRET_KEYS": settings.secret_keys.get_secret_value(),
        "METAGOV_ALLOW_PRIVATE_NETWORKS": "true",
        "METAGOV_METRICS_OPEN": "true",
        "METAGOV_LOG_LEVEL": "warning",
    }
    async with run_server(environment, made.api_key, made.signing_secret) as running:
        yield running
    await drop_database(name)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own METAGOV_* variables do not reach the tests."""
    for name in list(os.environ):
        if name.startswith("METAGOV_") and not name.startswith(("METAGOV_TEST_", "METAGOV_FUZZ_")):
            monkeypatch.delenv(name)
