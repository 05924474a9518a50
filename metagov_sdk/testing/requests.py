"""Webhook requests for tests, signed as the platforms sign them. Each `sign_…` returns the headers to send."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from metagov_sdk.headers import Headers
from metagov_sdk.testing.binding import NOW
from metagov_sdk.webhook import HookRequest


def hook_request(body: bytes | object, headers: Mapping[str, str] | None = None, *, hook: str = "") -> HookRequest:
    """A webhook request; a body that is not bytes is sent as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HookRequest(raw, Headers((headers or {}).items()), hook)


def sign_hmac_sha256(
    secret: str, body: bytes, *, header: str = "X-Hub-Signature-256", prefix: str = "sha256="
) -> dict[str, str]:
    """For `hmac_sha256`: GitHub's headers, or Discourse's with `header="X-Discourse-Event-Signature"`."""
    return {header: prefix + hmac.digest(secret.encode(), body, "sha256").hex()}


def sign_slack_v0(secret: str, body: bytes, *, at: float = NOW.timestamp()) -> dict[str, str]:
    """For `slack_v0`; `at` is the time of sending in unix seconds."""
    sent_at = f"{at:.0f}"
    digest = hmac.digest(secret.encode(), f"v0:{sent_at}:".encode() + body, "sha256").hex()
    return {"X-Slack-Request-Timestamp": sent_at, "X-Slack-Signature": f"v0={digest}"}


def sign_ed25519(key: Ed25519PrivateKey, body: bytes, *, at: float = NOW.timestamp()) -> dict[str, str]:
    """For `ed25519`, with Discord's header names; `at` is the time of sending in unix seconds."""
    sent_at = f"{at:.0f}"
    return {"X-Signature-Timestamp": sent_at, "X-Signature-Ed25519": key.sign(sent_at.encode() + body).hex()}


def sign_standard_webhooks(
    secret: str, body: bytes, *, id: str = "msg_test", at: float = NOW.timestamp(), header_prefix: str = "webhook-"
) -> dict[str, str]:
    """For `standard_webhooks`; the secret is `whsec_` + base64, `at` the time of sending in unix seconds."""
    sent_at = f"{at:.0f}"
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{id}.{sent_at}.".encode() + body, "sha256")
    return {
        f"{header_prefix}id": id,
        f"{header_prefix}timestamp": sent_at,
        f"{header_prefix}signature": f"v1,{base64.b64encode(digest).decode()}",
    }
