"""A platform on loopback that notes when it was asked, and a plugin whose limits each test sets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx
from aiohttp import web
from fastapi import FastAPI
from pydantic import SecretStr

from app.core.db import Database
from app.runtime.limits_http import PacedTransport
from metagov_sdk import Config, HookRequest, Manifest, Model, Plugin, action, config, hmac_sha256, webhook
from metagov_sdk.limits import Learned, Limit
from metagov_sdk.testing import bind, sign_hmac_sha256

Answer = tuple[int, dict[str, str]]


@dataclass
class Platform:
    """What was asked, when (monotonic seconds), and how it answers: 200 unless the test says otherwise."""

    url: str = ""
    asked: list[tuple[float, str]] = field(default_factory=list)
    answer: Callable[[str], Answer] = lambda path: (200, {})

    def paths(self) -> list[str]:
        """What was asked, in order."""
        return [path for _, path in self.asked]

    def gaps(self) -> list[float]:
        """Seconds between one request and the next."""
        times = [at for at, _ in self.asked]
        return [later - earlier for earlier, later in pairwise(times)]

    async def _serve(self, request: web.Request) -> web.Response:
        await request.read()
        self.asked.append((time.monotonic(), request.path))
        status, headers = self.answer(request.path)
        return web.json_response({"status": status}, status=status, headers=headers)


@contextlib.asynccontextmanager
async def open_platform() -> AsyncIterator[Platform]:
    """Listen on a free port."""
    platform = Platform()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", platform._serve)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        platform.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield platform
    finally:
        await runner.cleanup()


class PacedConfig(Config):
    """Where the platform is, and whose limits count."""

    url: str = "http://127.0.0.1:1"
    team: str = "T1"
    secret: SecretStr


class Where(Model):
    """What to ask for."""

    path: str = "/"


class Status(Model):
    """What the platform answered."""

    status: int


class Paced(Plugin[PacedConfig]):
    """Asks a platform as fast as it may."""

    name = "paced"
    limits_of: Callable[[httpx.Request], Sequence[Limit]] = staticmethod(lambda request: ())
    learned_of: Any = None
    """A static function of request and response; None for the default."""

    @classmethod
    def base_url(cls, config: PacedConfig, settings: Any) -> str:
        """The platform."""
        return config.url

    @property
    def limit_owner(self) -> str:
        """The team."""
        return self.config.team

    def limits(self, request: httpx.Request) -> Sequence[Limit]:
        """As the test says."""
        return type(self).limits_of(request)

    def learn(self, request: httpx.Request, response: httpx.Response) -> Sequence[Learned]:
        """As the test says, or as every plugin."""
        told = type(self).learned_of
        if told is None:
            return super().learn(request, response)
        taught: Sequence[Learned] = told(request, response)
        return taught

    @action("ask")
    async def ask(self, params: Where) -> Status:
        """Ask the platform once."""
        return Status(status=(await self.http.get(params.path)).status_code)

    @webhook(verify=hmac_sha256(config("secret"), header="X-Signature"))
    async def receive(self, request: HookRequest) -> None:
        """The app was uninstalled, or something else is to be asked for."""
        body = request.json()
        if "reason" in body:
            self.disable(body["reason"])
        else:
            await self.http.get(body["path"])


manifest = Manifest(Paced)


@contextlib.asynccontextmanager
async def paced(
    db: Database, platform: Platform, team: str, inner: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """The client of one call in one process."""
    plugin = bind(Paced, config={"url": platform.url, "team": team, "secret": "s"})
    async with inner or httpx.AsyncHTTPTransport(trust_env=False) as connections:
        yield httpx.AsyncClient(
            transport=PacedTransport(db, plugin, connections), base_url=platform.url, timeout=30, trust_env=False
        )


async def post_hook(app: FastAPI, told: dict[str, str]) -> None:
    """What the platform posts to the town's hook."""
    body = json.dumps(told).encode()
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as http:
        headers = sign_hmac_sha256("s", body, header="X-Signature")
        assert (await http.post("/api/hooks/town/paced", content=body, headers=headers)).status_code == 202


async def all_of(*calls: Any) -> list[Any]:
    """Their results, or their errors."""
    return list(await asyncio.gather(*calls, return_exceptions=True))
