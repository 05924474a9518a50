"""Discord's rate limits: which buckets a request takes from, and what answers say of them. Pure.

Sources: docs.discord.com/developers/topics/rate-limits; the scope of a 429 is user, global or shared, and one that is
shared does not count as invalid.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import httpx

from metagov_sdk.limits import Alias, Charge, Learned, Limit, Wait, bounded_seconds, retry_after
from plugins.discord.api import has_own_token

GLOBAL = Limit("global", rate=40, per=1, burst=10)
"""50 requests a second for a bot: 10 at once and 40 a second make no more in any second."""
INVALID = Limit("invalid", rate=800, per=600, burst=200)
"""Discord bans an address for a while after 10,000 answers of 401, 403 or 429 in ten minutes. This stops one credential
after a tenth of that."""
_INVALID_GUARD = Limit(INVALID.bucket, INVALID.rate, INVALID.per, INVALID.burst, cost=0)

_ID = re.compile(r"[0-9]+")
_BUCKET = re.compile(r"[A-Za-z0-9:_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Route:
    """A request's route: ids are blanked out, but for the one that has buckets of its own (`major`).

    Interactions have a bucket for each of their tokens, good for a few minutes and for more requests than are made
    with it: they are not told apart here.
    """

    name: str
    major: str
    own_token: bool


def read_route(method: str, path: str) -> Route:
    """`PATCH`, `/channels/1/messages/2` → `PATCH channels/1/messages/{}`, major `channels/1`."""
    if has_own_token(path):
        return Route("interactions", "", True)
    parts = path.strip("/").split("/")
    major, rest = "/".join(parts[:2]), ["{}" if _ID.fullmatch(part) else part for part in parts[2:]]
    if "reactions" in rest[:-1]:
        rest[rest.index("reactions") + 1] = "{}"
    return Route(f"{method} {'/'.join([major, *rest])}", major, False)


def limits_of(route: Route) -> list[Limit]:
    """What a request takes from: nothing of its route (only answers tell of that), one of the global limit."""
    own = Limit(route.name, rate=50, per=1, burst=50, cost=0)
    return [own, _INVALID_GUARD] if route.own_token else [own, GLOBAL, _INVALID_GUARD]


def learn_from(route: Route, response: httpx.Response) -> list[Learned]:
    """What an answer says about the route's bucket, the global limit and the count of invalid requests."""
    headers = response.headers
    learned: list[Learned] = []
    bucket, told = route.name, headers.get("X-RateLimit-Bucket", "")
    if _BUCKET.fullmatch(told) and not route.own_token:
        bucket = f"bucket:{told}:{route.major}"
        learned.append(Alias(route.name, bucket))
    if response.status_code == 429:
        learned += _refused(bucket, response)
    elif headers.get("X-RateLimit-Remaining") == "0":
        learned.append(Wait(bucket, bounded_seconds(headers.get("X-RateLimit-Reset-After"))))
    if response.status_code in (401, 403):
        learned.append(Charge(INVALID))
    return learned


def _refused(bucket: str, response: httpx.Response) -> list[Learned]:
    body = _body(response)
    scope = response.headers.get("X-RateLimit-Scope")
    seconds = body.get("retry_after")
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        # Not Discord itself but what stands before it: nothing at all is let through.
        return [Wait(GLOBAL.bucket, retry_after(response.headers) or 1.0), Charge(INVALID)]
    everywhere = body.get("global") is True or scope == "global"
    wait = Wait(GLOBAL.bucket if everywhere else bucket, bounded_seconds(seconds))
    return [wait] if scope == "shared" else [wait, Charge(INVALID)]


def _body(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
