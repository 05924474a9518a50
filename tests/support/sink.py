"""A driver's endpoint on loopback: keeps what is posted to it, and answers as told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook


@dataclass(slots=True)
class Posted:
    """One POST as it came in."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def verify(self, secret: str) -> Any:
        """The payload, if the signature holds by the reference library; raises otherwise."""
        return Webhook(secret).verify(self.body, self.headers)


@dataclass(slots=True)
class Sink:
    """`answer` gives the status for each post; 204 unless told otherwise."""

    url: str = ""
    posts: list[Posted] = field(default_factory=list)
    answer: Callable[[Posted], web.Response] = lambda _: web.Response(status=204)
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        posted = Posted(request.path, headers, await request.read())
        self.posts.append(posted)
        self._more.set()
        return self.answer(posted)

    async def wait_for(self, count: int, seconds: float = 10) -> list[Posted]:
        """Until `count` posts have come in. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while len(self.posts) < count:
                self._more.clear()
                await self._more.wait()
        return self.posts


@asynccontextmanager
async def open_sink() -> AsyncIterator[Sink]:
    """A sink listening on a free port."""
    sink = Sink()
    app = web.Application()
    app.router.add_post("/{path:.*}", sink.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    sink.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield sink
    finally:
        await runner.cleanup()
