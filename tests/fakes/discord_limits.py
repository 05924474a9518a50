"""How the fake Discord limits and fails: buckets by route and major id, the global limit, the invalid-request guard.

Source: docs.discord.com/developers/topics/rate-limits. The numbers of the routes are not published; those here are what
clients have long seen. `pace` shortens every window, so that tests need not wait.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

SNOWFLAKE = re.compile(r"[0-9]+")
GLOBAL_PER_SECOND = 50
INVALID_PER_WINDOW = 10_000
INVALID_WINDOW = 600.0

DEFAULT_RULE = (50, 1.0)
RULES: dict[str, tuple[int, float]] = {
    "POST /channels/{}/messages": (5, 5.0),
    "PATCH /channels/{}/messages/{}": (5, 5.0),
    "GET /channels/{}/messages": (5, 5.0),
    "GET /channels/{}/messages/{}/reactions/{}": (5, 5.0),
    "PUT /channels/{}/messages/{}/reactions/{}/@me": (1, 0.25),
    "GET /guilds/{}/members": (10, 10.0),
    "POST /webhooks/{}/{}": (5, 2.0),
    "PATCH /webhooks/{}/{}/messages/@original": (5, 2.0),
}


@dataclass(frozen=True, slots=True)
class Route:
    """A request's route with ids blanked out, and the major id that has a bucket of its own."""

    template: str
    major: str
    counts_globally: bool


def read_route(method: str, path: str) -> Route:
    """`PATCH /channels/1/messages/2` → `PATCH /channels/{}/messages/{}`, channel 1."""
    parts = path.strip("/").split("/")
    major = "/".join(parts[:2])
    if parts[0] in ("webhooks", "interactions"):
        major = "/".join(parts[:3])
        blanked = [parts[0], "{}", "{}", *("{}" if SNOWFLAKE.fullmatch(part) else part for part in parts[3:])]
        return Route(f"{method} /{'/'.join(blanked[: len(parts)])}", major, False)
    blanked = ["{}" if SNOWFLAKE.fullmatch(part) else part for part in parts]
    if "reactions" in blanked and len(blanked) > blanked.index("reactions") + 1:
        blanked[blanked.index("reactions") + 1] = "{}"
    return Route(f"{method} /{'/'.join(blanked)}", major, True)


@dataclass(slots=True)
class Window:
    """One bucket: how many requests are left until it is full again."""

    limit: int
    left: int
    resets: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """A 429: `scope` is user, global or shared."""

    retry_after: float
    scope: str


@dataclass(slots=True)
class Limits:
    """Counts what comes in. `enforce` off: nothing is refused, headers are still sent."""

    pace: float = 1.0
    enforce: bool = True
    rules: dict[str, tuple[int, float]] = field(default_factory=lambda: dict(RULES))
    invalid_allowed: int = INVALID_PER_WINDOW
    refused: list[Refusal] = field(default_factory=list)
    _windows: dict[tuple[str, str], Window] = field(default_factory=dict)
    _recent: deque[float] = field(default_factory=deque)
    _invalid: deque[float] = field(default_factory=deque)

    def bucket(self, route: Route) -> str:
        """The opaque name that headers give a route's bucket."""
        return hashlib.sha256(route.template.encode()).hexdigest()[:32]

    @property
    def invalid(self) -> int:
        """How many invalid answers count against the client just now."""
        start = time.monotonic() - INVALID_WINDOW
        while self._invalid and self._invalid[0] < start:
            self._invalid.popleft()
        return len(self._invalid)

    @property
    def banned(self) -> bool:
        return self.invalid >= self.invalid_allowed

    def note_answer(self, status: int, scope: str | None) -> None:
        """401, 403 and 429 count, but for a 429 of scope shared."""
        if status in (401, 403) or (status == 429 and scope != "shared"):
            self._invalid.append(time.monotonic())

    def take(self, route: Route) -> tuple[dict[str, str], Refusal | None]:
        """The headers of the answer, and the refusal where a limit is reached."""
        now = time.monotonic()
        limit, per = self.rules.get(route.template, DEFAULT_RULE)
        per *= self.pace
        window = self._windows.get((route.template, route.major))
        if window is None or now >= window.resets:
            window = self._windows[route.template, route.major] = Window(limit, limit, now + per)
        refusal = self._refusal(route, window, now) if self.enforce else None
        if refusal is None:
            window.left = max(0, window.left - 1)
        after = max(0.001, window.resets - now)
        headers = {
            "X-RateLimit-Limit": str(window.limit),
            "X-RateLimit-Remaining": str(window.left),
            "X-RateLimit-Reset": f"{time.time() + after:.3f}",
            "X-RateLimit-Reset-After": f"{after:.3f}",
            "X-RateLimit-Bucket": self.bucket(route),
        }
        return headers, refusal

    def _refusal(self, route: Route, window: Window, now: float) -> Refusal | None:
        if route.counts_globally:
            while self._recent and self._recent[0] <= now - 1:
                self._recent.popleft()
            if len(self._recent) >= GLOBAL_PER_SECOND:
                return Refusal(max(0.001, self._recent[0] + 1 - now), "global")
            self._recent.append(now)
        return Refusal(max(0.001, window.resets - now), "user") if window.left == 0 else None


@dataclass(slots=True)
class Fault:
    """What goes wrong with the next `times` requests whose "METHOD /path" matches `match`.

    status 429 has `scope` and `retry_after`; `lose_answer`: the request is carried out, and the connection then closed;
    `delay`: seconds before the answer, for time-outs; `code` and `message` of an error body.
    """

    match: str = ""
    status: int = 0
    times: int = 1
    code: int = 0
    message: str = ""
    retry_after: float = 0.05
    scope: str = "user"
    delay: float = 0.0
    lose_answer: bool = False


@dataclass(slots=True)
class Faults:
    """The faults in waiting, and the share of requests that are refused with 429 by chance (of a fixed seed)."""

    waiting: list[Fault] = field(default_factory=list)
    refuse_share: float = 0.0
    retry_after: float = 0.05
    _random: random.Random = field(default_factory=lambda: random.Random(20260718))

    def add(self, match: str = "", status: int = 0, **more: Any) -> Fault:
        """Have something go wrong; returns the fault, whose `times` counts down."""
        fault = Fault(match, status, **more)
        self.waiting.append(fault)
        return fault

    async def next(self, request: str) -> Fault | None:
        """The fault that hits this request, after its delay."""
        fault = next((each for each in self.waiting if each.times > 0 and re.search(each.match, request)), None)
        if fault is not None:
            fault.times -= 1
            if fault.delay:
                await asyncio.sleep(fault.delay)
            return fault
        if self.refuse_share and self._random.random() < self.refuse_share:
            return Fault(status=429, retry_after=self.retry_after)
        return None
