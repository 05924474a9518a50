"""The fake Discord's OAuth: the page where a person agrees, the token endpoint, revocation.

Source: docs.discord.com/developers/topics/oauth2 and /.well-known/oauth-authorization-server (PKCE with S256). The
token endpoints are not in the OpenAPI document.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from aiohttp import BasicAuth, web

from tests.fakes.discord_world import Guild, User

EXPIRES_IN = 604_800


@dataclass(slots=True)
class Grant:
    """What a person agreed to."""

    user: User
    scopes: list[str]
    redirect_uri: str
    challenge: str | None
    guild: Guild | None


@dataclass(slots=True)
class Authorizations:
    """Who agrees (`user`, for `guild`), what was given out, what was revoked.

    denies          the person says no.
    claimed_guild   what the query of the redirect names instead of the real guild: it is not to be believed.
    """

    client_id: int
    client_secret: str
    user: User | None = None
    guild: Guild | None = None
    denies: bool = False
    claimed_guild: str | None = None
    codes: dict[str, Grant] = field(default_factory=dict)
    tokens: dict[str, Grant] = field(default_factory=dict)
    refresh_tokens: dict[str, Grant] = field(default_factory=dict)
    revoked: list[str] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)

    def agree(self, query: dict[str, str]) -> str:
        """The person at the page: where their browser is sent."""
        self.asked.append(query)
        back = {"state": query.get("state", "")}
        if self.denies:
            back |= {"error": "access_denied", "error_description": "The resource owner or authorization server denied"}
            return f"{query['redirect_uri']}?{urlencode(back)}"
        assert self.user is not None
        scopes = query["scope"].split(" ")
        guild = self.guild if "bot" in scopes else None
        code = secrets.token_urlsafe(20)
        self.codes[code] = Grant(self.user, scopes, query["redirect_uri"], query.get("code_challenge"), guild)
        back["code"] = code
        if guild is not None:
            back |= {"guild_id": self.claimed_guild or str(guild.id), "permissions": query.get("permissions", "0")}
        return f"{query['redirect_uri']}?{urlencode(back)}"

    def issue(self, request: web.Request, form: dict[str, str]) -> web.Response:
        """POST /oauth2/token."""
        if not self._is_client(request, form):
            return _error("invalid_client", 401)
        kind = form.get("grant_type")
        if kind == "authorization_code":
            grant = self.codes.pop(form.get("code", ""), None)
            if grant is None or grant.redirect_uri != form.get("redirect_uri"):
                return _error("invalid_grant", description='Invalid "code" in request.')
            if grant.challenge is not None and grant.challenge != _challenge(form.get("code_verifier", "")):
                return _error("invalid_grant", description="Invalid code_verifier")
        elif kind == "refresh_token":
            grant = self.refresh_tokens.pop(form.get("refresh_token", ""), None)
            if grant is None:
                return _error("invalid_grant")
        else:
            return _error("unsupported_grant_type")
        access, refresh = f"access-{secrets.token_urlsafe(24)}", f"refresh-{secrets.token_urlsafe(24)}"
        self.tokens[access] = self.refresh_tokens[refresh] = grant
        answer: dict[str, Any] = {
            "token_type": "Bearer",
            "access_token": access,
            "refresh_token": refresh,
            "expires_in": EXPIRES_IN,
            "scope": " ".join(grant.scopes),
        }
        if grant.guild is not None and kind == "authorization_code":
            grant.guild.present = True
            answer["guild"] = grant.guild.wire()
        return web.json_response(answer)

    def revoke(self, request: web.Request, form: dict[str, str]) -> web.Response:
        """POST /oauth2/token/revoke: all of the grant's tokens go."""
        if not self._is_client(request, form):
            return _error("invalid_client", 401)
        token = form.get("token", "")
        grant = self.tokens.get(token) or self.refresh_tokens.get(token)
        self.revoked.append(token)
        for kept in (self.tokens, self.refresh_tokens):
            for other in [name for name, of in kept.items() if of is grant]:
                del kept[other]
        return web.json_response({})

    def _is_client(self, request: web.Request, form: dict[str, str]) -> bool:
        known = (str(self.client_id), self.client_secret)
        if header := request.headers.get("Authorization"):
            try:
                auth = BasicAuth.decode(header)
            except ValueError:
                return False
            return (auth.login, auth.password) == known
        return (form.get("client_id"), form.get("client_secret")) == known


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _error(error: str, status: int = 400, description: str | None = None) -> web.Response:
    return web.json_response(
        {"error": error, **({"error_description": description} if description else {})}, status=status
    )
