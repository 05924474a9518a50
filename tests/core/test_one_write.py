"""An answer's head and body leave together, and a head whose body takes its time does not wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import uvicorn
from starlette.types import Receive, Scope, Send

from app.core.one_write import OneWriteProtocol

HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]}


class _Counted:
    """A transport that notes what is written to it."""

    def __init__(self, transport: asyncio.Transport, writes: list[bytes]) -> None:
        self._transport = transport
        self._writes = writes

    def write(self, data: bytes) -> None:
        self._writes.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection to the server, and what the server writes to its sockets."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    writes: list[bytes]

    def ask(self, method: str = "GET", more: str = "") -> None:
        self.writer.write(f"{method} / HTTP/1.1\r\nhost: a\r\n{more}\r\n".encode())


@asynccontextmanager
async def serving(answer: Callable[[Send], Awaitable[None]]) -> AsyncIterator[Connection]:
    """A connection to a server that answers so."""
    writes: list[bytes] = []

    class Counting(OneWriteProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(cast(asyncio.Transport, _Counted(transport, writes)))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await answer(send)

    config = uvicorn.Config(app, port=0, http=Counting, log_config=None, lifespan="off", proxy_headers=False)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
        try:
            yield Connection(reader, writer, writes)
        finally:
            writer.close()
            server.should_exit = True
            await running


async def test_head_and_body_in_one_write() -> None:
    async def answer(send: Send) -> None:
        await send(dict(HEAD))
        await send({"type": "http.response.body", "body": b"hello"})

    async with serving(answer) as connection:
        for _ in range(3):
            connection.ask()
            assert (await connection.reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 OK\r\n")
    assert len(connection.writes) == 3


async def test_a_head_does_not_wait_for_a_late_body() -> None:
    let_go = asyncio.Event()

    async def answer(send: Send) -> None:
        await send(dict(HEAD))
        await let_go.wait()
        await send({"type": "http.response.body", "body": b"hello"})

    async with serving(answer) as connection:
        connection.ask()
        assert b"content-length: 5" in await connection.reader.readuntil(b"\r\n\r\n")
        let_go.set()
        assert await connection.reader.readexactly(5) == b"hello"


async def test_an_answer_without_a_body_and_one_in_parts() -> None:
    async def answer(send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with serving(answer) as connection:
        connection.ask("DELETE")
        assert (await connection.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")

    async def parts(send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"one", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with serving(parts) as connection:
        connection.ask(more="connection: close\r\n")
        answered = await connection.reader.read()
        assert answered.endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
