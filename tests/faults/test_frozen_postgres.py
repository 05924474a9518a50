"""Row 6, the worse half: Postgres stands still instead of going away. Who asks is told in time; then all goes on."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil

from tests.faults.rig import Platform, Rig, compare, until
from tests.support.sink import Sink

FROZEN_SECONDS = float(os.environ.get("METAGOV_FAULT_FROZEN_SECONDS", "28"))
READ_SECONDS = 14.0
"""8 for a statement that the frozen server took and 4 for its connection to be given up, on a busy machine."""
HOOK_SECONDS = 2 * READ_SECONDS - 2
"""A webhook may wait for the batch before its own."""
READY_SECONDS = 7.0
"""1 and 4, on a busy machine."""


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Postgres and all its backends stand still: connections are taken by the kernel, and nobody answers."""
    postmaster = psutil.Process(pid)
    postmaster.suspend()
    all_of_it = [*postmaster.children(recursive=True), postmaster]
    for process in all_of_it:
        process.suspend()
    try:
        yield
    finally:
        for process in all_of_it:
            process.resume()


async def test_a_frozen_postgres_is_said_in_time_and_forgotten_soon(rig: Rig, sink: Sink) -> None:
    assert rig.postgres.pid is not None
    api, worker = rig.children["api"], rig.children["worker"]
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
    async with rig.client(limits=limits, timeout=60) as http:
        platform = Platform(http)
        # Both pools hold connections, and the worker has work in hand.
        await asyncio.gather(*(http.get("/api/internal/community/town") for _ in range(8)))
        sending = [asyncio.create_task(platform.send(f"before-{number}", patience=90)) for number in range(40)]
        await asyncio.sleep(0.1)
        ready: list[tuple[int, float]] = []
        read: list[tuple[int, float]] = []

        async def ask(path: str, answers: list[tuple[int, float]]) -> None:
            started = time.monotonic()
            answer = await http.get(path)
            answers.append((answer.status_code, time.monotonic() - started))

        with frozen(rig.postgres.pid):
            asking: list[asyncio.Task[None]] = []
            end = time.monotonic() + FROZEN_SECONDS
            while time.monotonic() < end:
                name = f"frozen-{len(asking)}"
                sending.append(asyncio.create_task(platform.send(name, patience=90)))
                asking.append(asyncio.create_task(ask("/readyz", ready)))
                asking.append(asyncio.create_task(ask("/api/internal/community/town", read)))
                await asyncio.sleep(0.5)
            assert platform.answers.get(503), "refused while nothing can be stored"
            assert not any(name.startswith("frozen") for name in platform.at), "never a 2xx for what is not stored"
        thawed = time.monotonic()
        await asyncio.gather(*sending, *asking)
        print(f"\nall of it acknowledged {time.monotonic() - thawed:.1f} s after the end; answers {platform.answers}")
        for what, seconds in (
            ("webhooks", platform.seconds),
            ("reads", [second for _, second in read]),
            ("readiness", [second for _, second in ready]),
        ):
            print(f"{what}: {len(seconds)}, the slowest answered after {max(seconds):.1f} s")

        async def all_delivered() -> bool:
            return len({post.headers["webhook-id"] for post in sink.posts}) >= len(platform.sent)

        print(f"all delivered {await until(all_delivered, 60, 'deliveries go on'):.1f} s later")
    assert set(platform.answers) <= {200, 202, 503}
    assert max(platform.seconds) <= HOOK_SECONDS
    assert max(seconds for _, seconds in read) <= READ_SECONDS
    assert max(seconds for _, seconds in ready) <= READY_SECONDS
    assert 503 in {status for status, _ in ready}
    assert (api.poll(), worker.poll()) == (None, None), "neither was started again"
    platform.check()
    (await compare(rig, platform, sink)).check()
