"""A platform with OAuth 2.0, PKCE, rotating refresh tokens and a small API; what goes wrong does so on demand.

Shapes: RFC 6749 (sections 4.1, 5, 6), RFC 7636, RFC 7009.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from aiohttp import web

CLIENT_ID = "client-1"
CLIENT_SECRET = "hidden-client-secret"


@dataclass(slots=True)
class Seen:
    """A request as it came."""

    method: str
    url: str
    headers: dict[str, str]
    body: str


@dataclass(slots=True)
class Knobs:
    """How the platform behaves; `OAuthProvider.reset` makes it well-behaved again.

    team, user     who consents, and for which workspace.
    denies         the person says no.
    status         what /token answers instead (0: as it should).
    delay          seconds that /token takes.
    garbage        /token answers something else than JSON.
    lasts          seconds that access tokens last (None: for ever, without a refresh token).
    api_status     what the API answers instead.
    """

    team: str = "T1"
    user: str = "U1"
    denies: str = ""
    status: int = 0
    delay: float = 0
    garbage: bool = False
    lasts: float | None = None
    api_status: int = 0


@dataclass(slots=True)
class _Code:
    team: str
    user: str
    redirect_uri: str
    challenge: str
    used: bool = False


@dataclass(slots=True)
class OAuthProvider:
    """`async with OAuthProvider() as provider:` serves `provider.url`.

    requests    all that came.
    live        access tokens in force, with their workspace.
    revoked     those that were revoked.
    refreshes   how many refreshes were done; `reuses`: with a refresh token that had been used before.
    mints       how many tokens were minted.
    """

    knobs: Knobs = field(default_factory=Knobs)
    url: str = ""
    requests: list[Seen] = field(default_factory=list)
    live: dict[str, str] = field(default_factory=dict)
    revoked: list[str] = field(default_factory=list)
    refreshes: int = 0
    reuses: int = 0
    mints: int = 0
    issued: list[str] = field(default_factory=list)
    _codes: dict[str, _Code] = field(default_factory=dict)
    _refresh: dict[str, str] = field(default_factory=dict)
    _used_refresh: set[str] = field(default_factory=set)
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/authorize", self._authorize)
        app.router.add_post("/token", self._token)
        app.router.add_post("/revoke", self._revoke)
        app.router.add_post("/api/mint", self._mint)
        app.router.add_get("/api/whoami", self._whoami)
        app.router.add_get("/api/away", self._away)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def reset(self) -> None:
        """As if just started, at the same address."""
        fresh = OAuthProvider()
        for name in ("knobs", "requests", "live", "revoked", "refreshes", "reuses", "mints", "issued"):
            setattr(self, name, getattr(fresh, name))

    async def _record(self, request: web.Request) -> None:
        body = (await request.read()).decode()
        self.requests.append(Seen(request.method, str(request.url), dict(request.headers), body))

    async def _authorize(self, request: web.Request) -> web.Response:
        await self._record(request)
        query = request.query
        assert query["client_id"] == CLIENT_ID
        assert query["response_type"] == "code"
        said = {"state": query["state"]}
        if self.knobs.denies:
            said["error"] = self.knobs.denies
        else:
            code = secrets.token_urlsafe(16)
            self._codes[code] = _Code(
                self.knobs.team, self.knobs.user, query["redirect_uri"], query.get("code_challenge", "")
            )
            said["code"] = code
        return web.Response(status=302, headers={"Location": f"{query['redirect_uri']}?{urlencode(said)}"})

    async def _token(self, request: web.Request) -> web.Response:
        await self._record(request)
        knobs = self.knobs
        form = await request.post()
        if form["client_id"] != CLIENT_ID or form["client_secret"] != CLIENT_SECRET:
            return web.json_response({"error": "invalid_client"}, status=401)
        if knobs.delay:
            await asyncio.sleep(knobs.delay)
        if knobs.status:
            return web.json_response({"error": "server_error"}, status=knobs.status)
        if knobs.garbage:
            return web.Response(text="<html>hello</html>")
        if form["grant_type"] == "refresh_token":
            return self._refreshed(str(form["refresh_token"]))
        code = self._codes.get(str(form["code"]))
        if code is None or code.used or code.redirect_uri != form["redirect_uri"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        if code.challenge and _challenge(str(form["code_verifier"])) != code.challenge:
            return web.json_response({"error": "invalid_grant"}, status=400)
        code.used = True
        return web.json_response({**self._issue(code.team), "team": code.team, "user": code.user, "scope": "chat read"})

    def _refreshed(self, refresh_token: str) -> web.Response:
        if refresh_token in self._used_refresh:
            self.reuses += 1
            return web.json_response({"error": "invalid_grant"}, status=400)
        team = self._refresh.pop(refresh_token, None)
        if team is None:
            return web.json_response({"error": "invalid_grant"}, status=400)
        self._used_refresh.add(refresh_token)
        self.refreshes += 1
        return web.json_response(self._issue(team))

    def _issue(self, team: str) -> dict[str, Any]:
        access = f"hidden-access-{secrets.token_hex(8)}"
        self.live[access] = team
        self.issued.append(access)
        answer: dict[str, Any] = {"access_token": access, "token_type": "bearer"}
        if self.knobs.lasts is not None:
            refresh = f"hidden-refresh-{secrets.token_hex(8)}"
            self._refresh[refresh] = team
            self.issued.append(refresh)
            answer |= {"refresh_token": refresh, "expires_in": self.knobs.lasts}
        return answer

    async def _revoke(self, request: web.Request) -> web.Response:
        await self._record(request)
        token = str((await request.post())["token"])
        self.live.pop(token, None)
        self.revoked.append(token)
        return web.Response()

    async def _mint(self, request: web.Request) -> web.Response:
        await self._record(request)
        if request.headers["Authorization"] != "App key":
            return web.json_response({"error": "app only"}, status=401)
        if self.knobs.delay:
            await asyncio.sleep(self.knobs.delay)
        self.mints += 1
        access = f"hidden-minted-{secrets.token_hex(8)}"
        self.live[access] = "minted"
        self.issued.append(access)
        return web.json_response({"token": access, "expires_in": self.knobs.lasts or 3600})

    async def _whoami(self, request: web.Request) -> web.Response:
        await self._record(request)
        if self.knobs.api_status:
            return web.Response(status=self.knobs.api_status)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.live:
            return web.json_response({"error": "token_revoked"}, status=401)
        return web.json_response({"team": self.live[token]})

    async def _away(self, request: web.Request) -> web.Response:
        await self._record(request)
        return web.Response(status=302, headers={"Location": request.query["to"]})


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
