"""A Slack on loopback: its Web API, its OAuth pages and its webhooks, with whatever goes wrong on demand.

    async with FakeSlack() as slack:
        town = slack.world.team("T0TOWN")
        token = slack.world.install(town).token
        slack.fail("chat.update", status=429, retry_after=1)
        …
        await slack.hooks.click(town, "C0SQUARE", ts, "U0ADA", "yes")
        assert slack.calls("chat.update")

`requests` is everything that came, for the validator in tests/support/slack_spec.py. URLs that Slack itself would serve
from another host (`response_url`) are on a port of their own, so that what is sent there by mistake can be seen.
Source: https://docs.slack.dev/apis/web-api, https://docs.slack.dev/authentication/installing-with-oauth
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode

from aiohttp import web

from tests.fakes.slack_hooks import Hooks
from tests.fakes.slack_methods import NOT_MARKETPLACE, TIERS, call
from tests.fakes.slack_state import BOT_SCOPES, Code, Grant, Refused, Team, World

_POSTS_A_SECOND = 1
_POST_BURST = 2
_POST_WINDOW = 3
"""Slack lets "short bursts" of more than a message a second through, and does not say how short."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request to the API as it came in, and how it was answered."""

    method: str
    verb: str
    query: dict[str, str]
    headers: dict[str, str] = field(repr=False)
    content_type: str
    body: dict[str, Any]
    raw: bytes = field(repr=False)
    at: float
    answer: dict[str, Any] = field(default_factory=dict)
    status: int = 200

    @property
    def fields(self) -> dict[str, Any]:
        """All arguments, wherever they stood."""
        return {**self.query, **self.body}

    def decoded(self, name: str) -> Any:
        """A structured argument (`blocks`, `metadata`)."""
        value = self.fields[name]
        return json.loads(value) if isinstance(value, str) else value


@dataclass(slots=True)
class Fault:
    """What goes wrong with calls of a method, for a number of times."""

    method: str
    times: int
    status: int | None = None
    error: str | None = None
    retry_after: float | None = None
    delay: float = 0
    lost: bool = False
    """Done, and the connection is cut before the answer."""


class FakeSlack:
    """See the module."""

    def __init__(self) -> None:
        self.world = World()
        self.requests: list[Recorded] = []
        self.responses: list[dict[str, Any]] = []
        """What was posted to response URLs."""
        self.stray: list[dict[str, str]] = []
        """The headers of requests to hosts that are not the API's."""
        self.enforces_limits = False
        self.minute = 60.0
        """How long the minute of the limits is."""
        self.limited = 0
        """How many calls were answered 429 because the limits were passed."""
        self.denies = False
        """Whether the person says no on the authorize page."""
        self.person: tuple[Team, str] | None = None
        """Who sits at the authorize page; None: the first person of the first workspace."""
        self.authorized: list[dict[str, str]] = []
        """The queries that the authorize page was opened with."""
        self.hooks = Hooks(self)
        self.url = self.elsewhere = ""
        self._faults: list[Fault] = []
        self._chance = (0.0, 1.0, random.Random(0))
        self._recent: dict[tuple[str, ...], deque[float]] = {}
        self._runner: web.AppRunner | None = None

    @property
    def api_url(self) -> str:
        """For METAGOV_SLACK_API_URL."""
        return f"{self.url}/api/"

    def settings(self) -> dict[str, str]:
        """The plugin's settings for the fake's app."""
        app = self.world.app
        return {
            "api_url": self.api_url,
            "authorize_url": self.url,
            "client_id": app.client_id,
            "client_secret": app.client_secret,
            "signing_secret": app.signing_secret,
        }

    def environment(self) -> dict[str, str]:
        """The same as environment variables."""
        return {f"METAGOV_SLACK_{name.upper()}": value for name, value in self.settings().items()}

    def fail(self, method: str, *, times: int = 1, **how: Any) -> None:
        """Let the next calls of a method (`*` for any) go wrong: see Fault."""
        self._faults.append(Fault(method, times, **how))

    def heal(self) -> None:
        """Nothing goes wrong any more."""
        self._faults.clear()
        self._chance = (0.0, 1.0, self._chance[2])

    def limit_at_random(self, share: float, *, retry_after: float = 1, seed: int = 1) -> None:
        """Answer this share of all calls with 429."""
        self._chance = (share, retry_after, random.Random(seed))

    def calls(self, method: str) -> list[Recorded]:
        """The requests of a method that were answered `ok`."""
        return [one for one in self.requests if one.method == method and one.answer.get("ok")]

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/api/{method}", self._api)
        app.router.add_get("/oauth/v2/authorize", self._authorize)
        app.router.add_get("/openid/connect/authorize", self._authorize)
        app.router.add_post("/actions/{tail:.*}", self._respond)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        for _ in range(2):
            await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url, self.elsewhere = (f"http://127.0.0.1:{address[1]}" for address in self._runner.addresses)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _api(self, request: web.Request) -> web.StreamResponse:
        asked = await _recorded(request)
        headers: dict[str, str] = {}
        status = 200
        fault = self._next_fault(asked.method)
        if fault is not None and fault.delay:
            await asyncio.sleep(fault.delay)
        try:
            answer = self._refused_by(fault) or self._answer(asked)
        except Refused as refused:
            answer = refused.answer
        if answer.get("error") == "ratelimited":
            status, headers = 429, {"Retry-After": str(answer.pop("retry_after"))}
        elif "status" in answer:
            status = answer.pop("status")
        self.requests.append(
            Recorded(**{**{name: getattr(asked, name) for name in _ASKED}, "answer": answer, "status": status})
        )
        if fault is not None and fault.lost:
            assert request.transport is not None
            request.transport.abort()
            raise asyncio.CancelledError
        if status >= 500:
            return web.Response(status=status, text="<html>upstream connect error</html>", content_type="text/html")
        return web.json_response(answer, status=status, headers=headers)

    def _next_fault(self, method: str) -> Fault | None:
        for fault in self._faults:
            if fault.times > 0 and fnmatch(method, fault.method):
                fault.times -= 1
                return fault
        share, retry_after, chance = self._chance
        if share and not method.startswith(("oauth.", "openid.")) and chance.random() < share:
            return Fault(method, 0, status=429, retry_after=retry_after)
        return None

    def _refused_by(self, fault: Fault | None) -> dict[str, Any] | None:
        if fault is None or (fault.status is None and fault.error is None):
            return None
        if fault.status == 429 or fault.error == "ratelimited":
            wait = 1 if fault.retry_after is None else fault.retry_after
            return {"ok": False, "error": "ratelimited", "retry_after": wait}
        if fault.status is not None:
            return {"ok": False, "status": fault.status}
        return {"ok": False, "error": fault.error}

    def _answer(self, asked: Recorded) -> dict[str, Any]:
        if asked.method in _WITHOUT_TOKEN:
            return _WITHOUT_TOKEN[asked.method](self, asked)
        grant = self._grant(asked)
        self._count(grant, asked)
        return call(self.world, grant, asked.method, asked.fields)

    def _grant(self, asked: Recorded) -> Grant:
        scheme, _, token = asked.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            token = str(asked.fields.get("token") or "")
        if not token:
            raise Refused("not_authed")
        grant = self.world.grants.get(token)
        if grant is None:
            raise Refused("invalid_auth")
        grant.check()
        return grant

    def _count(self, grant: Grant, asked: Recorded) -> None:
        """Hold the caller to the limits, where that is wanted. Raises Refused."""
        if not self.enforces_limits:
            return
        seconds, most = self.minute, TIERS.get(asked.method)
        key: tuple[str, ...] = (grant.team.id, asked.method)
        if asked.method in NOT_MARKETPLACE and not self.world.app.marketplace:
            most = NOT_MARKETPLACE[asked.method]
        if asked.method == "chat.postMessage":
            seconds, most = _POST_WINDOW * self.minute / 60, _POST_WINDOW * _POSTS_A_SECOND + _POST_BURST
            key = (*key, str(asked.fields.get("channel")))
        if most is None:
            return
        recent = self._recent.setdefault(key, deque())
        while recent and recent[0] <= asked.at - seconds:
            recent.popleft()
        if len(recent) >= most:
            self.limited += 1
            wait = recent[0] + seconds - asked.at
            raise Refused("ratelimited", retry_after=max(1, round(wait)))
        recent.append(asked.at)

    async def _authorize(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        self.authorized.append(query)
        if query.get("client_id") != self.world.app.client_id:
            return web.Response(text="Something went wrong when authorizing this app: invalid client_id")
        team, user = self.person or self._first_person(query.get("team"))
        state = {"state": query["state"]} if "state" in query else {}
        if self.denies:
            raise web.HTTPFound(f"{query['redirect_uri']}?{urlencode({'error': 'access_denied', **state})}")
        code = f"{self.world.number()}.{random.Random(self.world.number()).getrandbits(128):x}"
        kind = "user" if request.path.startswith("/openid") else "app"
        scopes = frozenset((query.get("scope") or "").replace(",", " ").split())
        self.world.codes[code] = Code(kind, team, user, query.get("redirect_uri", ""), scopes)
        raise web.HTTPFound(f"{query['redirect_uri']}?{urlencode({'code': code, **state})}")

    def _first_person(self, hint: str | None) -> tuple[Team, str]:
        team = self.world.teams.get(hint or "") or next(iter(self.world.teams.values()), None) or self.world.team()
        return team, next(iter(team.members))

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        self.stray.append({name.lower(): value for name, value in request.headers.items()})
        self.responses.append({"url": str(request.url), **await request.json()})
        return web.Response(text="ok")


_ASKED = ("method", "verb", "query", "headers", "content_type", "body", "raw", "at")


async def _recorded(request: web.Request) -> Recorded:
    raw = await request.read()
    body: dict[str, Any] = {}
    if request.content_type == "application/json":
        body = json.loads(raw or b"{}")
    elif request.content_type == "application/x-www-form-urlencoded":
        body = dict(parse_qsl(raw.decode(), keep_blank_values=True))
    headers = {name.lower(): value for name, value in request.headers.items()}
    query = dict(request.query)
    method = request.match_info["method"]
    return Recorded(method, request.method, query, headers, request.content_type, body, raw, time.monotonic())


def _check_client(slack: FakeSlack, asked: Recorded) -> None:
    app = slack.world.app
    given = (asked.fields.get("client_id"), asked.fields.get("client_secret"))
    scheme, _, encoded = asked.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        name, _, secret = base64.b64decode(encoded).decode().partition(":")
        given = (name, secret)
    if given[0] != app.client_id:
        raise Refused("invalid_client_id")
    if given[1] != app.client_secret:
        raise Refused("bad_client_secret")


def _used_code(slack: FakeSlack, asked: Recorded, kind: str) -> Code:
    code = slack.world.codes.get(str(asked.fields.get("code")))
    if code is None or code.kind != kind:
        raise Refused("invalid_code")
    if code.used:
        raise Refused("code_already_used")
    if code.redirect_uri != asked.fields.get("redirect_uri"):
        raise Refused("bad_redirect_uri")
    code.used = True
    return code


def _oauth_access(slack: FakeSlack, asked: Recorded) -> dict[str, Any]:
    _check_client(slack, asked)
    if asked.fields.get("grant_type") == "refresh_token":
        return _rotated(slack, asked)
    code = _used_code(slack, asked, "app")
    enterprise = code.team.enterprise_id
    whole = enterprise is not None and code.team.id == enterprise
    grant = slack.world.install(code.team, scopes=code.scopes or BOT_SCOPES, enterprise=whole)
    return {
        **_token_answer(slack, grant),
        "team": None if whole else {"id": code.team.id, "name": code.team.domain},
        "enterprise": None if enterprise is None else {"id": enterprise, "name": "an organisation"},
        "is_enterprise_install": whole,
        "authed_user": {"id": code.user_id},
    }


def _rotated(slack: FakeSlack, asked: Recorded) -> dict[str, Any]:
    """New tokens for a refresh token; the one it came with is void from now on."""
    wanted = asked.fields.get("refresh_token")
    old = next((grant for grant in slack.world.grants.values() if wanted and grant.refresh_token == wanted), None)
    if old is None or old.error is not None:
        raise Refused("invalid_refresh_token")
    old.refresh_token, old.error = None, "token_expired"
    grant = slack.world.install(old.team, scopes=old.scopes, enterprise=old.enterprise)
    return {
        **_token_answer(slack, grant),
        "team": {"id": old.team.id, "name": old.team.domain},
        "enterprise": None,
        "is_enterprise_install": old.enterprise,
    }


def _token_answer(slack: FakeSlack, grant: Grant) -> dict[str, Any]:
    rotation = (
        {"refresh_token": grant.refresh_token, "expires_in": slack.world.app.token_seconds}
        if grant.refresh_token
        else {}
    )
    return {
        "ok": True,
        "app_id": slack.world.app.id,
        "access_token": grant.token,
        "token_type": "bot",
        "scope": ",".join(sorted(grant.scopes)),
        "bot_user_id": grant.user_id,
        **rotation,
    }


def _openid_token(slack: FakeSlack, asked: Recorded) -> dict[str, Any]:
    _check_client(slack, asked)
    code = _used_code(slack, asked, "user")
    token = f"xoxp-{slack.world.number()}-fake"
    slack.world.grants[token] = Grant(token, code.team, code.user_id, kind="user", scopes=code.scopes)
    return {"ok": True, "access_token": token, "token_type": "Bearer", "id_token": "not.read.here"}


def _openid_user_info(slack: FakeSlack, asked: Recorded) -> dict[str, Any]:
    grant = slack._grant(asked)
    if "openid" not in grant.scopes:
        raise Refused("missing_scope", needed="openid")
    return {
        "ok": True,
        "sub": grant.user_id,
        "https://slack.com/user_id": grant.user_id,
        "https://slack.com/team_id": grant.team.id,
        "name": grant.team.members[grant.user_id],
        "https://slack.com/team_domain": grant.team.domain,
    }


_WITHOUT_TOKEN: Mapping[str, Callable[[FakeSlack, Recorded], dict[str, Any]]] = {
    "oauth.v2.access": _oauth_access,
    "openid.connect.token": _openid_token,
    "openid.connect.userInfo": _openid_user_info,
}
