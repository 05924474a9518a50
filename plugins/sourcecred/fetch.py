"""Fetching a SourceCred server's accounts file, and keeping it: asked for again at most once a minute, by its ETag."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from datetime import datetime

import httpx

from metagov_sdk import Rejected, Retry
from plugins.sourcecred.accounts import CredAccounts, parse_accounts

PATH = "output/accounts.json"
FRESH_SECONDS = 60
"""How long an answer is good without asking the server again. The actions are public: this spares the server."""
LARGEST_FILE = 8 * 1024 * 1024
"""Bytes; a community of a thousand accounts over ten years needs about half of it."""
_LARGEST_CACHE = 64 * 1024 * 1024
_LONGEST_ETAG = 1000


@dataclass(frozen=True, slots=True)
class Kept:
    """An accounts file as last fetched; `confirmed_at` is when the server last said that it is current."""

    accounts: CredAccounts
    etag: str | None
    size: int
    confirmed_at: datetime

    def age(self, now: datetime) -> int:
        """Whole seconds since the server confirmed it."""
        return max(0, int((now - self.confirmed_at).total_seconds()))


@dataclass(slots=True)
class Cache:
    """What this process has fetched, by server; the least recently used goes when it grows past `largest` bytes."""

    largest: int = _LARGEST_CACHE
    _kept: OrderedDict[str, Kept] = field(default_factory=OrderedDict)

    def get(self, server: str) -> Kept | None:
        """What is kept of a server."""
        kept = self._kept.get(server)
        if kept is not None:
            self._kept.move_to_end(server)
        return kept

    def put(self, server: str, kept: Kept) -> None:
        """Keep it, and let the oldest go for it."""
        self._kept[server] = kept
        self._kept.move_to_end(server)
        while sum(item.size for item in self._kept.values()) > self.largest:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()


CACHE = Cache()
"""Shared by all communities of the process: the files are public, and equal for whoever asks."""


async def current_accounts(http: httpx.AsyncClient, server: str, now: datetime) -> Kept:
    """The server's accounts, no older than FRESH_SECONDS. `http` is based at `server`.

    Raises Retry when the server cannot answer now, Rejected when what it answers is of no use.
    """
    kept = CACHE.get(server)
    if kept is not None and kept.age(now) < FRESH_SECONDS:
        return kept
    headers = {"Accept": "application/json"}
    if kept is not None and kept.etag is not None:
        headers["If-None-Match"] = kept.etag
    try:
        async with http.stream("GET", PATH, headers=headers) as response:
            if response.status_code == 304 and kept is not None:
                kept = replace(kept, confirmed_at=now)
            else:
                kept = await _read(response, server, now)
    except httpx.TransportError as error:
        raise Retry(f"{server} cannot be reached ({type(error).__name__})") from error
    except (httpx.DecodingError, httpx.InvalidURL) as error:
        raise Rejected(f"{server}: the answer cannot be read ({type(error).__name__})") from error
    CACHE.put(server, kept)
    return kept


async def _read(response: httpx.Response, server: str, now: datetime) -> Kept:
    _check_status(response, server)
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > LARGEST_FILE:
            raise Rejected(f"{server}: {PATH} is larger than {LARGEST_FILE // 2**20} MiB")
    etag = response.headers.get("ETag")
    if etag is not None and len(etag) > _LONGEST_ETAG:
        etag = None
    return Kept(parse_accounts(bytes(body), server), etag, len(body), now)


def _check_status(response: httpx.Response, server: str) -> None:
    status = response.status_code
    if status == 200:
        return
    if status == 404:
        raise Rejected(f"{server} has no {PATH}: run `sourcecred analysis` where the instance is built")
    if status == 429 or status >= 500:
        raise Retry(f"{server} answers {status}", after=_retry_after(response))
    if 300 <= status < 400 and status != 304:
        raise Rejected(f"{server} redirects ({status}): set server_url to where it leads")
    raise Rejected(f"{server} answers {status} for {PATH}")


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds, at most a day; the header may also hold a date, which is not worth reading here."""
    value = response.headers.get("Retry-After", "")
    return min(float(value), 86_400.0) if value.isascii() and value.isdigit() else None
