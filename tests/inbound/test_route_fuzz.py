"""Thousands of webhooks, signed and then meddled with, at the route itself: never an error of ours.

METAGOV_FUZZ_SEED repeats a run; METAGOV_FUZZ_REQUESTS says how many requests each hook gets (500).
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import FastAPI

from metagov_sdk.testing import sign_ed25519, sign_hmac_sha256, sign_slack_v0, sign_standard_webhooks
from tests.conftest import PROBE_SECRET
from tests.inbound.conftest import SECRET, WHSEC, Platform
from tests.sdk.mutations import Pairs, Signed, mutate

REQUESTS = int(os.environ.get("METAGOV_FUZZ_REQUESTS", "500"))
AT_ONCE = 20
REFUSED = {400, 401, 404, 413}

_DISCORD = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_SENDGRID = ec.derive_private_key(7, ec.SECP256R1())


def _probe(secret: str) -> Callable[[bytes, str], dict[str, str]]:
    return lambda body, number: {
        **sign_hmac_sha256(secret, body, header="X-Signature"),
        "X-Delivery": number,
        "X-Team": "T1",
    }


def _sendgrid(body: bytes, number: str) -> dict[str, str]:
    stamp = f"{time.time():.0f}"
    signature = base64.b64encode(_SENDGRID.sign(stamp.encode() + body, ec.ECDSA(SHA256()))).decode()
    name = "X-Twilio-Email-Event-Webhook"
    return {f"{name}-Timestamp": stamp, f"{name}-Signature": signature}


def _github(body: bytes, number: str) -> dict[str, str]:
    return {**sign_hmac_sha256(SECRET, body), "X-GitHub-Delivery": number, "X-GitHub-Event": "issues"}


HOOKS: dict[str, Callable[[bytes, str], dict[str, str]]] = {
    "town/probe": _probe(SECRET),
    "probe": _probe(PROBE_SECRET),
    "town/probe/hint": lambda body, number: {},
    "town/github": _github,
    "town/signers/slack": lambda body, number: sign_slack_v0(SECRET, body, at=time.time()),
    "town/signers/standard": lambda body, number: sign_standard_webhooks(WHSEC, body, id=number, at=time.time()),
    "town/signers/discord": lambda body, number: sign_ed25519(_DISCORD, body, at=time.time()),
    "town/signers/sendgrid": _sendgrid,
    "town/signers/turns": lambda body, number: sign_hmac_sha256(SECRET, body),
}
"""Path after /api/hooks/ → the headers that the platform sends with a body."""


@pytest.fixture
async def town(platform: Platform) -> Platform:
    """Every plugin with hooks, enabled with its keys."""
    keys = {
        "secret": SECRET,
        "whsec": WHSEC,
        "discord_key": _DISCORD.public_key().public_bytes_raw().hex(),
        "sendgrid_key": base64.b64encode(
            _SENDGRID.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        ).decode(),
    }
    plugins: list[dict[str, Any]] = [
        {"name": "signers", "config": keys},
        {"name": "probe", "config": {"label": "a", "webhook_secret": SECRET}},
        {"name": "github", "config": {"webhook_secret": SECRET}},
    ]
    answer = await platform.driver.put("town", plugins=plugins)
    assert answer.status_code == 201, answer.text
    return platform


def test_every_hook_is_tried(town: Platform) -> None:
    installed = ("signers", "probe", "github")
    loaded = {name: town.gateway.host.loaded(name).manifest.webhooks for name in installed}
    paths = {"/".join(filter(None, ("town", name, slug))) for name, hooks in loaded.items() for slug in hooks}
    # These two are taken as `turns` is.
    assert paths - HOOKS.keys() == {"town/signers/free", "town/signers/more-turns"}


@pytest.mark.parametrize("path", HOOKS)
async def test_meddled_webhooks_are_taken_or_refused(town: Platform, signers_app: FastAPI, path: str) -> None:
    seed = int(os.environ.get("METAGOV_FUZZ_SEED") or secrets.randbits(32))
    print(f"METAGOV_FUZZ_SEED={seed} METAGOV_FUZZ_REQUESTS={REQUESTS}")
    rng = Random(f"{seed} {path}")
    statuses: Counter[int] = Counter()
    for _ in range(0, REQUESTS, AT_ONCE):
        requests = [_meddled(rng, path) for _ in range(AT_ONCE)]
        statuses.update(await asyncio.gather(*(_post(signers_app, *request) for request in requests)))
    print(dict(statuses))
    if path == "town/probe/hint":
        assert statuses.keys() <= {202, 429} | REFUSED, "hints are rationed"
        return
    assert statuses.keys() <= {200, 202} | REFUSED, statuses
    stored = await town.gateway.db.pool.fetchval("SELECT count(*) FROM receipts")
    assert stored == statuses[202] > REQUESTS / 10 or path == "probe"
    assert sum(statuses[status] for status in REFUSED) > REQUESTS / 10


def _meddled(rng: Random, path: str) -> tuple[str, Pairs, bytes]:
    """A webhook after one to three changes, or none; its path changed once in a while."""
    valid, other = _signed(rng, path), _signed(rng, rng.choice(list(HOOKS)))
    request = mutate(rng, valid, other)
    headers = request.headers
    if rng.random() < 0.03:
        headers = (*headers, ("Content-Length", rng.choice(("99999999999", "-1", "abc", "9" * 5000, "\u0669"))))
    if rng.random() < 0.03:
        path = rng.choice(
            (path + "/", path + "/x", path.upper(), path.replace("town", "t\u00f6wn"), f"{path}/{'a' * 999}")
        )
    return f"/api/hooks/{path}", headers, request.body


def _signed(rng: Random, path: str) -> Signed:
    body = rng.choice((b'{"text": "%d"}' % rng.getrandbits(64), rng.randbytes(30), b"", b"ping"))
    number = f"{rng.getrandbits(64):x}"
    return Signed("", tuple(HOOKS[path](body, number).items()), body, 0.0)


async def _post(app: FastAPI, path: str, headers: Pairs, body: bytes) -> int:
    """Hand a request to the app as a server does, which no client would send; returns the status."""
    raw = [(_on_the_wire(name).lower(), _on_the_wire(value)) for name, value in headers]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": raw,
        "client": ("127.0.0.1", 1),
        "server": ("gateway.test", 80),
    }
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    status: int = sent[0]["status"]
    return status


def _on_the_wire(text: str) -> bytes:
    """Any bytes but those that every HTTP server refuses in a header."""
    return text.encode("utf-8", "surrogatepass").translate(None, b"\0\r\n").strip(b" \t")
