"""What the fault tests break: durable servers of their own, and the gateway's processes on them."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from aiohttp import web
from cryptography.fernet import Fernet
from standardwebhooks import WebhookVerificationError

from app.accounts.service import create_driver
from app.core.crypto import Vault
from app.core.db import Database, plain_dsn
from app.core.embedded import EmbeddedServer, Postgres, Valkey
from app.core.settings import Settings
from tests.plugins.github_payloads import issues_opened
from tests.support.servers import free_port, stop, wait_ready
from tests.support.sink import Posted, Sink

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
    ports: dict[str, int] = field(default_factory=dict)
    """Those of the API processes beside the first."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url_of(self, api: str) -> str:
        """Where an API process listens, the same in all its lives: `api`, or `api 2`, `api 3` and so on."""
        port = self.port if api == "api" else self.ports.setdefault(api, free_port())
        return f"http://127.0.0.1:{port}"

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start an API process (`api`, `api 2`) or a worker (any other name) under that name."""
        is_api = name.partition(" ")[0] == "api"
        arguments = ["serve", "--port", self.url_of(name).rpartition(":")[2]] if is_api else ["worker"]
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
    await administer(postgres, f'CREATE DATABASE "{name}"')
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
        # A Postgres that was stopped hard writes every file of every database to disk before it serves again.
        await administer(postgres, f'DROP DATABASE "{name}" WITH (FORCE)')


async def administer(postgres: Postgres, statement: str) -> None:
    """Run a statement outside any test's database."""
    connection = await asyncpg.connect(plain_dsn(postgres.url))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def launch(server: EmbeddedServer) -> None:
    """Start a server that is not running, and wait until it serves."""
    server.launch()  # on this thread: the server ends with the thread that starts it
    await asyncio.to_thread(server.wait_ready, 90)


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
    tries: dict[str, list[int]] = field(default_factory=dict)
    """The answers to each delivery id, in order."""
    origins: Sequence[str] = ("",)
    """The API processes to choose among; the client's own unless told otherwise."""
    chance: random.Random = field(default_factory=random.Random)

    async def attempt(self, body: bytes, headers: dict[str, str]) -> int:
        """One try: the status, or 0."""
        started = time.perf_counter()
        try:
            url = self.chance.choice(self.origins) + HOOK
            status = (await self.http.post(url, content=body, headers=headers)).status_code
        except httpx.TransportError:
            status = 0
        self.seconds.append(time.perf_counter() - started)
        self.answers[status] = self.answers.get(status, 0) + 1
        self.tries.setdefault(headers["X-GitHub-Delivery"], []).append(status)
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

    def check(self) -> None:
        """Each was acknowledged once, at its last try; "duplicate" is the answer only where a try before had failed."""
        for delivery in self.sent:
            *failed, last = self.tries[delivery]
            assert set(failed) <= {0, 503}, f"{delivery}: {failed}"
            assert last == 202 or (last == 200 and failed), f"{delivery}: {failed}, then {last}"


@dataclass(slots=True)
class Heard:
    """What an endpoint was told of GitHub's webhooks; each signature is checked as it comes, nothing else is kept."""

    secret: str
    posts: int = 0
    delivered: dict[str, str] = field(default_factory=dict)
    """webhook-id -> delivery id."""
    wrong: list[str] = field(default_factory=list)
    """What should not have come."""
    _bodies: dict[str, bytes] = field(default_factory=dict)

    def note(self, posted: Posted) -> None:
        """Take a post into account."""
        self.posts += 1
        message = posted.headers["webhook-id"]
        try:
            event = posted.verify(self.secret)
        except WebhookVerificationError as error:
            self.wrong.append(f"{message}: {error}")
            return
        if event["source"] != "github":
            return
        digest = hashlib.sha256(posted.body).digest()
        self.delivered[message] = event["data"]["issue"]["title"]
        if event["id"] != message or self._bodies.setdefault(message, digest) != digest:
            self.wrong.append(f"{message}: another event under the same id")

    def listen(self, sink: Sink) -> None:
        """Take over a sink's posts."""

        def answer(posted: Posted) -> web.Response:
            sink.posts.clear()
            self.note(posted)
            return web.Response(status=204)

        sink.answer = answer


@dataclass(frozen=True, slots=True)
class Histories:
    """The sent set next to what the gateway keeps and what the endpoint heard."""

    sent: set[str]
    receipts: dict[str, list[bytes]]
    """Delivery id -> SHA-256 of each body that is stored under it."""
    events: list[str]
    heard: Heard

    @property
    def delivered(self) -> dict[str, str]:
        """webhook-id -> delivery id, of every post whose signature holds."""
        return self.heard.delivered

    def __str__(self) -> str:
        return (
            f"sent {len(self.sent)}, receipts {sum(map(len, self.receipts.values()))}, events {len(self.events)}, "
            f"distinct webhook-ids {len(self.delivered)} in {self.heard.posts} posts"
        )

    def check(self) -> None:
        """Nothing lost, nothing doubled, nothing changed on the way."""
        assert self.heard.wrong == []
        assert self.receipts.keys() == self.sent, "a receipt for each webhook that was acknowledged"
        for delivery, digests in self.receipts.items():
            assert digests == [hashlib.sha256(signed(delivery)[0]).digest()], f"{delivery}: one, byte for byte"
        assert sorted(self.events) == sorted(self.sent), "one event for each"
        assert sorted(self.delivered.values()) == sorted(self.sent), "one message id for each"


async def compare(rig: Rig, platform: Platform, endpoint: Sink | Heard) -> Histories:
    """Read the three histories of GitHub's webhooks."""
    if isinstance(endpoint, Heard):
        heard = endpoint
    else:
        heard = Heard(rig.endpoint_secret)
        for post in endpoint.posts:
            heard.note(post)
    title = "(convert_from(body, 'UTF8')::json) #>> '{issue,title}'"
    receipts: dict[str, list[bytes]] = {}
    for row in await rig.rows(f"SELECT {title} AS title, sha256(body) AS digest FROM receipts WHERE plugin = 'github'"):
        receipts.setdefault(row["title"], []).append(row["digest"])
    events = await rig.rows("SELECT data #>> '{issue,title}' AS title FROM events WHERE source = 'github'")
    return Histories(set(platform.sent), receipts, [row["title"] for row in events], heard)


async def until(true: Callable[[], Awaitable[bool]], seconds: float, what: str) -> float:
    """Wait until it is so; returns the seconds that took. Raises TimeoutError."""
    started = time.monotonic()
    while not await true():
        if time.monotonic() - started > seconds:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(0.05)
    return time.monotonic() - started
