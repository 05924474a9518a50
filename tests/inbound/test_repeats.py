"""A captured webhook sent again under another delivery id: handled, for equal webhooks can be genuine, but flagged."""

from __future__ import annotations

import json

import httpx
import pytest
from prometheus_client import REGISTRY

from app.worker import Drains
from metagov_sdk.testing import sign_hmac_sha256
from tests.conftest import Driver
from tests.plugins.github_payloads import issues_opened

SECRET = "s3cret"
BODY = json.dumps(issues_opened()).encode()


def flagged() -> float:
    return REGISTRY.get_sample_value("metagov_receipts_equal_bodies_total", {"plugin": "github"}) or 0.0


@pytest.fixture
async def town(driver: Driver) -> Driver:
    for slug in ("town", "village"):
        answer = await driver.put(slug, plugins=[{"name": "github", "config": {"webhook_secret": SECRET}}])
        assert answer.status_code == 201
    return driver


async def post(http: httpx.AsyncClient, delivery: str, body: bytes = BODY, slug: str = "town") -> int:
    headers = {"X-GitHub-Event": "issues", "X-GitHub-Delivery": delivery, **sign_hmac_sha256(SECRET, body)}
    return (await http.post(f"/api/hooks/{slug}/github", content=body, headers=headers)).status_code


async def test_an_equal_body_under_another_id_is_flagged(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    before = flagged()
    assert await post(anonymous, "1") == 202
    await drains.until_idle()
    assert flagged() == before
    assert await post(anonymous, "2") == 202
    await drains.until_idle()
    assert flagged() == before + 1
    assert len((await town.get("events")).json()["events"]) == 2, "flagged, not dropped"


async def test_those_that_are_handled_together_are_flagged_too(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    before = flagged()
    for delivery in ("1", "2", "3"):
        await post(anonymous, delivery)
    await drains.until_idle()
    assert flagged() == before + 2


async def test_what_is_no_repeat_is_not_flagged(town: Driver, anonymous: httpx.AsyncClient, drains: Drains) -> None:
    before = flagged()
    assert [await post(anonymous, "1"), await post(anonymous, "1")] == [202, 200]
    await post(anonymous, "2", BODY + b" ")
    await post(anonymous, "3", slug="village")
    await drains.until_idle()
    assert (await town.post("receipts/replay", {"status": "done"})).json() == {"replayed": 2}
    await drains.until_idle()
    assert flagged() == before
