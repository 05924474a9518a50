"""Discord on loopback: its REST API, OAuth pages and interactions, shaped after its published OpenAPI document.

    async with FakeDiscord() as discord:
        town = discord.add_guild("Town")
        ada = discord.add_member(town, "ada")
        …  point METAGOV_DISCORD_API_URL at discord.api_url …
        (vote,) = discord.messages(town)
        click = discord.interactions.click(town, vote, vote.custom_ids[0], ada)
        await discord.interactions.send(client, "/api/hooks/discord", click)

What it holds is in `discord_world`, limits and failures in `discord_limits`, signed posts in `discord_interactions`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.fakes.discord_checks import Refused, problem
from tests.fakes.discord_interactions import Interactions
from tests.fakes.discord_limits import Faults, Limits, read_route
from tests.fakes.discord_oauth import Authorizations
from tests.fakes.discord_routes import Routes
from tests.fakes.discord_world import DM, TEXT, Channel, Guild, Member, Message, Poll, Snowflakes, User

__all__ = ["FakeDiscord", "Recorded", "Refused"]

API = "/api/v10"


@dataclass(slots=True)
class Recorded:
    """A request as it came in: `path` below /api/v10 and still percent-encoded; `body` parsed (JSON or form)."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    content_type: str
    body: Any
    status: int = 0
    at: float = field(default_factory=time.monotonic)

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


class FakeDiscord:
    """One Discord with one app and its bot. Tests read and change all of it."""

    def __init__(self, *, pace: float = 0.01, enforce_limits: bool = True) -> None:
        self.ids = Snowflakes()
        self.bot = User(self.ids.next(), "gateway", bot=True)
        self.application_id = self.ids.next()
        self.client_secret = secrets.token_urlsafe(24)
        self._first_token = f"fake-bot-token.{secrets.token_urlsafe(24)}"
        self.bot_tokens = {self._first_token}
        self.guilds: dict[int, Guild] = {}
        self.channels: dict[int, Channel] = {}
        self.users: dict[int, User] = {self.bot.id: self.bot}
        self.hidden: set[int] = set()
        """Channels that the bot may not see: 403 Missing Access."""
        self._pace, self._enforce = pace, enforce_limits
        self.limits = Limits(pace=pace, enforce=enforce_limits)
        self.faults = Faults()
        self.latency = 0.0
        self.interactions = Interactions(self.application_id, Ed25519PrivateKey.generate(), self.ids.next, self.bot)
        self.oauth = Authorizations(self.application_id, self.client_secret)
        self.requests: list[Recorded] = []
        self.watch: Callable[[Recorded], None] | None = None
        self.url = ""
        self._routes = Routes(self)
        self._runner: web.AppRunner | None = None

    @property
    def api_url(self) -> str:
        return self.url + API

    @property
    def authorize_url(self) -> str:
        return f"{self.url}/oauth2/authorize"

    @property
    def bot_token(self) -> str:
        return self._first_token

    def settings(self) -> dict[str, str]:
        """The plugin's settings for this Discord, by name."""
        return {
            "api_url": self.api_url,
            "authorize_url": self.authorize_url,
            "bot_token": self.bot_token,
            "public_key": self.interactions.public_key,
            "client_id": str(self.application_id),
            "client_secret": self.client_secret,
        }

    def reset(self) -> None:
        """Forget requests, faults and limits, and accept the bot's first token again; guilds and people stay."""
        self.requests.clear()
        self.faults = Faults()
        self.limits = Limits(pace=self._pace, enforce=self._enforce)
        self.bot_tokens = {self._first_token}
        self.hidden.clear()
        self.latency = 0.0
        self.oauth = Authorizations(self.application_id, self.client_secret)

    # What a test sets up.

    def add_guild(self, name: str, *, present: bool = True) -> Guild:
        """A server with one text channel; `present`: the bot is in it."""
        owner = self.add_user(f"{name}-owner".lower())
        guild = Guild(self.ids.next(), name, owner, present)
        guild.roles[guild.id] = "@everyone"
        self.guilds[guild.id] = guild
        guild.members[owner.id] = Member(owner)
        if present:
            guild.members[self.bot.id] = Member(self.bot)
        self.add_channel(guild, "general")
        return guild

    def add_channel(self, guild: Guild, name: str, type: int = TEXT, parent: Channel | None = None) -> Channel:
        """A channel, or a thread of `parent`."""
        channel = Channel(self.ids.next(), guild.id, name, type, parent.id if parent else None)
        self.channels[channel.id] = guild.channels[channel.id] = channel
        return channel

    def add_dm(self) -> Channel:
        """A direct message: a channel of no guild."""
        channel = Channel(self.ids.next(), None, "dm", DM)
        self.channels[channel.id] = channel
        return channel

    def add_user(self, username: str, *, bot: bool = False) -> User:
        user = User(self.ids.next(), username, username.title(), bot)
        self.users[user.id] = user
        return user

    def add_member(self, guild: Guild, username: str) -> User:
        """A person in a guild."""
        user = self.add_user(username)
        guild.members[user.id] = Member(user)
        return user

    def say(self, channel: Channel, author: User, content: str, at: datetime | None = None) -> Message:
        """A message of somebody's, now or at another time."""
        message = Message(self.ids.next(at), channel.id, author, content)
        channel.add(message)
        return message

    def messages(self, guild: Guild) -> list[Message]:
        """The bot's messages in a guild, oldest first."""
        found = [message for channel in guild.channels.values() for message in channel.messages.values()]
        return sorted((each for each in found if each.author is self.bot), key=lambda each: each.id)

    def vote(self, message: Message, user: User, *answers: int) -> None:
        """A member votes in a native poll."""
        assert isinstance(message.poll, Poll)
        message.poll.vote(user.id, *answers)

    def revoke_bot(self) -> None:
        """The token was reset in the developer portal."""
        self.bot_tokens.clear()

    def sent(self, method: str, ending: str = "") -> list[Recorded]:
        """The requests of a method whose path ends so."""
        return [each for each in self.requests if each.method == method and each.path.endswith(ending)]

    # The server.

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=32 * 1024 * 1024)
        app.router.add_get("/oauth2/authorize", self._authorize)
        app.router.add_route("*", API + "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _authorize(self, request: web.Request) -> web.Response:
        raise web.HTTPFound(self.oauth.agree(dict(request.query)))

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        recorded = await self._record(request)
        if self.latency:
            await asyncio.sleep(self.latency)
        if self.limits.banned:
            # What Cloudflare says to a banned address: no JSON, no bucket.
            return web.Response(status=429, text="<html>error code: 1015</html>", headers={"Retry-After": "3600"})
        route = read_route(recorded.method, recorded.path)
        fault = await self.faults.next(recorded.line)
        headers, refusal = self.limits.take(route)
        scope = None
        if fault is not None and fault.status:
            scope = fault.scope if fault.status == 429 else None
            answer = (
                _limited(fault.retry_after, fault.scope) if scope else problem(fault.status, fault.code, fault.message)
            )
        elif refusal is not None:
            scope = refusal.scope
            self.limits.refused.append(refusal)
            answer = _limited(refusal.retry_after, scope)
        else:
            try:
                answer = self._routes.answer(request, recorded)
            except Refused as error:
                answer = problem(error.status, error.code, error.message, error.errors)
        self.limits.note_answer(answer.status, scope)
        recorded.status = answer.status
        if fault is not None and fault.lose_answer:
            assert request.transport is not None
            request.transport.close()
            return answer
        if scope != "global" and not recorded.path.startswith("/oauth2/token"):
            answer.headers.update(headers)
        return answer

    async def _record(self, request: web.Request) -> Recorded:
        raw = await request.read()
        path = request.rel_url.raw_path.removeprefix(API)
        body: Any = None
        if request.content_type == "application/json" and raw:
            body = json.loads(raw)
        elif request.content_type == "application/x-www-form-urlencoded":
            body = {name: str(value) for name, value in (await request.post()).items()}
        headers = {name.lower(): value for name, value in request.headers.items()}
        recorded = Recorded(request.method, path, dict(request.query), headers, request.content_type, body)
        self.requests.append(recorded)
        if self.watch is not None:
            self.watch(recorded)
        return recorded


def _limited(retry_after: float, scope: str) -> web.Response:
    everywhere = scope == "global"
    body = {"message": "You are being rate limited.", "retry_after": round(retry_after, 3), "global": everywhere}
    headers = {"Retry-After": str(int(retry_after) + 1), "X-RateLimit-Scope": scope}
    if everywhere:
        headers["X-RateLimit-Global"] = "true"
    return web.json_response(body, status=429, headers=headers)
