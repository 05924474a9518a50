"""Many small gateways at once: each on its own copy of a migrated database, with the votes plugin and its platform."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
import httpx
from cryptography.fernet import Fernet

from app.accounts.service import create_driver
from app.core.crypto import Vault
from app.core.db import Database
from app.core.embedded import Postgres, Valkey
from app.core.killpoints import KillPoint
from app.core.settings import Settings
from tests.faults.rig import SECRET, Rig, administer, stalling, until
from tests.support.servers import free_port, wait_ready
from tests.support.sink import Posted, Sink, open_sink

HOOK = "/api/hooks/town/votes"
REPOSITORY = Path(__file__).parents[2]
_numbers = count()


@dataclass(slots=True)
class VotesRig(Rig):
    """A gateway with the votes plugin alone, and the endpoint that hears all of its events."""

    sink: Sink = field(default_factory=Sink)
    platform: Path = Path()

    def start_doomed(self, name: str, point: KillPoint) -> subprocess.Popen[bytes]:
        """Start a process that ends at that point."""
        doomed = replace(self, environment={**self.environment, "METAGOV_TEST_KILL_AT": point.name})
        return doomed.start(name)  # `children` is the same object in both

    async def died(self, name: str, point: KillPoint, seconds: float = 120) -> None:
        """Wait until that process has ended by SIGKILL at the point, and by nothing else."""

        async def ended() -> bool:
            return self.children[name].poll() is not None

        await until(ended, seconds, f"{name} dies at {point.name}")
        assert self.children[name].poll() == -signal.SIGKILL, self.log.read_text()[-4000:]
        said = [json.loads(line) for line in self.log.read_text().splitlines() if "kill point reached" in line]
        assert point.name in [line["point"] for line in said], "it died where it was meant to"

    def on_platform(self, file: str) -> list[dict[str, Any]]:
        """What the plugin did there."""
        path = self.platform / file
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    async def register(self, url: str) -> None:
        """Make the community with the plugin, and the endpoint."""
        assert await self.enable() == 201
        async with self.client() as http:
            endpoint = await http.post("/api/internal/driver/endpoints", json={"url": url, "events": ["votes.*"]})
            assert endpoint.status_code == 201, endpoint.text
            self.endpoint_secret = endpoint.json()["secret"]

    async def enable(self, **others: dict[str, Any]) -> int:
        """Have the community with the plugin, and with others by their configurations; returns the status."""
        settings = {"webhook_secret": SECRET, "platform": str(self.platform)}
        plugins = [{"name": name, "config": config} for name, config in {"votes": settings, **others}.items()]
        async with self.client() as http:
            put = await http.put("/api/internal/community/town", json={"readable_name": "Town", "plugins": plugins})
        assert put.is_success, put.text
        return put.status_code

    async def send(self, text: str, **order: object) -> int:
        """Post a webhook until it is acknowledged, as platforms do; returns the status. Raises TimeoutError."""
        async with self.client(timeout=5) as http:
            return await self.send_by(http, text, **order)

    async def send_by(self, http: httpx.AsyncClient, text: str, **order: object) -> int:
        """The same, by a client that many share."""
        body, headers = stalling(text, **order)
        async with asyncio.timeout(90):
            while True:
                try:
                    status = (await http.post(HOOK, content=body, headers=headers)).status_code
                except httpx.TransportError:
                    status = 503
                if status != 503:
                    assert status in (200, 202), status
                    return status
                await asyncio.sleep(0.1)

    def posts_by_id(self) -> dict[str, list[Posted]]:
        """webhook-id -> what was posted under it; every signature holds and every id is its event's."""
        found: dict[str, list[Posted]] = {}
        for post in list(self.sink.posts):
            event = post.verify(self.endpoint_secret)
            assert event["id"] == post.headers["webhook-id"]
            found.setdefault(event["id"], []).append(post)
        return found


@dataclass(frozen=True, slots=True)
class Template:
    """A migrated database with one driver, that copies are made of."""

    postgres: Postgres
    valkey: Valkey
    name: str
    secret_keys: str
    api_key: str

    def url(self, database: str) -> str:
        """A database's address on the same server."""
        return self.postgres.url.replace("/metagov?", f"/{database}?")

    async def copy(self) -> str:
        """A new database; its address."""
        name = f"{self.name}_{next(_numbers)}"
        await administer(self.postgres, f'CREATE DATABASE "{name}" TEMPLATE "{self.name}"')
        return self.url(name)

    async def drop(self, url: str) -> None:
        """Drop a copy by its address, once its test is over."""
        name = url.partition("?")[0].rpartition("/")[2]
        await administer(self.postgres, f'DROP DATABASE "{name}" WITH (FORCE)')


async def make_template(postgres: Postgres, valkey: Valkey) -> Template:
    """Migrate a database, and add the driver."""
    name = f"votes_{os.getpid()}_{next(_numbers)}"
    await administer(postgres, f'CREATE DATABASE "{name}"')
    template = Template(postgres, valkey, name, Fernet.generate_key().decode(), "")
    command = [sys.executable, "-m", "app.cli", "migrate"]
    with TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "PYTHONPATH": f"{_install(Path(folder))}{os.pathsep}{REPOSITORY}",
            "METAGOV_DATABASE_URL": template.url(name),
        }
        await asyncio.to_thread(
            subprocess.run, command, check=True, env=environment, timeout=60, stdout=subprocess.DEVNULL, cwd=REPOSITORY
        )
    settings = Settings(database_url=template.url(name), secret_keys=template.secret_keys)
    async with Database(settings) as db, db.begin() as session:
        made = await create_driver(session, Vault(settings.fernet_keys), "driver")
    return replace(template, api_key=made.api_key)


def _install(folder: Path) -> Path:
    """The plugin as a package from outside, found by its distribution's entry points; what to put on the path."""
    info = folder / "site" / "votes-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: votes\nVersion: 0\n")
    (info / "entry_points.txt").write_text(
        "[metagov.plugins]\nvotes = tests.faults.minutes:manifest\nquotes = tests.faults.quotes:manifest\n"
    )
    return info.parent


@asynccontextmanager
async def open_votes(
    template: Template,
    folder: Path,
    *,
    door: asyncio.Semaphore | None = None,
    doom: KillPoint | None = None,
    **more: str,
) -> AsyncIterator[VotesRig]:
    """An API that is ready (and dies at `doom`) on a copy of the template; workers are the caller's to start.

    `door` is held until it is ready: many that start at once only keep each other from it.
    """
    platform = folder / "platform"
    platform.mkdir(parents=True)
    site = _install(folder)
    url = await template.copy()
    port = free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": f"{site}{os.pathsep}{REPOSITORY}",
        "METAGOV_DATABASE_URL": url,
        "METAGOV_REDIS_URL": template.valkey.url,
        "METAGOV_SECRET_KEYS": template.secret_keys,
        "METAGOV_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "METAGOV_ALLOW_PRIVATE_NETWORKS": "true",
        "METAGOV_LOG_LEVEL": "warning",
        "METAGOV_DATABASE_POOL": "4",
        "METAGOV_HANDLER_TIMEOUT": "1",
        "METAGOV_ARCHIVE_URL": (folder / "archives").as_uri(),
        "METAGOV_GRAPH_DIR": str(folder / "graphs"),
        **more,
    }
    log = folder / "log"
    async with open_sink() as sink:
        rig = VotesRig(
            template.postgres,
            template.valkey,
            url,
            environment,
            port,
            template.api_key,
            log,
            sink=sink,
            platform=platform,
        )
        try:
            async with door or asyncio.Semaphore():
                if doom is None:
                    rig.start("api")
                else:
                    rig.start_doomed("api", doom)
                await wait_ready(rig.url, 90)
                await rig.register(sink.url)
            yield rig
        except BaseException:
            print(f"the processes' last words:\n{log.read_text()[-4000:]}")
            raise
        finally:
            await asyncio.to_thread(rig.stop_all)
            with contextlib.suppress(OSError, asyncpg.PostgresError):
                await template.drop(url)
