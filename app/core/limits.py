"""Rate limits on what is open to anybody: a token bucket per key, in this process's memory.

A hint of fairness, not a promise: each API process counts for itself.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from app.core.errors import TooMany


class TokenBuckets:
    """`rate` tokens per second up to `burst` for each key; the least recently used keys beyond `most` are forgotten."""

    def __init__(
        self, *, rate: float, burst: float, most: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._most = most
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def clear(self) -> None:
        """Forget every key: all start with a full bucket."""
        self._buckets.clear()

    def take(self, key: str) -> None:
        """Take one token. Raises TooMany with Retry-After when there is none."""
        if not self.try_take(key):
            wait = max(1, round(1 / self._rate))
            raise TooMany("too many requests; slow down", headers={"retry-after": str(wait)})

    def try_take(self, key: str) -> bool:
        """Take one token if there is one."""
        now = self._clock()
        tokens, since = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._rate)
        allowed = tokens >= 1
        self._buckets[key] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return allowed
