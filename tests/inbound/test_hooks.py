"""Webhooks: verified, stored byte for byte, answered at once, handled once."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from app.core.asgi import HOOKS_PREFIX
from app.core.errors import Problem
from app.core.quick_posts import Promise
from app.gateway import Gateway
from app.inbound.hooks import parse_address
from app.worker import Drains
from metagov_sdk import Rejected, Retry
from tests.conftest import PROBE_SECRET, Driver
from tests.support import probe

OWN = "the instance's own secret"
PATH = "/api/hooks/town/probe"


def signed(body: bytes, secret: str = OWN, delivery: str | None = None, team: str | None = None) -> dict[str, str]:
    headers = {"X-Signature": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}
    if delivery:
        headers["X-Delivery"] = delivery
    if team:
        headers["X-Team"] = team
    return headers


def news(**fields: Any) -> bytes:
    return json.dumps({"text": "news", **fields}).encode()


class ShortWay(httpx.AsyncBaseTransport):
    """Offers a POST to `take_post` first, as our HTTP protocol does, with the instances at hand."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._usual = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.taken = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if request.method == "POST" and path.startswith(HOOKS_PREFIX) and not request.url.query:
            with contextlib.suppress(Problem):
                await self._app.state.gateway.targets.enabled(parse_address(path))
            headers = [(name.lower(), value) for name, value in request.headers.raw]
            body = await request.aread()
            taken = self._app.take_post(path, headers, body) if len(body) <= HIGH_WATER_LIMIT else None
            if isinstance(taken, Promise):
                await asyncio.wait([taken.until])
                taken = taken.answer()
            if taken is not None:
                self.taken += 1
                return httpx.Response(taken.status, headers=taken.headers, content=taken.body)
        return await self._usual.handle_async_request(request)


@pytest.fixture
async def short_way(app: FastAPI) -> ShortWay:
    return ShortWay(app)


@pytest.fixture(params=["application", "short way"])
async def anonymous(
    request: pytest.FixtureRequest, app: FastAPI, short_way: ShortWay
) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a key, on both ways that a webhook can come in."""
    transport = short_way if request.param == "short way" else httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as client:
        yield client


@pytest.fixture
async def town(driver: Driver) -> Driver:
    assert (
        await driver.put(plugins=[{"name": "probe", "config": {"label": "a", "webhook_secret": OWN}}])
    ).status_code == 201
    return driver


async def events(driver: Driver) -> list[Any]:
    return [event["data"] for event in (await driver.get("events", type="poked")).json()["events"]]


async def receipts(driver: Driver, **query: Any) -> list[Any]:
    listed: list[Any] = (await driver.get("receipts", **query)).json()["receipts"]
    return listed


async def test_a_signed_webhook_becomes_an_event(town: Driver, anonymous: httpx.AsyncClient, drains: Drains) -> None:
    answer = await anonymous.post(PATH, content=news(), headers=signed(news()))
    assert answer.status_code == 202
    assert await events(town) == [], "handlers run later, in the worker"
    await drains.until_idle()
    assert await events(town) == [{"text": "news"}]
    assert (await town.act("probe.read")).json() == {"count": 1}
    assert [row["status"] for row in await receipts(town)] == ["done"]


async def test_what_takes_the_short_way(town: Driver, short_way: ShortWay, gateway: Gateway) -> None:
    async with httpx.AsyncClient(transport=short_way, base_url="http://gateway.test") as client:
        for delivery, status in (("d1", 202), ("d1", 200), (None, 202)):
            answer = await client.post(PATH, content=news(), headers=signed(news(), delivery=delivery))
            assert answer.status_code == status
            assert answer.headers["x-request-id"].startswith("req_")
        named = await client.post(PATH, content=news(), headers={**signed(news()), "x-request-id": "mine"})
        assert named.headers["x-request-id"] == "mine"
        assert short_way.taken == 4
        forged = await client.post(PATH, content=news(), headers=signed(news(), secret="forged"))
        assert (forged.status_code, short_way.taken) == (401, 4)
        assert (await client.post("/api/hooks/nowhere/probe", content=news())).status_code == 404
        changed = {"name": "probe", "config": {"label": "b", "webhook_secret": OWN}}
        assert (await town.put(plugins=[changed])).status_code == 200
        assert (await client.post(PATH, content=news(), headers=signed(news()))).status_code == 202
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM receipts") == 4


async def test_a_repeated_delivery_makes_no_second_event(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    first = await anonymous.post(PATH, content=news(), headers=signed(news(), delivery="d1"))
    second = await anonymous.post(PATH, content=news(), headers=signed(news(), delivery="d1"))
    await drains.until_idle()
    third = await anonymous.post(PATH, content=news(), headers=signed(news(), delivery="d1"))
    await drains.until_idle()
    assert [first.status_code, second.status_code, third.status_code] == [202, 200, 200]
    assert len(await events(town)) == 1


async def test_a_hundred_at_once_are_one(town: Driver, anonymous: httpx.AsyncClient, drains: Drains) -> None:
    headers = signed(news(), delivery="same")
    answers = await asyncio.gather(*(anonymous.post(PATH, content=news(), headers=headers) for _ in range(100)))
    assert sorted({answer.status_code for answer in answers}) == [200, 202]
    assert sum(answer.status_code == 202 for answer in answers) == 1
    await drains.until_idle()
    assert len(await events(town)) == 1


@pytest.mark.parametrize("position", [0, 5, -1])
async def test_one_flipped_byte_is_refused_and_nothing_stored(
    town: Driver, anonymous: httpx.AsyncClient, position: int
) -> None:
    body = bytearray(news())
    body[position] ^= 1
    answer = await anonymous.post(PATH, content=bytes(body), headers=signed(news()))
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
    assert await receipts(town) == []


async def test_no_secret_set_is_refused(driver: Driver, anonymous: httpx.AsyncClient, gateway: Gateway) -> None:
    await driver.put(plugins=[{"name": "github", "config": {}}])
    body = b"{}"
    empty = {"X-Hub-Signature-256": "sha256=" + hmac.new(b"", body, hashlib.sha256).hexdigest(), "X-GitHub-Event": "x"}
    assert (await anonymous.post("/api/hooks/town/github", content=body, headers=empty)).status_code == 401
    assert (await anonymous.post("/api/hooks/town/github", content=body)).status_code == 401


@pytest.mark.parametrize(
    "body",
    [b"a\0b\xff\xfe", b'{"a":1,"a":2}', b"\x1f\x8b not gzip", b"", b'{"z":1, "a" :2}\r\n', bytes(range(256)) * 5000],
)
async def test_the_body_is_stored_byte_for_byte(town: Driver, anonymous: httpx.AsyncClient, body: bytes) -> None:
    answer = await anonymous.post(PATH, content=body, headers={**signed(body), "X-Order": "1", "Cookie": "c=1"})
    assert answer.status_code == 202
    (listed,) = await receipts(town)
    receipt = (await town.get(f"receipts/{listed['id']}")).json()
    # A body with a secret declared in it is shown masked; this one's bytes are looked at where they are kept.
    assert receipt["attempts"] == 0
    names = [name for name, _ in receipt["headers"]]
    assert "x-order" in names
    assert "cookie" not in names


async def test_stored_bytes_equal_sent_bytes(town: Driver, anonymous: httpx.AsyncClient, gateway: Gateway) -> None:
    body = b'a\0b\xff {"a":1,"a":2}\r\n' * 7
    await anonymous.post(PATH, content=body, headers=signed(body))
    assert await gateway.db.pool.fetchval("SELECT body FROM receipts") == body


async def test_secrets_in_stored_bodies_are_masked(town: Driver, anonymous: httpx.AsyncClient) -> None:
    body = news(token="interaction token")
    await anonymous.post(PATH, content=body, headers=signed(body))
    (receipt,) = await receipts(town)
    shown = json.loads(base64.b64decode(receipt["body_base64"]))
    assert shown == {"text": "news", "token": "********"}


async def test_too_large_is_413_announced_or_not(town: Driver, anonymous: httpx.AsyncClient) -> None:
    huge = b"x" * (25 * 1024 * 1024 + 1)
    assert (await anonymous.post(PATH, content=huge, headers=signed(huge))).status_code == 413

    async def chunks() -> Any:
        for start in range(0, len(huge), 1 << 20):
            yield huge[start : start + (1 << 20)]

    assert (await anonymous.post(PATH, content=chunks(), headers=signed(huge))).status_code == 413
    assert await receipts(town) == []


async def test_replies_that_are_due_now(town: Driver, anonymous: httpx.AsyncClient) -> None:
    answer = await anonymous.post(PATH, content=b"ping", headers=signed(b"ping"))
    assert (answer.status_code, answer.content) == (200, b"pong")
    assert await receipts(town) == []
    assert (await anonymous.post(PATH, content=b"ping", headers=signed(b"pong"))).status_code == 401


@pytest.mark.parametrize(
    "path", ["/api/hooks/elsewhere/probe", "/api/hooks/town/nothing", "/api/hooks/town/probe/no", "/api/hooks/town/"]
)
async def test_unknown_hooks_are_404(town: Driver, anonymous: httpx.AsyncClient, path: str) -> None:
    assert (await anonymous.post(path, content=news(), headers=signed(news()))).status_code == 404


async def test_get_is_405(town: Driver, anonymous: httpx.AsyncClient) -> None:
    answer = await anonymous.get(PATH)
    assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")


async def test_a_disabled_plugin_takes_no_webhooks(town: Driver, anonymous: httpx.AsyncClient) -> None:
    assert (await anonymous.post(PATH, content=news(), headers=signed(news()))).status_code == 202
    await town.put(plugins=[])
    assert (await anonymous.post(PATH, content=news(), headers=signed(news()))).status_code == 404


async def test_a_rotated_secret_counts_at_once(town: Driver, anonymous: httpx.AsyncClient) -> None:
    assert (await anonymous.post(PATH, content=news(), headers=signed(news()))).status_code == 202
    changed = await town.put(plugins=[{"name": "probe", "config": {"label": "a", "webhook_secret": "fresh"}}])
    assert changed.status_code == 200, changed.text
    await asyncio.sleep(0.3)
    assert (await anonymous.post(PATH, content=news(), headers=signed(news(), "fresh"))).status_code == 202
    assert (await anonymous.post(PATH, content=news(), headers=signed(news()))).status_code == 401


async def test_the_old_secret_is_dead_though_it_is_cached(town: Driver, anonymous: httpx.AsyncClient) -> None:
    assert (await anonymous.post(PATH, content=news(), headers=signed(news()))).status_code == 202
    changed = await town.put(plugins=[{"name": "probe", "config": {"label": "a", "webhook_secret": "fresh"}}])
    assert changed.status_code == 200, changed.text
    assert (await anonymous.post(PATH, content=news(), headers=signed(news()))).status_code == 401


async def test_a_failing_handler_is_retried_with_its_reason_shown(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains, gateway: Gateway
) -> None:
    probe.BEHAVIOUR["handler"] = Retry("the platform is away")
    await anonymous.post(PATH, content=news(), headers=signed(news()))
    await drains.until_idle()
    (receipt,) = await receipts(town)
    assert (receipt["status"], receipt["attempts"], receipt["error"]) == ("retrying", 1, "the platform is away")
    probe.BEHAVIOUR.clear()
    await gateway.db.pool.execute("UPDATE receipts SET next_at = now()")
    await drains.until_idle()
    assert [row["status"] for row in await receipts(town, status="done")] == ["done"]
    assert await events(town) == [{"text": "news"}]


async def test_a_handler_that_rejects_is_dead_and_visible(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    probe.BEHAVIOUR["handler"] = Rejected("it makes no sense")
    await anonymous.post(PATH, content=news(), headers=signed(news()))
    await drains.until_idle()
    assert [(row["status"], row["error"]) for row in await receipts(town, status="dead")] == [
        ("dead", "it makes no sense")
    ]


async def test_what_a_crashing_handler_emitted_is_not_committed(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    body = b"not json"
    await anonymous.post(PATH, content=body, headers=signed(body))
    await drains.until_idle()
    probe.BEHAVIOUR["handler"] = ZeroDivisionError("boom")
    await anonymous.post(PATH, content=news(), headers=signed(news()))
    await drains.until_idle()
    statuses = sorted(row["status"] for row in await receipts(town))
    assert statuses == ["dead", "retrying"]
    assert await events(town) == []
    assert (await town.act("probe.read")).json() == {"count": 0}


async def test_events_with_a_key_are_unique_per_instance(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    for delivery in ("d1", "d2"):
        body = news(key="one thing")
        await anonymous.post(PATH, content=body, headers=signed(body, delivery=delivery))
    await drains.until_idle()
    assert len(await receipts(town, status="done")) == 2
    assert len(await events(town)) == 1


async def test_an_unsigned_hook_can_wake_and_nothing_else(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    assert (await anonymous.post(f"{PATH}/hint", content=b"forge")).status_code == 202
    await drains.until_idle()
    assert await events(town) == []
    assert await receipts(town) == []


async def test_two_instances_are_told_apart_by_the_payload(driver: Driver, anonymous: httpx.AsyncClient) -> None:
    await driver.put(
        plugins=[
            {"name": "probe", "config": {"label": "a", "webhook_secret": "sa", "team": "T1"}},
            {"name": "probe", "config": {"label": "b", "webhook_secret": "sb", "team": "T2"}},
        ]
    )
    unnamed = await anonymous.post(PATH, content=news(), headers=signed(news(), "sa"))
    assert (unnamed.status_code, unnamed.json()["type"]) == (409, "urn:metagov:ambiguous-instance")
    assert (await anonymous.post(PATH, content=news(), headers=signed(news(), "sb", team="T2"))).status_code == 202
    crossed = await anonymous.post(PATH, content=news(), headers=signed(news(), "sb", team="T1"))
    assert crossed.status_code == 401
    (receipt,) = await receipts(driver)
    plugins = (await driver.get("community/town")).json()["plugins"]
    named = {plugin["id"]: plugin["community_platform_id"] for plugin in plugins}
    assert named[receipt["instance"]] == "T2"


class TestShared:
    """The one URL of an app: routed by what the payload names, and bound before it is believed."""

    async def bind(self, gateway: Gateway, driver: Driver, slug: str, team: str) -> None:
        await driver.put(slug, plugins=[])
        await gateway.db.pool.execute(
            "INSERT INTO platform_bindings (community_id, plugin, community_platform_id) "
            "SELECT id, 'probe', $2 FROM communities WHERE slug = $1",
            slug,
            team,
        )
        answer = await driver.put(slug, plugins=[{"name": "probe", "config": {"label": slug, "team": team}}])
        assert answer.status_code == 200, answer.text

    async def test_a_webhook_reaches_the_bound_community(
        self, gateway: Gateway, driver: Driver, other_driver: Driver, anonymous: httpx.AsyncClient, drains: Drains
    ) -> None:
        await self.bind(gateway, driver, "town", "T1")
        await self.bind(gateway, other_driver, "village", "T2")
        headers = signed(news(), PROBE_SECRET, team="T1")
        assert (await anonymous.post("/api/hooks/probe", content=news(), headers=headers)).status_code == 202
        await drains.until_idle()
        assert len(await events(driver)) == 1
        assert await events(other_driver) == []

    async def test_naming_a_team_without_being_bound_is_refused(
        self, gateway: Gateway, driver: Driver, other_driver: Driver
    ) -> None:
        await self.bind(gateway, driver, "town", "T1")
        answer = await other_driver.put("village", plugins=[{"name": "probe", "config": {"label": "x", "team": "T1"}}])
        assert answer.status_code == 422
        assert "instance bind" in answer.json()["detail"]

    async def test_ones_own_secret_does_not_open_anothers_webhooks(
        self, gateway: Gateway, driver: Driver, other_driver: Driver, anonymous: httpx.AsyncClient, drains: Drains
    ) -> None:
        await self.bind(gateway, driver, "town", "T1")
        mine = {"name": "probe", "config": {"label": "x", "team": "T1", "webhook_secret": "mine"}}
        assert (await other_driver.put("village", plugins=[mine])).status_code == 201
        headers = signed(news(), PROBE_SECRET, team="T1")
        await anonymous.post("/api/hooks/probe", content=news(), headers=headers)
        await drains.until_idle()
        assert len(await events(driver)) == 1
        assert await events(other_driver) == []

    async def test_the_shared_secret_does_not_open_a_community_that_named_no_team(
        self, driver: Driver, anonymous: httpx.AsyncClient
    ) -> None:
        await driver.put(plugins=[{"name": "probe", "config": {"label": "a"}}])
        headers = signed(news(), PROBE_SECRET, team="T1")
        assert (await anonymous.post(PATH, content=news(), headers=headers)).status_code == 401

    async def test_a_team_nobody_has_is_acknowledged_if_signed(
        self, gateway: Gateway, anonymous: httpx.AsyncClient
    ) -> None:
        headers = signed(news(), PROBE_SECRET, team="T9")
        assert (await anonymous.post("/api/hooks/probe", content=news(), headers=headers)).status_code == 200
        assert (await anonymous.post("/api/hooks/probe", content=news(), headers={"X-Team": "T9"})).status_code == 401

    async def test_a_plugin_without_a_shared_hook(self, gateway: Gateway, anonymous: httpx.AsyncClient) -> None:
        assert (await anonymous.post("/api/hooks/randomness", content=b"")).status_code == 404
