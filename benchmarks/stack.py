"""All that is measured, running: Postgres, Valkey, API and worker, the yardstick's server, the load generator."""

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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from benchmarks.load import Result

_ROOT = Path(__file__).resolve().parent.parent
_READY_SECONDS = 60.0
_TABLES = """
CREATE UNLOGGED TABLE benchmark_rows (id int PRIMARY KEY, title text NOT NULL);
INSERT INTO benchmark_rows SELECT n, 'row ' || n FROM generate_series(1, 1000) n;
CREATE TABLE benchmark_bodies (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body bytea NOT NULL);
"""


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

    def run(self, job: dict[str, Any]) -> Result:
        """Have the generator do a job."""
        assert self.generator.stdin is not None
        assert self.generator.stdout is not None
        self.generator.stdin.write(json.dumps(job) + "\n")
        self.generator.stdin.flush()
        answer = self.generator.stdout.readline()
        if not answer:
            raise RuntimeError("the load generator ended; its reason is on stderr")
        return Result(**json.loads(answer))

    def resident_mb(self, process: subprocess.Popen[bytes]) -> float:
        """Resident memory of a process and its children, in MB (10⁶ bytes)."""
        main = psutil.Process(process.pid)
        return sum(each.memory_info().rss for each in (main, *main.children(recursive=True))) / 1e6

    def execute(self, statement: str) -> str:
        """Run a statement on the database. Returns Postgres's word on it."""

        async def execute() -> str:
            connection = await asyncpg.connect(self.dsn)
            try:
                return str(await connection.execute(statement))
            finally:
                await connection.close()

        return asyncio.run(execute())

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

        api_port, bare_port, echo_port = _free_ports(3)
        api = start("api", "app.cli", "serve", "--port", str(api_port))
        worker = start("worker", "app.cli", "worker")
        server = ("--port", str(bare_port), "--loop", "uvloop", "--http", "httptools", "--log-level", "warning")
        bare = start("bare", "uvicorn", "benchmarks.bare:app", *server)
        start("echo", "benchmarks.echo", str(echo_port))
        generator = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load"],
            cwd=_ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        closing.callback(_stop, generator)
        _wait_ready(f"http://127.0.0.1:{api_port}/readyz", api, folder / "api.log")
        _wait_ready(f"http://127.0.0.1:{bare_port}/row/1", bare, folder / "bare.log")
        yield Stack(postgres.url, api_key, api_port, bare_port, echo_port, api, worker, generator)


async def _prepare_database(settings: Settings) -> str:
    async with Database(settings) as db:
        await db.pool.execute(_TABLES)
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
