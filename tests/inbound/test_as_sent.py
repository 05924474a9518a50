"""What platforms send is taken once and kept byte for byte, for every first-party plugin that takes webhooks."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.gateway import Gateway
from app.host.discovery import Plugins
from app.worker import Drains
from tests.conftest import Driver
from tests.plugins.github_payloads import issues_opened

SECRET = "the platform's secret"
AT_ONCE = 100
_EVENT_IDS = count(1)
"""Discourse's ids of deliveries: another for each retry."""


def from_github(body: bytes) -> dict[str, str]:
    return {
        "X-GitHub-Event": "issues",
        "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "X-Hub-Signature-256": "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest(),
    }


def from_slack(body: bytes) -> dict[str, str]:
    now = str(int(time.time()))
    digest = hmac.new(SECRET.encode(), b"v0:" + now.encode() + b":" + body, hashlib.sha256).hexdigest()
    return {"X-Slack-Request-Timestamp": now, "X-Slack-Signature": "v0=" + digest, "X-Slack-Retry-Num": "1"}


def from_probe(body: bytes) -> dict[str, str]:
    return {
        "X-Signature": "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest(),
        "X-Delivery": "one",
    }


DISCORDS_KEY = Ed25519PrivateKey.generate()


def from_discord(body: bytes) -> dict[str, str]:
    now = str(int(time.time()))
    return {"X-Signature-Timestamp": now, "X-Signature-Ed25519": DISCORDS_KEY.sign(now.encode() + body).hex()}


def from_discourse(body: bytes) -> dict[str, str]:
    return {
        "X-Discourse-Instance": "https://forum.example",
        "X-Discourse-Event-Id": str(next(_EVENT_IDS)),
        "X-Discourse-Event-Type": "post",
        "X-Discourse-Event": "post_created",
        "X-Discourse-Event-Signature": "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest(),
    }


SENDERS: dict[str, tuple[dict[str, Any], bytes, Callable[[bytes], dict[str, str]]]] = {
    "discord": (
        {"guild_id": "7", "bot_token": "none", "public_key": DISCORDS_KEY.public_key().public_bytes_raw().hex()},
        json.dumps(
            {
                "id": "1",
                "application_id": "2",
                "type": 3,
                "token": "a-token-of-fifteen-minutes",
                "guild_id": "7",
                "member": {"user": {"id": "3", "username": "ada"}},
                "data": {"custom_id": "a button of somebody else's"},
            }
        ).encode(),
        from_discord,
    ),
    "discourse": (
        {"server_url": "https://forum.example", "api_key": "none", "webhook_secret": SECRET},
        json.dumps(
            {"post": {"id": 9, "user_id": 3, "username": "ada", "updated_at": "2026-01-02T03:04:05.678Z", "raw": "x"}}
        ).encode(),
        from_discourse,
    ),
    "github": ({"webhook_secret": SECRET}, json.dumps(issues_opened()).encode(), from_github),
    "probe": ({"label": "a", "webhook_secret": SECRET}, b'{"text": "news"}', from_probe),
    "slack": (
        {"team_id": "T0TOWN", "bot_token": "xoxb-none", "signing_secret": SECRET},
        b'{"type":"event_callback","team_id":"T0TOWN","event_id":"Ev1","event":{"type":"emoji_changed"}}',
        from_slack,
    ),
}
"""For each plugin a config, a webhook, and how its platform signs it, with an id of its delivery where it has one."""


async def enable(driver: Driver, name: str) -> None:
    put = await driver.put(plugins=[{"name": name, "config": SENDERS[name][0]}])
    assert put.status_code == 201, put.text


def test_every_plugin_that_knows_repetitions_is_tried(plugins: Plugins) -> None:
    knowing = {
        name
        for name, loaded in plugins.loaded.items()
        if any(hook.dedupe is not None for hook in loaded.manifest.webhooks.values())
    }
    assert knowing <= SENDERS.keys(), "add the plugin's webhook to SENDERS"


@pytest.mark.parametrize("name", SENDERS)
async def test_a_hundred_equal_webhooks_at_once_are_one(
    driver: Driver, anonymous: httpx.AsyncClient, drains: Drains, gateway: Gateway, name: str
) -> None:
    await enable(driver, name)
    _, body, sign = SENDERS[name]
    post = anonymous.post
    path = f"/api/hooks/town/{name}"
    answers = await asyncio.gather(*(post(path, content=body, headers=sign(body)) for _ in range(AT_ONCE)))
    # Some platforms are owed a plain 200, whether it is news or not.
    first = {"slack": 200, "discord": 200}.get(name, 202)
    assert sorted(answer.status_code for answer in answers) == [200] * (AT_ONCE - 1) + [first], "all acknowledged"
    await drains.until_idle()
    assert [row["status"] for row in await gateway.db.pool.fetch("SELECT status FROM receipts")] == ["done"]
    heard = await gateway.db.pool.fetchval("SELECT count(*) FROM events WHERE source = $1", name)
    assert heard == (0 if name == "discord" else 1), "of Discord's, only commands are events"


BODIES = [
    pytest.param(b'{"text": "a\0b"}', id="NUL"),
    pytest.param(b'{"text": "\xff\xfe\xc3\x28"}', id="not UTF-8"),
    pytest.param(b'{"text": 1, "text": 2}\r\n', id="a key twice"),
    pytest.param(b'{"z": 1,   "a" :2}', id="spaces and order"),
    pytest.param(gzip.compress(b'{"text": "packed"}'), id="gzip"),
    pytest.param(bytes(range(256)) * 8000, id="two megabytes"),
    pytest.param(b"", id="nothing"),
]


@pytest.mark.parametrize("announced", [True, False], ids=["length announced", "in chunks"])
@pytest.mark.parametrize("body", BODIES)
async def test_bodies_are_kept_byte_for_byte(
    driver: Driver, anonymous: httpx.AsyncClient, gateway: Gateway, body: bytes, announced: bool
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    await enable(driver, "probe")
    headers = {**from_probe(body), "Content-Encoding": "gzip" if body.startswith(b"\x1f\x8b") else "identity"}
    content = body if announced else chunks()
    answer = await anonymous.post("/api/hooks/town/probe", content=content, headers=headers)
    assert answer.status_code == 202
    assert await gateway.db.pool.fetchval("SELECT body FROM receipts") == body


@pytest.mark.parametrize("announced", [True, False], ids=["length announced", "in chunks"])
async def test_what_is_too_long_is_refused_and_never_cut(
    driver: Driver, anonymous: httpx.AsyncClient, gateway: Gateway, announced: bool
) -> None:
    most = 25 * 1024 * 1024

    async def chunks(body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1 << 20):
            yield body[start : start + (1 << 20)]

    await enable(driver, "probe")
    for body, status in ((bytes(most + 1), 413), (bytes(most), 202)):
        content = body if announced else chunks(body)
        answer = await anonymous.post("/api/hooks/town/probe", content=content, headers=from_probe(body))
        assert answer.status_code == status
    assert [tuple(row) for row in await gateway.db.pool.fetch("SELECT length(body) FROM receipts")] == [(most,)]
