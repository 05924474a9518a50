"""A captured webhook sent again later: refused from 301 seconds on, at the HTTP route, with the clock at the edges."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from metagov_sdk.testing import sign_slack_v0, sign_standard_webhooks
from tests.inbound.conftest import SECRET, WHSEC, Platform

NOW = 1_800_000_000.0
BODY = b'{"text": "news"}'

SIGN: dict[str, Callable[[float], dict[str, str]]] = {
    "slack": lambda at: sign_slack_v0(SECRET, BODY, at=at),
    "standard": lambda at: sign_standard_webhooks(WHSEC, BODY, id=f"msg_{at:.0f}", at=at),
}


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that signatures are checked at stands still; the caches' clock runs."""
    clock = SimpleNamespace(time=lambda: NOW, monotonic=time.monotonic)
    monkeypatch.setattr("app.inbound.targets.time", clock)


@pytest.mark.parametrize("hook", SIGN)
@pytest.mark.parametrize(
    ("seconds", "status"), [(-301, 401), (-300, 202), (-299, 202), (0, 202), (299, 202), (300, 202), (301, 401)]
)
async def test_the_window_is_300_seconds_both_ways(platform: Platform, hook: str, seconds: int, status: int) -> None:
    await platform.join("town")
    assert await platform.post(hook, BODY, SIGN[hook](NOW + seconds)) == status
    stored = await platform.gateway.db.pool.fetchval("SELECT count(*) FROM receipts")
    assert stored == (1 if status == 202 else 0)


@pytest.mark.parametrize("hook", SIGN)
async def test_a_fresh_timestamp_needs_a_fresh_signature(platform: Platform, hook: str) -> None:
    await platform.join("town")
    old, fresh = SIGN[hook](NOW - 301), SIGN[hook](NOW)
    stamp = next(name for name in old if "timestamp" in name.lower())
    assert await platform.post(hook, BODY, old) == 401
    assert await platform.post(hook, BODY, {**old, stamp: fresh[stamp]}) == 401
    assert await platform.post(hook, BODY, fresh) == 202


async def test_within_the_window_a_repeat_is_known_by_its_id(platform: Platform) -> None:
    await platform.join("town")
    captured = SIGN["standard"](NOW - 299)
    assert [await platform.post("standard", BODY, captured) for _ in range(3)] == [202, 200, 200]
    # The id is signed: under another one the webhook is refused.
    assert await platform.post("standard", BODY, {**captured, "webhook-id": "msg_other"}) == 401
