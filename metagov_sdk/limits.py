"""How fast a platform may be asked, as a plugin says it: paces known beforehand, and what answers teach.

    class Slack(Plugin[SlackConfig]):
        @property
        def limit_owner(self): return self.config.team_id

        def limits(self, request):
            return [Limit(f"method:{request.url.path}", rate=20, per=60, burst=5)]

The gateway keeps the buckets for all its processes, in `self.http`: before a request it takes from each of the buckets
that `limits` names, and after an answer it notes what `learn` says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeAlias

LONGEST_WAIT = 86_400.0
"""Seconds. No header makes the gateway wait for longer: what comes from outside is bounded."""
_LONGEST_NUMBER = 40


@dataclass(frozen=True, slots=True)
class Limit:
    """`rate` requests per `per` seconds from a bucket, of which `burst` may come at once.

    In any stretch of `per` seconds at most `burst + rate` get through: where the platform counts in fixed windows, let
    `burst` be small beside `rate`, or `burst + rate` what a window holds. A bucket has one pace: for two paces, as
    1/second and 50/minute, name two buckets.

    cost  what this request takes. 0 takes nothing and waits all the same until the bucket has room for one: for a guard
          that only answers fill (`Charge`).

    Raises ValueError for numbers that are no pace.
    """

    bucket: str
    rate: float
    per: float
    burst: int = 1
    cost: int = 1

    def __post_init__(self) -> None:
        if not (0 < self.rate < math.inf and 0 < self.per < math.inf):
            raise ValueError(f"a limit of {self.rate} per {self.per} seconds: both should be above 0 and finite")
        if self.burst < 1 or self.cost < 0:
            raise ValueError(f"a limit with burst {self.burst} and cost {self.cost}: at least 1 and 0 are needed")


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing of this bucket for so many seconds. Numbers that are none count as 0; a day is the most."""

    bucket: str
    seconds: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", bounded_seconds(self.seconds))


@dataclass(frozen=True, slots=True)
class Charge:
    """Take from a bucket after the answer, whether it has room or not: invalid requests that a platform counts."""

    limit: Limit


@dataclass(frozen=True, slots=True)
class Alias:
    """What `limits` calls `name` is known to be this bucket from now on.

    For platforms that say in the answer which bucket a route belongs to: `limits` goes on naming the route.
    """

    name: str
    bucket: str


Learned: TypeAlias = Wait | Charge | Alias


def bounded_seconds(value: float | str | None) -> float:
    """A number of seconds from outside: 0 for what is no number, is negative or NaN; a day at most."""
    if isinstance(value, str) and not _is_short(value):
        return 0.0
    try:
        seconds = float(value or 0)
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), LONGEST_WAIT) if not math.isnan(seconds) else 0.0


def retry_after(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header (RFC 9110, 10.2.3) asks to wait: 0 to a day. None when it says nothing.

    A date is taken relative to the answer's own Date, so that the two clocks need not agree; without one, to `now`
    (this machine's clock). `headers` are such that find names in any case, as an answer's are.
    """
    value = headers.get("Retry-After", "").strip()
    if not value or not _is_short(value):
        return None
    try:
        seconds = float(value)
    except ValueError:
        until = _date(value)
        if until is None:
            return None
        since = _date(headers.get("Date", "")) or now or datetime.now(UTC)
        return bounded_seconds((until - since).total_seconds())
    return bounded_seconds(seconds) if 0 <= seconds < math.inf else None


def _is_short(value: str) -> bool:
    return len(value) <= _LONGEST_NUMBER and value.isascii()


def _date(value: str) -> datetime | None:
    if not value or not _is_short(value):
        return None
    try:
        date = parsedate_to_datetime(value)
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
