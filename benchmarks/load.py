"""The load generator, a process of its own: one JSON job per line of stdin, one JSON result per line of stdout.

HTTP/1.1 over raw sockets, kept alive and never pipelined: a connection sends its next request when it has the whole
answer to the last one. Each result tells how much of a CPU the generator used, so that it can be seen not to be what
is measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict
from typing import Any, cast

import aiohttp
import asyncpg
import uvloop

from benchmarks.pace import UNIQUE, is_whole, send_paced
from benchmarks.tally import Result, Tally, quantile

_PATIENCE = 30.0
"""Seconds past its end after which a job that does not finish is given up."""
_POSTERS = 64


class Connection(asyncio.Protocol):
    """One keep-alive connection that sends requests until the end has come or there are `most`, and at least one."""

    def __init__(
        self, request: bytes, status: bytes, counter: list[int], end: float, most: float, tally: Tally
    ) -> None:
        self._before, self._unique, self._after = request.partition(UNIQUE)
        self._status = b"HTTP/1.1 " + status
        self._counter = counter
        self._end = end
        self._most = most
        self._tally = tally
        self._received = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio's, only like them.
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self._tally.fail(f"connection lost: {error}")
            self.done.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not is_whole(self._received):
            return
        now = time.perf_counter()
        self._tally.latencies.append(now - self._sent_at)
        if not self._received.startswith(self._status):
            self._tally.fail(self._received.decode("utf-8", "replace"))
        self._received = b""
        if now < self._end and len(self._tally.latencies) < self._most:
            self._send()
        else:
            self.done.set_result(None)
            if self._transport is not None:
                self._transport.close()

    def _send(self) -> None:
        assert self._transport is not None
        unique = b""
        if self._unique:
            self._counter[0] += 1
            unique = b"%0*d" % (len(UNIQUE), self._counter[0])
        self._sent_at = time.perf_counter()
        self._transport.write(self._before + unique + self._after)


async def send_requests(job: dict[str, Any], counter: list[int]) -> Tally:
    """The HTTP job: `port`, `request`, `status` (the one expected), `connections`, `seconds`; `most` requests."""
    tally = Tally()
    end = time.perf_counter() + job["seconds"]
    request, status = job["request"].encode("latin-1"), str(job["status"]).encode()
    most = job.get("most", float("inf"))
    loop = asyncio.get_running_loop()
    opened = [
        await loop.create_connection(
            lambda: Connection(request, status, counter, end, most, tally), "127.0.0.1", job["port"]
        )
        for _ in range(job["connections"])
    ]
    await asyncio.gather(*(connection.done for _, connection in opened))
    return tally


async def send_statements(job: dict[str, Any]) -> Tally:
    """The SQL job: `dsn`, `statement` with one argument `argument`, `connections`, `seconds`."""
    tally = Tally()
    opened = [await asyncpg.connect(job["dsn"]) for _ in range(job["connections"])]
    argument = job["argument"].encode("latin-1") if job["binary"] else job["argument"]

    async def repeat(connection: asyncpg.Connection[asyncpg.Record], end: float) -> None:
        while True:
            started = time.perf_counter()
            await connection.fetchrow(job["statement"], argument)
            now = time.perf_counter()
            tally.latencies.append(now - started)
            if now >= end:
                return

    end = time.perf_counter() + job["seconds"]
    try:
        await asyncio.gather(*(repeat(connection, end) for connection in opened))
    except asyncpg.PostgresError as error:
        tally.fail(str(error))
    for connection in opened:
        await connection.close()
    return tally


async def send_posts(job: dict[str, Any]) -> Tally:
    """The yardstick of deliveries: `body` POSTed to `port` over aiohttp for `seconds`, unsigned, nothing written."""
    tally = Tally()
    body, url = job["body"].encode(), f"http://127.0.0.1:{job['port']}/"
    headers = {"content-type": "application/json"}

    async def repeat(http: aiohttp.ClientSession, end: float) -> None:
        while True:
            started = time.perf_counter()
            async with http.post(url, data=body, headers=headers) as response:
                answer = await response.read()
            if response.status != 200:
                tally.fail(answer.decode("utf-8", "replace"))
            now = time.perf_counter()
            tally.latencies.append(now - started)
            if now >= end:
                return

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        end = time.perf_counter() + job["seconds"]
        await asyncio.gather(*(repeat(http, end) for _ in range(_POSTERS)))
    return tally


async def _tally(job: dict[str, Any], counter: list[int]) -> Tally:
    match job["kind"]:
        case "http":
            return await send_requests(job, counter)
        case "paced":
            return await send_paced(job)
        case "posts":
            return await send_posts(job)
        case _:
            return await send_statements(job)


async def perform(job: dict[str, Any], counter: list[int]) -> Result:
    """Run one job."""
    started, cpu = time.perf_counter(), time.process_time()
    async with asyncio.timeout(job["seconds"] + _PATIENCE):
        tally = await _tally(job, counter)
    seconds = time.perf_counter() - started
    return Result(
        requests=len(tally.latencies),
        seconds=seconds,
        rate=len(tally.latencies) / seconds,
        p50_ms=quantile(tally.latencies, 0.5) * 1000,
        p99_ms=quantile(tally.latencies, 0.99) * 1000,
        cpu=(time.process_time() - cpu) / seconds,
        failed=tally.failed,
        first_failure=tally.first_failure,
        late_p99_ms=quantile(tally.lateness, 0.99) * 1000,
    )


def main() -> None:
    """Work through the jobs on stdin."""
    counter = [0]
    for line in sys.stdin:
        result = uvloop.run(perform(json.loads(line), counter))
        print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()
