"""Requests at a given rate, whatever the answers take: an open loop, as platforms are.

A request leaves at its time on any connection that is free; when none is, one more is opened. So a slow answer holds
up no other request, and the latencies are those that a sender at this rate would see.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

from benchmarks.tally import Tally

UNIQUE = b"@@UNIQUE@@"
"""Stands in a request for what differs from one to the next; replaced by digits."""


class PacedConnection(asyncio.Protocol):
    """One keep-alive connection; free while no answer is outstanding."""

    def __init__(self, free: list[PacedConnection], status: bytes, tally: Tally) -> None:
        self._free = free
        self._status = b"HTTP/1.1 " + status
        self._tally = tally
        self._received = b""
        self._sent_at = 0.0
        self.busy = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not asyncio's, only like them

    def connection_lost(self, error: Exception | None) -> None:
        if self.busy:
            self._tally.fail(f"connection lost: {error}")
        self.busy = True
        if self in self._free:
            self._free.remove(self)

    def send(self, request: bytes) -> None:
        """Send one request; the connection must be free."""
        assert self.transport is not None
        self.busy = True
        self._sent_at = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not is_whole(self._received):
            return
        self._tally.latencies.append(time.perf_counter() - self._sent_at)
        if not self._received.startswith(self._status):
            self._tally.fail(self._received.decode("utf-8", "replace"))
        self._received = b""
        self.busy = False
        self._free.append(self)


def is_whole(message: bytes) -> bool:
    """Whether an HTTP message with a Content-Length has come in whole."""
    head, blank, body = message.partition(b"\r\n\r\n")
    return bool(blank) and len(body) >= content_length(head)


def content_length(head: bytes) -> int:
    """The Content-Length that a message's head names; 0 when it names none."""
    _, named, rest = head.lower().partition(b"content-length:")
    return int(rest.partition(b"\r\n")[0]) if named else 0


async def send_paced(job: dict[str, Any]) -> Tally:
    """The paced job: `port`, `request`, `status`, `rate` per second, `seconds`, `connections` opened beforehand.

    The request's unique part is the time it leaves, in microseconds since 1970.
    """
    tally, free = Tally(), list[PacedConnection]()
    before, _, after = job["request"].encode("latin-1").partition(UNIQUE)
    loop, status = asyncio.get_running_loop(), str(job["status"]).encode()
    made: list[PacedConnection] = []

    async def connect() -> PacedConnection:
        _, connection = await loop.create_connection(
            lambda: PacedConnection(free, status, tally), "127.0.0.1", job["port"]
        )
        made.append(connection)
        return connection

    free += [await connect() for _ in range(job["connections"])]
    start = time.perf_counter()
    for number in range(max(1, round(job["rate"] * job["seconds"]))):
        due = start + number / job["rate"]
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        connection = free.pop() if free else await connect()
        tally.lateness.append(time.perf_counter() - due)
        connection.send(before + b"%d" % (time.time_ns() // 1000) + after)
    while any(each.busy for each in made) and not tally.failed:
        await asyncio.sleep(0.005)
    for each in made:
        if each.transport is not None:
            each.transport.close()
    return tally
