"""The platform's tokens of one instance: kept sealed by the gateway, renewed by one worker at a time, shared by all."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import httpx
from pydantic import JsonValue

_ADDED = "metagov.added_headers"
_LONGEST_NAME = 200

_used: ContextVar[list[UsedCredential] | None] = ContextVar("used_credentials", default=None)
_bare: ContextVar[bool] = ContextVar("bare_requests", default=False)


@dataclass(frozen=True, slots=True)
class Token:
    """A token as a platform gives it.

    access_token   what requests are authenticated with.
    refresh_token  what another is had for (None: it cannot be refreshed).
    expires_in     seconds from now until it is void (None: it stays good until it is revoked).
    scopes         what it is good for, in the platform's words.
    data           what else the plugin wants kept with it; JSON values, sealed like the token itself.
    """

    access_token: str = field(repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    expires_in: float | None = None
    scopes: tuple[str, ...] = ()
    data: Mapping[str, JsonValue] = field(default_factory=dict, repr=False)


def check_token(token: Token) -> None:
    """Raises TypeError for what cannot be kept as a token: no text, or data that is not JSON."""
    if not isinstance(token, Token) or not isinstance(token.access_token, str) or not token.access_token:
        raise TypeError("a Token has an access_token, which is text")
    if token.refresh_token is not None and not isinstance(token.refresh_token, str):
        raise TypeError("a Token's refresh_token is text, or None")
    json.dumps(dict(token.data))


def check_credential_name(name: str) -> None:
    """Raises ValueError for what cannot name a credential."""
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        raise ValueError(f"a credential's name has 1 to {_LONGEST_NAME} printable characters")


Mint: TypeAlias = Callable[[], Awaitable[Token]]
"""Asks the platform for a fresh token, for those that need no refresh token (a GitHub App's, by its private key)."""


@dataclass(frozen=True, slots=True)
class UsedCredential:
    """What a request was authenticated with; `minted` says that a plugin can mint another."""

    name: str
    secret: str = field(repr=False)
    minted: bool


class Credentials(Protocol):
    """An instance's stored credentials, as the gateway hands them to a call."""

    async def read(self, name: str, mint: Mint | None) -> str:
        """The access token of this name, renewed where it is void or soon will be. Raises Unauthorized for none."""
        ...

    async def invalidate(self, used: UsedCredential) -> bool:
        """Take note that the platform refused it. Whether `read` can give another than `used` was."""
        ...


def note_use(used: UsedCredential) -> None:
    """Remember for the request being authenticated what it is authenticated with."""
    noted = _used.get()
    if noted is not None:
        noted.append(used)


def bare(mint: Mint) -> Mint:
    """`mint`, with the requests that it makes left unauthenticated: they are what the token is got by."""

    async def minted() -> Token:
        before = _bare.set(True)
        try:
            return await mint()
        finally:
            _bare.reset(before)

    return minted


class CredentialAuth(httpx.Auth):
    """Has a plugin add its credentials to the requests of one origin.

    A 401 to credentials of which others can be had is answered with a second try, once.
    """

    def __init__(
        self,
        origin: httpx.URL,
        authenticate: Callable[[httpx.Request], Awaitable[None]],
        invalidate: Callable[[UsedCredential], Awaitable[bool]],
    ) -> None:
        self._origin = _origin(origin)
        self._authenticate = authenticate
        self._invalidate = invalidate

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """The protocol of httpx: yield a request, be sent its response."""
        if _bare.get() or _origin(request.url) != self._origin:
            yield request
            return
        plain_url, plain_headers = request.url, request.headers.copy()
        # What is streamed out of a generator is gone by then, and cannot be sent again.
        replayable = isinstance(request.stream, httpx.ByteStream)
        used = await self._add(request)
        answer = yield request
        if answer.status_code != 401 or not replayable:
            return
        renewable = [await self._invalidate(credential) for credential in used]
        if not any(renewable):
            return
        request.url, request.headers = plain_url, plain_headers
        await self._add(request)
        yield request

    async def strip(self, request: httpx.Request) -> None:
        """Take the credentials off a request that a redirect leads elsewhere; httpx itself knows of Authorization."""
        if _origin(request.url) != self._origin:
            for name in request.extensions.get(_ADDED, ()):
                request.headers.pop(name, None)

    async def _add(self, request: httpx.Request) -> list[UsedCredential]:
        before = dict(request.headers)
        with _noting() as used:
            await self._authenticate(request)
        added = tuple(name for name, value in request.headers.items() if before.get(name) != value)
        request.extensions = {**request.extensions, _ADDED: added}
        return used


@contextmanager
def _noting() -> Iterator[list[UsedCredential]]:
    used: list[UsedCredential] = []
    before = _used.set(used)
    try:
        yield used
    finally:
        _used.reset(before)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
