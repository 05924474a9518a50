"""Row 12: drivers that answer for ever. Each costs a worker fifteen seconds and little memory, and no other driver."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

from app.core.embedded import Postgres, Valkey
from tests.core.loopback import OPEN_BODY, dripping, serving
from tests.faults.rig import Platform, open_rig, until
from tests.support.sink import Sink

WEBHOOKS = 12
TOTAL_SECONDS = 15.0
MOST_MEMORY = 48 * 1024 * 1024
HEAD = b"HTTP/1.1 200 OK\r\n"
SLOW = {
    "body": dripping(OPEN_BODY, b"x", every=1),
    "header": dripping(HEAD + b"X-Slow: ", b"x", every=1),
    "continue": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n", every=1),
}
"""A byte a second: these meet the deadline."""
ENDLESS = {
    "endless body": dripping(OPEN_BODY, b"x" * 65536, every=0),
    "endless line": dripping(HEAD + b"X-Long: ", b"x" * 65536, every=0),
    "endless lines": dripping(HEAD, b"X-Many: x\r\n" * 4096, every=0),
}
"""As fast as they are read: these are cut off."""


async def test_hostile_drivers_cost_time_and_memory_within_bounds(
    servers: tuple[Postgres, Valkey], sink: Sink, tmp_path: Path
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        rig = await stack.enter_async_context(open_rig(*servers, sink.url, tmp_path))
        http = await stack.enter_async_context(rig.client())
        ids: dict[str, str] = {}
        for name, serve in {**SLOW, **ENDLESS}.items():
            server = await stack.enter_async_context(serving(serve))
            wanted = {"url": f"http://127.0.0.1:{server.port}/", "events": ["github.*"]}
            ids[name] = (await http.post("/api/internal/driver/endpoints", json=wanted)).json()["id"]
        worker = psutil.Process(rig.children["worker"].pid)
        before = most = worker.memory_info().rss
        platform = Platform(http)
        for number in range(WEBHOOKS):
            await platform.send(f"hostile-{number}")

        async def heard() -> bool:
            return len({post.headers["webhook-id"] for post in sink.posts}) >= WEBHOOKS

        well = await until(heard, 10, "the other driver's events, while these hang")

        async def settled() -> bool:
            nonlocal most
            most = max(most, worker.memory_info().rss)
            query = "SELECT count(DISTINCT delivery_id) FROM attempts"  # some are tried again meanwhile
            return await rig.count(query) >= WEBHOOKS * (1 + len(ids))

        await until(settled, 40, "an attempt of each delivery")
        print(f"\nthe other driver had its events after {well:.1f} s; the worker grew by {(most - before) >> 20} MiB")
        for name, endpoint in ids.items():
            rows = await rig.rows(
                "SELECT a.latency_ms, a.status, a.error, length(a.response_text) AS kept FROM attempts a "
                "JOIN deliveries d ON d.id = a.delivery_id WHERE d.endpoint_id = $1 ORDER BY a.id LIMIT $2",
                endpoint,
                WEBHOOKS,
            )
            seconds = [row["latency_ms"] / 1000 for row in rows]
            errors = {row["error"] for row in rows}
            print(f"{name}: {min(seconds):.2f} to {max(seconds):.2f} s, {errors}")
            assert len(rows) == WEBHOOKS
            if name in SLOW:
                assert errors == {"no complete answer within 15 seconds"}
                assert all(abs(each - TOTAL_SECONDS) <= 1 for each in seconds)
            elif name == "endless body":
                assert {(row["status"], row["kept"]) for row in rows} == {(200, 65536)}
            else:
                assert None not in errors
                assert max(seconds) < TOTAL_SECONDS + 1
        assert most - before <= MOST_MEMORY
