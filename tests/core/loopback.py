"""Loopback servers that behave badly, and name servers that lie."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import aiohttp

from app.core.egress import Resolve, read_capped

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A loopback listener that counts connections and keeps what it was sent."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.connections = 0
        self.heads: list[bytes] = []
        self.port = 0
        self._handling: set[asyncio.Task[None]] = set()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._handling.add(task)
        task.add_done_callback(self._handling.discard)
        try:
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def stop(self) -> None:
        """Hang up on everybody: whoever drips without end would go on beside all tests to come."""
        for task in list(self._handling):
            task.cancel()
        await asyncio.gather(*self._handling, return_exceptions=True)


@asynccontextmanager
async def serving(serve: Serve, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(serve)
    listener = await asyncio.start_server(server.handle, host, 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await server.stop()


def answering(body: bytes = b"ok", *headers: str, status: str = "200 OK") -> Serve:
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, ""))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head.encode() + body)
        await writer.drain()

    return serve


def dripping(opening: bytes, piece: bytes, *, every: float) -> Serve:
    """Serve ``opening``, then ``piece`` again and again."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(opening)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(every)

    return serve


def resolving(*answers: Sequence[str]) -> Resolve:
    """A name server whose answer changes at each question; the last one stays."""
    left = list(answers)

    async def resolve(host: str, port: int) -> Sequence[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


OPEN_BODY = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"


async def deliver(session: aiohttp.ClientSession, url: str, limit: int = 65536) -> tuple[int, bytes]:
    async with session.post(url, data=b"{}", allow_redirects=False) as response:
        return response.status, await read_capped(response, limit)
