"""Row 19: a worker stands still past its leases and goes on. What it writes then changes nothing."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.core.embedded import Postgres, Valkey
from tests.faults.rig import STALL_HOOK, Rig, open_rig, stalling, until


class HeldEndpoint:
    """A driver's endpoint that does not answer its first post until it is let go."""

    def __init__(self) -> None:
        self.url = ""
        self.posts: list[str] = []
        self.go = asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One post per connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        fields = dict(line.split(": ", 1) for line in head.splitlines()[1:] if line)
        await reader.readexactly(int(fields["content-length"]))
        self.posts.append(fields["webhook-id"])
        if len(self.posts) == 1:
            await self.go.wait()
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        writer.close()


@asynccontextmanager
async def held_endpoint() -> AsyncIterator[HeldEndpoint]:
    endpoint = HeldEndpoint()
    server = await asyncio.start_server(endpoint.answer, "127.0.0.1", 0)
    endpoint.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield endpoint
    finally:
        endpoint.go.set()
        server.close()


async def snapshot(rig: Rig) -> list[tuple[object, ...]]:
    """Every row that a worker writes."""
    queries = (
        "SELECT id, status, epoch, attempt, next_at, lease_until, error FROM receipts ORDER BY id",
        "SELECT id, status, epoch, attempt, next_at, lease_until, event_id FROM deliveries ORDER BY id",
        "SELECT id FROM events ORDER BY id",
        "SELECT id, delivery_id, status, error FROM attempts ORDER BY id",
    )
    return [tuple(row) for query in queries for row in await rig.rows(query)]


async def test_a_worker_that_slept_past_its_leases_changes_nothing(
    servers: tuple[Postgres, Valkey], tmp_path: Path
) -> None:
    marker = tmp_path / "blocking"
    async with (
        held_endpoint() as endpoint,
        open_rig(*servers, endpoint.url, tmp_path, METAGOV_HANDLER_TIMEOUT="5") as rig,
        rig.client() as http,
    ):
        rig.kill("worker")
        # One batch: an event whose delivery the endpoint holds, a handler that waits, and one that blocks.
        for order in (
            stalling("quick"),
            stalling("waits", sleep=4),
            stalling("blocks", sleep=2, block=1.5, marker=str(marker)),
        ):
            assert (await http.post(STALL_HOOK, content=order[0], headers=order[1])).status_code == 202
        sleeper = rig.start("worker")

        async def blocking() -> bool:
            return marker.exists()

        await until(blocking, 20, "the worker in the middle of its work")
        assert sleeper.poll() is None
        sleeper.send_signal(signal.SIGSTOP)
        assert len(endpoint.posts) == 1, "it waits for the endpoint's answer"
        held = await rig.rows("SELECT epoch FROM receipts WHERE status = 'stored' AND lease_until IS NOT NULL")
        assert [row["epoch"] for row in held] == [1, 1]
        rig.start("second worker")

        async def all_done() -> bool:
            done = await rig.count("SELECT count(*) FROM receipts WHERE status = 'done'")
            return done == 3 and await rig.count("SELECT count(*) FROM deliveries WHERE status = 'delivered'") == 3

        taken = await until(all_done, 60, "the second worker has done the first one's work")
        before = await snapshot(rig)
        endpoint.go.set()
        sleeper.send_signal(signal.SIGCONT)
        await asyncio.sleep(3)
        after = await snapshot(rig)
        assert rig.log.read_text().count("lease lost") >= 2, "the stale writes were tried"
        print(f"\nthe second worker was done after {taken:.1f} s; posts {len(endpoint.posts)}")
        assert after == before, "stale writes change no row"
        assert await rig.count("SELECT count(*) FROM events WHERE source = 'stall'") == 3
        epochs = await rig.rows("SELECT epoch, attempt FROM receipts WHERE epoch > 1")
        assert [tuple(row) for row in epochs] == [(2, 0), (2, 0)]
        assert len(set(endpoint.posts)) == 3, "the same message under the same id"
        # The sleeper is well: alone, it works on.
        rig.kill("second worker")
        body, headers = stalling("later")
        assert (await http.post(STALL_HOOK, content=body, headers=headers)).status_code == 202

        async def heard() -> bool:
            return len(set(endpoint.posts)) == 4

        await until(heard, 20, "the worker that slept works on")
        assert sleeper.poll() is None
