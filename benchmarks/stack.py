"""All that is measured, running: Postgres, Valkey, API and worker; the yardsticks, the sink and the load generator."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx
import psutil
from cryptography.fernet import Fernet
from pydantic import SecretStr

from app.accounts.service import create_driver
from app.core.crypto import Vault
from app.core.db import Database
from app.core.embedded import Postgres, Valkey, start_all, stop_all
from app.core.settings import Settings
from benchmarks.bare import DSN_VARIABLE
from benchmarks.sink import Counted
from benchmarks.tally import Result

_ROOT = Path(__file__).resolve().parent.parent
_READY_SECONDS = 60.0
SINKS = 10
"""How many ports of the sink answer at once."""
_TABLES = """
CREATE UNLOGGED TABLE benchmark_rows (id int PRIMARY KEY, title text NOT NULL);
INSERT INTO benchmark_rows SELECT n, 'row ' || n FROM generate_series(1, 1000) n;
CREATE TABLE benchmark_bodies (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body bytea NOT NULL);
"""
_LOOK_AGAIN = 0.02

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stack:
    """Where everything is."""

    dsn: str
    api_key: str
    api_port: int
    bare_port: int
    echo_port: int
    api: subprocess.Popen[bytes]
    worker: subprocess.Popen[bytes]
    generator: subprocess.Popen[str]
    sink: subprocess.Popen[str]
    slow_port: int
    """The sink answers here after half a second."""
    sink_ports: tuple[int, ...]
    """The sink answers here at once."""
    closed_port: int
    """Nobody listens here."""
    environment: Mapping[str, str]
    """What the gateway's processes are started with."""

    def run(self, job: dict[str, Any]) -> Result:
        """Have the generator do a job."""
        return Result(**_ask(self.generator, job))

    def count_posts(self, secrets: Mapping[int, str]) -> Counted:
        """What the sink has counted since the last call; from now on it checks with these secrets, by port."""
        return Counted(**_ask(self.sink, {str(port): secret for port, secret in secrets.items()}))

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, community: str = "") -> Any:
        """A request of the driver's, for that community where one is named. Returns the answer's JSON."""
        header = {"X-Metagov-Community": community} if community else {}
        answer = httpx.request(
            method,
            f"http://127.0.0.1:{self.api_port}{path}",
            json=body,
            headers={"Authorization": f"Bearer {self.api_key}", **header},
            trust_env=False,
            timeout=30,
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    @contextlib.contextmanager
    def endpoints(self, *ports: int) -> Iterator[dict[int, dict[str, Any]]]:
        """The driver has an endpoint at each of these ports meanwhile: what the API said of them, by port."""
        path = "/api/internal/driver/endpoints"
        made = {port: self.call("POST", path, {"url": f"http://127.0.0.1:{port}/{port}"}) for port in ports}
        try:
            yield made
        finally:
            for endpoint in made.values():
                self.call("DELETE", f"{path}/{endpoint['id']}")

    def resident_mb(self, process: subprocess.Popen[bytes]) -> float:
        """Resident memory of a process and its children, in MB (10⁶ bytes)."""
        main = psutil.Process(process.pid)
        return sum(each.memory_info().rss for each in (main, *main.children(recursive=True))) / 1e6

    def execute(self, statement: str, *arguments: object) -> str:
        """Run a statement on the database. Returns Postgres's word on it."""
        return str(self.connected(lambda connection: connection.execute(statement, *arguments)))

    def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """The rows of a query."""
        return list(self.connected(lambda connection: connection.fetch(query, *arguments)))

    def wait_until_none(self, query: str, seconds: float) -> float | None:
        """Look again until a query has no rows. Returns the database's time then; None when that time runs out."""

        async def look(connection: asyncpg.Connection[asyncpg.Record]) -> float | None:
            wanted = await connection.prepare(f"SELECT EXISTS ({query}), extract(epoch FROM clock_timestamp())::float8")
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                row = await wanted.fetchrow()
                assert row is not None
                if not row[0]:
                    return float(row[1])
                await asyncio.sleep(_LOOK_AGAIN)
            return None

        return self.connected(look)

    def connected(self, use: Callable[[asyncpg.Connection[asyncpg.Record]], Awaitable[T]]) -> T:
        """Do something with a connection of its own to the database."""

        async def connect() -> T:
            connection = await asyncpg.connect(self.dsn)
            try:
                return await use(connection)
            finally:
                await connection.close()

        return asyncio.run(connect())

    def end_worker(self) -> None:
        """End the worker for good."""
        _stop(self.worker)

    @contextlib.contextmanager
    def paused_worker(self) -> Iterator[None]:
        """Stop the worker's clock for a while. Let it be idle before: a stopped one keeps its locks."""
        self.worker.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.worker.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def open_stack(folder: Path) -> Iterator[Stack]:
    """Start everything, with a log per process in `folder`; stop it at the end. Postgres is durable."""
    postgres, valkey = Postgres(folder, fast=False), Valkey(folder)
    start_all(postgres, valkey)
    with contextlib.ExitStack() as closing:
        closing.callback(stop_all, postgres, valkey)
        settings = Settings(
            database_url=postgres.url, redis_url=valkey.url, secret_keys=SecretStr(Fernet.generate_key().decode())
        )
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("METAGOV_")},
            "METAGOV_DATABASE_URL": postgres.url,
            "METAGOV_REDIS_URL": valkey.url,
            "METAGOV_SECRET_KEYS": settings.secret_keys.get_secret_value(),
            "METAGOV_LOG_LEVEL": "warning",
            "METAGOV_EGRESS_ALLOW": "127.0.0.1",
            "PYTHONPATH": f"{_install_plugin(folder)}{os.pathsep}{_ROOT}",
            DSN_VARIABLE: postgres.url,
        }
        subprocess.run(
            [sys.executable, "-m", "app.cli", "migrate"], check=True, cwd=_ROOT, env=environment, stdout=sys.stderr
        )
        api_key = asyncio.run(_prepare_database(settings))

        def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
            log = closing.enter_context((folder / f"{name}.log").open("ab"))
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments], cwd=_ROOT, env=environment, stdout=log, stderr=log
            )
            closing.callback(_stop, process)
            return process

        def ask(*arguments: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=_ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            closing.callback(_stop, process)
            return process

        api_port, bare_port, echo_port, closed_port, slow_port, *sink_ports = _free_ports(5 + SINKS)
        api = start("api", "app.cli", "serve", "--port", str(api_port))
        worker = start("worker", "app.cli", "worker")
        server = ("--port", str(bare_port), "--loop", "uvloop", "--http", "httptools", "--log-level", "warning")
        bare = start("bare", "uvicorn", "benchmarks.bare:app", *server)
        start("echo", "benchmarks.echo", str(echo_port))
        generator = ask("benchmarks.load")
        sink = ask("benchmarks.sink", str(slow_port), *map(str, sink_ports))
        _wait_ready(f"http://127.0.0.1:{api_port}/readyz", api, folder / "api.log")
        _wait_ready(f"http://127.0.0.1:{bare_port}/row/1", bare, folder / "bare.log")
        yield Stack(
            dsn=postgres.url,
            api_key=api_key,
            api_port=api_port,
            bare_port=bare_port,
            echo_port=echo_port,
            api=api,
            worker=worker,
            generator=generator,
            sink=sink,
            slow_port=slow_port,
            sink_ports=tuple(sink_ports),
            closed_port=closed_port,
            environment=environment,
        )


def _install_plugin(folder: Path) -> Path:
    """Make the stopwatch known as a distribution's entry point, as any plugin from outside. Returns its folder."""
    info = folder / "site" / "stopwatch-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stopwatch\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[metagov.plugins]\nstopwatch = benchmarks.stopwatch:manifest\n")
    return info.parent


def _ask(process: subprocess.Popen[str], question: dict[str, Any]) -> dict[str, Any]:
    """One JSON line there, one back."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(question) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise RuntimeError("a process of the benchmark's own ended; its reason is on stderr")
    found: dict[str, Any] = json.loads(answer)
    return found


# A new server fills its log files with zeros before it writes them; one that has been up for a while reuses old ones.
_AGE = (
    "CREATE TABLE benchmark_age AS SELECT repeat(md5(n::text), 30) AS text FROM generate_series(1, 700000) n",
    "CHECKPOINT",
    "DROP TABLE benchmark_age",
    "CHECKPOINT",
)


async def _prepare_database(settings: Settings) -> str:
    async with Database(settings) as db:
        await db.pool.execute(_TABLES)
        for statement in _AGE:
            await db.pool.execute(statement, timeout=60)
        async with db.begin() as session:
            return (await create_driver(session, Vault(settings.fernet_keys), "benchmark")).api_key


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _READY_SECONDS
    with httpx.Client(trust_env=False, timeout=2) as client:
        while process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(httpx.TransportError):
                if client.get(url).status_code == 200:
                    return
            time.sleep(0.05)
    raise RuntimeError(f"{url} did not become ready:\n{log.read_text()[-2000:]}")


def _stop(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
