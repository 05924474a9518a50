"""The gateway as real processes: an API and a worker, started and stopped by tests."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import uvicorn
from fastapi import FastAPI


@dataclass(frozen=True, slots=True)
class Server:
    """A running gateway and a driver's key for it."""

    url: str
    api_key: str
    signing_secret: str
    environment: Mapping[str, str]
    api: subprocess.Popen[bytes]
    worker: subprocess.Popen[bytes]


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def stop(process: subprocess.Popen[bytes], seconds: float = 10) -> int:
    """Ask a process to end, and make it after `seconds`; returns its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(5)


async def wait_ready(url: str, seconds: float = 30) -> None:
    """Until /readyz answers 200. Raises TimeoutError."""
    end = time.monotonic() + seconds
    async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
        while time.monotonic() < end:
            try:
                if (await client.get(f"{url}/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
    raise TimeoutError(f"{url} did not become ready in {seconds} s")


@asynccontextmanager
async def run_server(environment: Mapping[str, str], api_key: str, signing_secret: str) -> AsyncIterator[Server]:
    """API and worker on a migrated database, ready to serve."""
    port = free_port()
    whole = {**os.environ, **environment, "METAGOV_PUBLIC_URL": f"http://127.0.0.1:{port}"}
    command = [sys.executable, "-m", "app.cli"]
    api = subprocess.Popen([*command, "serve", "--port", str(port)], env=whole)
    worker = subprocess.Popen([*command, "worker"], env=whole)
    try:
        url = f"http://127.0.0.1:{port}"
        await wait_ready(url)
        yield Server(url, api_key, signing_secret, whole, api, worker)
    finally:
        stop(worker)
        stop(api)


@asynccontextmanager
async def listening(api: FastAPI) -> AsyncIterator[str]:
    """The app behind a real server: streams cannot be read through an in-process transport."""
    port = free_port()
    config = uvicorn.Config(api, port=port, lifespan="off", log_config=None, timeout_graceful_shutdown=3)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:
            await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving
