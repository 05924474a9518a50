"""What the fault tests break: durable servers of their own, and the gateway's processes on them."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from cryptography.fernet import Fernet

from app.accounts.service import create_driver
from app.core.crypto import Vault
from app.core.db import Database, plain_dsn
from app.core.embedded import EmbeddedServer, Postgres, Valkey
from app.core.settings import Settings
from tests.plugins.github_payloads import issues_opened
from tests.support.servers import free_port, stop, wait_ready
from tests.support.sink import Sink

SECRET = "the platforms' webhook secret"
HOOK = "/api/hooks/town/github"
STALL_HOOK = "/api/hooks/town/stall"
_COMMAND = [sys.executable, "-m", "app.cli"]
_REPOSITORY = Path(__file__).parents[2]


@dataclass(slots=True)
class Rig:
    """A migrated database with one driver and its community, and the processes started on it."""

    postgres: Postgres
    valkey: Valkey
    database_url: str
    environment: dict[str, str]
    port: int
    api_key: str
    log: Path
    """What the processes write."""
    endpoint_secret: str = ""
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start `api` or a worker under that name."""
        arguments = ["serve", "--port", str(self.port)] if name == "api" else ["worker"]
        with self.log.open("ab") as log:
            command = [*_COMMAND, *arguments]
            self.children[name] = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        return self.children[name]

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone. Nothing but this may have ended it."""
        assert self.children[name].poll() is None, f"{name} ended by itself"
        self.children[name].kill()
        self.children[name].wait(10)

    def client(self, **options: Any) -> httpx.AsyncClient:
        """A client with the driver's key; platforms need none, and it does them no harm."""
        headers = {"Authorization": f"Bearer {self.api_key}", "X-Metagov-Community": "town"}
        options = {"timeout": 10, **options}
        return httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, **options)

    async def rows(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Look into the database, past the gateway."""
        connection = await asyncpg.connect(plain_dsn(self.database_url), timeout=5)
        try:
            return list(await connection.fetch(query, *arguments))
        finally:
            await connection.close()

    async def count(self, query: str, *arguments: object) -> int:
        """The one number a query returns."""
        return int((await self.rows(query, *arguments))[0][0])

    async def register(self, url: str) -> None:
        """Make the community with its plugins and an endpoint that hears everything of theirs."""
        names = ["github", "stall"] if "PYTHONPATH" in self.environment else ["github"]
        plugins = [{"name": name, "config": {"webhook_secret": SECRET}} for name in names]
        async with self.client() as http:
            put = await http.put("/api/internal/community/town", json={"readable_name": "Town", "plugins": plugins})
            assert put.status_code == 201, put.text
            wanted = {"url": url, "events": ["github.*", "stall.*"]}
            endpoint = await http.post("/api/internal/driver/endpoints", json=wanted)
            assert endpoint.status_code == 201, endpoint.text
            self.endpoint_secret = endpoint.json()["secret"]

    def stop_all(self) -> None:
        """End every process that was started, one that stands still too."""
        for child in self.children.values():
            if child.poll() is None:
                child.send_signal(signal.SIGCONT)
                child.send_signal(signal.SIGTERM)
        for child in self.children.values():
            stop(child, 8)


@asynccontextmanager
async def open_rig(postgres: Postgres, valkey: Valkey, sink_url: str, folder: Path, **more: str) -> AsyncIterator[Rig]:
    """API and worker, ready, on a new database. The stall plugin is installed in them."""
    name = f"faults_{time.monotonic_ns()}"
    connection = await asyncpg.connect(plain_dsn(postgres.url))
    await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()
    database_url = postgres.url.replace("/metagov?", f"/{name}?")
    # A plugin from outside is found by its distribution's entry points.
    info = folder / "site" / "stall-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stall\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[metagov.plugins]\nstall = tests.faults.stall:manifest\n")
    settings = Settings(database_url=database_url, secret_keys=Fernet.generate_key().decode())
    port = free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": f"{info.parent}{os.pathsep}{_REPOSITORY}",
        "METAGOV_DATABASE_URL": database_url,
        "METAGOV_REDIS_URL": valkey.url,
        "METAGOV_SECRET_KEYS": settings.secret_keys.get_secret_value(),
        "METAGOV_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "METAGOV_ALLOW_PRIVATE_NETWORKS": "true",
        "METAGOV_LOG_LEVEL": "warning",
        "METAGOV_HANDLER_TIMEOUT": "3",
        **more,
    }
    await asyncio.to_thread(
        subprocess.run, [*_COMMAND, "migrate"], check=True, env=environment, timeout=60, stdout=subprocess.DEVNULL
    )
    async with Database(settings) as db, db.begin() as session:
        made = await create_driver(session, Vault(settings.fernet_keys), "driver")
    rig = Rig(postgres, valkey, database_url, environment, port, made.api_key, folder / "log")
    try:
        rig.start("api")
        rig.start("worker")
        await wait_ready(rig.url)
        await rig.register(sink_url)
        yield rig
    except BaseException:
        print(f"the processes' last words:\n{rig.log.read_text()[-4000:]}")
        raise
    finally:
        rig.stop_all()
        await launch(postgres)
        await launch(valkey)


async def launch(server: EmbeddedServer) -> None:
    """Start a server that is not running, and wait until it serves."""
    server.launch()  # on this thread: the server ends with the thread that starts it
    await asyncio.to_thread(server.wait_ready, 30)


async def crash(server: EmbeddedServer, number: signal.Signals) -> None:
    """End a server with a signal and wait until it is gone. For Postgres, SIGQUIT is the immediate stop."""
    assert server.pid is not None
    os.kill(server.pid, number)
    deadline = time.monotonic() + 10
    while _alive(server):
        assert time.monotonic() < deadline, f"{server.name} does not end"
        await asyncio.sleep(0.01)


def _alive(server: EmbeddedServer) -> bool:
    process = server._process
    return process is not None and process.poll() is None


def signed(delivery: str) -> tuple[bytes, dict[str, str]]:
    """GitHub's `issues` webhook with that delivery id, which is the issue's title too."""
    payload = issues_opened()
    payload["issue"]["title"] = delivery
    body = json.dumps(payload).encode()
    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    return body, {
        "content-type": "application/json",
        "X-GitHub-Event": "issues",
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature-256": f"sha256={digest}",
    }


def stalling(text: str, **order: object) -> tuple[bytes, dict[str, str]]:
    """A webhook for the stall plugin."""
    body = json.dumps({"text": text, **order}).encode()
    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    return body, {"X-Delivery": text, "X-Signature": f"sha256={digest}"}


@dataclass(slots=True)
class Platform:
    """A client-side history: what was sent, and how each try was answered."""

    http: httpx.AsyncClient
    sent: list[str] = field(default_factory=list)
    answers: dict[int, int] = field(default_factory=dict)
    """How many tries got each status; 0 is a connection that broke."""
    seconds: list[float] = field(default_factory=list)
    at: dict[str, float] = field(default_factory=dict)
    """When each was acknowledged, by the monotonic clock."""

    async def attempt(self, body: bytes, headers: dict[str, str]) -> int:
        """One try: the status, or 0."""
        started = time.perf_counter()
        try:
            status = (await self.http.post(HOOK, content=body, headers=headers)).status_code
        except httpx.TransportError:
            status = 0
        self.seconds.append(time.perf_counter() - started)
        self.answers[status] = self.answers.get(status, 0) + 1
        return status

    async def send(self, delivery: str, *, patience: float = 60) -> None:
        """Repeat until a 2xx, as platforms do. Raises TimeoutError."""
        body, headers = signed(delivery)
        self.sent.append(delivery)
        async with asyncio.timeout(patience):
            while not 200 <= (status := await self.attempt(body, headers)) < 300:
                assert status in (0, 503), f"{delivery}: {status}"
                await asyncio.sleep(0.1)
        self.at[delivery] = time.monotonic()


@dataclass(frozen=True, slots=True)
class Histories:
    """The sent set next to what the gateway keeps and what the endpoint heard."""

    sent: set[str]
    receipts: list[str]
    events: list[str]
    delivered: dict[str, str]
    """webhook-id -> delivery id, of every post whose signature holds."""
    posts: int

    def __str__(self) -> str:
        return (
            f"sent {len(self.sent)}, receipts {len(self.receipts)}, events {len(self.events)}, "
            f"distinct webhook-ids {len(self.delivered)} in {self.posts} posts"
        )

    def check(self) -> None:
        """Nothing lost, nothing doubled."""
        assert sorted(self.receipts) == sorted(self.sent), "one receipt for each webhook that was acknowledged"
        assert sorted(self.events) == sorted(self.sent), "one event for each"
        assert sorted(self.delivered.values()) == sorted(self.sent), "one message id for each"


async def compare(rig: Rig, platform: Platform, sink: Sink) -> Histories:
    """Read the three histories of GitHub's webhooks."""
    receipts = await rig.rows("SELECT body FROM receipts WHERE plugin = 'github'")
    events = await rig.rows("SELECT data FROM events WHERE source = 'github'")
    delivered: dict[str, str] = {}
    for post in sink.posts:
        event = post.verify(rig.endpoint_secret)
        assert event["id"] == post.headers["webhook-id"]
        if event["source"] == "github":
            title = event["data"]["issue"]["title"]
            assert delivered.setdefault(event["id"], title) == title
    return Histories(
        set(platform.sent),
        [json.loads(row["body"])["issue"]["title"] for row in receipts],
        [json.loads(row["data"])["issue"]["title"] for row in events],
        delivered,
        len(sink.posts),
    )


async def until(true: Callable[[], Awaitable[bool]], seconds: float, what: str) -> float:
    """Wait until it is so; returns the seconds that took. Raises TimeoutError."""
    started = time.monotonic()
    while not await true():
        if time.monotonic() - started > seconds:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(0.05)
    return time.monotonic() - started
