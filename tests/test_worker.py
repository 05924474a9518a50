"""The worker as a process: woken by hints, swept without Redis, ended without losing what it holds."""

from __future__ import annotations

import asyncio
import signal
import time

import httpx
import pytest

from tests.support.servers import Server, run_server
from tests.support.sink import Sink

pytestmark = pytest.mark.slow

START = "/api/internal/process/randomness.delayed-stochastic-vote"


async def vote(server: Server, sink: Sink, slug: str) -> float:
    """Start a vote that is decided at once; returns the seconds until its callback came in."""
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=20) as http:
        http.headers.update({"Authorization": f"Bearer {server.api_key}", "X-Metagov-Community": slug})
        wanted = {"plugins": [{"name": "randomness", "config": {"default_low": 1, "default_high": 2}}]}
        assert (await http.put(f"/api/internal/community/{slug}", json=wanted)).status_code in (200, 201)
        before = len(sink.posts)
        started = time.monotonic()
        body = {"options": ["a", "b"], "delay": 0, "callback_url": sink.url}
        assert (await http.post(START, json=body)).status_code == 202
        await sink.wait_for(before + 1)
        return time.monotonic() - started


async def test_a_hint_beats_the_sweep(server: Server, sink: Sink) -> None:
    slow_sweep = {**server.environment, "METAGOV_SWEEP_SECONDS": "30"}
    async with run_server(slow_sweep, server.api_key, server.signing_secret) as hinted:
        server.worker.send_signal(signal.SIGSTOP)
        try:
            assert await vote(hinted, sink, "hinted") < 10
        finally:
            server.worker.send_signal(signal.SIGCONT)


async def test_without_redis_the_sweep_finds_the_work(server: Server, sink: Sink) -> None:
    nowhere = {**server.environment, "METAGOV_REDIS_URL": "redis://127.0.0.1:1"}
    async with run_server(nowhere, server.api_key, server.signing_secret) as swept:
        server.worker.send_signal(signal.SIGSTOP)
        try:
            await vote(swept, sink, "swept")
        finally:
            server.worker.send_signal(signal.SIGCONT)
        assert swept.worker.poll() is None, "the worker outlives Redis being away"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_worker_ends_on_request(server: Server, number: signal.Signals) -> None:
    async with run_server(server.environment, server.api_key, server.signing_secret) as running:
        await asyncio.sleep(1)
        running.worker.send_signal(number)
        assert await asyncio.to_thread(running.worker.wait, 10) == 0
