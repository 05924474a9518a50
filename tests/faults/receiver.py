"""A driver's server that takes its time, fails, drops connections, or is not there at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from tests.support.sink import Posted

Take = Callable[[Posted], Awaitable[int | None]]
"""What the driver does with a post: the status it answers, or None, to break the connection off without a word."""


@asynccontextmanager
async def receiving(take: Take, port: int = 0) -> AsyncIterator[str]:
    """Listen on loopback; yields the URL."""

    async def receive(request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        status = await take(Posted(request.path, headers, await request.read()))
        if status is None and request.transport is not None:
            request.transport.abort()
        return web.Response(status=status or 500)

    app = web.Application()
    app.router.add_post("/{path:.*}", receive)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await asyncio.wait_for(runner.cleanup(), 10)
