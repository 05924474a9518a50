"""Token buckets, by a clock of the test's own."""

from __future__ import annotations

import pytest

from app.core.errors import TooMany
from app.core.limits import TokenBuckets


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_the_rate() -> None:
    clock = Clock()
    buckets = TokenBuckets(rate=2, burst=3, clock=clock)
    assert [buckets.try_take("a") for _ in range(5)] == [True, True, True, False, False]
    clock.now += 0.5
    assert [buckets.try_take("a") for _ in range(2)] == [True, False]
    clock.now += 0.4
    assert not buckets.try_take("a")
    clock.now += 0.1
    assert buckets.try_take("a"), "being refused costs nothing"
    clock.now += 1000
    assert [buckets.try_take("a") for _ in range(4)] == [True, True, True, False], "never more than the burst"


def test_keys_are_apart() -> None:
    buckets = TokenBuckets(rate=1, burst=1, clock=Clock())
    assert [buckets.try_take(key) for key in "aabb"] == [True, False, True, False]
    buckets.clear()
    assert buckets.try_take("a")


def test_the_least_recently_used_are_forgotten() -> None:
    buckets = TokenBuckets(rate=1, burst=1, most=2, clock=Clock())
    buckets.try_take("a")
    buckets.try_take("b")
    assert not buckets.try_take("a")
    buckets.try_take("c")
    assert buckets.try_take("b"), "b was the oldest"
    assert not buckets.try_take("c")


def test_refusals_say_when_to_come_back() -> None:
    buckets = TokenBuckets(rate=0.2, burst=1, clock=Clock())
    buckets.take("a")
    with pytest.raises(TooMany) as caught:
        buckets.take("a")
    assert caught.value.headers == {"retry-after": "5"}
