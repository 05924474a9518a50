"""Somebody else's web server, on loopback: what graphs are taken in from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass(slots=True)
class Elsewhere:
    """`bodies` by path; `asked` are the requests, with the headers that matter."""

    url: str = ""
    bodies: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, Mapping[str, str]] = field(default_factory=dict)
    status: int = 200
    pause: float = 0
    """Seconds in the middle of each body."""
    asked: list[tuple[str, str | None, int]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = self.bodies.get(request.path)
        etag = None if body is None else f'"{hash(body):x}"'
        known = request.headers.get("If-None-Match")
        status = self.status if self.status != 200 else 404 if body is None else 304 if known == etag else 200
        self.asked.append((request.path, known, status))
        if status != 200:
            return web.Response(status=status)
        if self.pause and body is not None:
            answer = web.StreamResponse()
            await answer.prepare(request)
            for half in (body[:10], body[10:]):
                await answer.write(half)
                await asyncio.sleep(self.pause)
            return answer
        return web.Response(body=body, headers={"ETag": etag or "", **self.headers.get(request.path, {})})


@asynccontextmanager
async def open_elsewhere() -> AsyncIterator[Elsewhere]:
    """A server on a free port."""
    elsewhere = Elsewhere()
    app = web.Application()
    app.router.add_get("/{path:.*}", elsewhere.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    elsewhere.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield elsewhere
    finally:
        await runner.cleanup()
