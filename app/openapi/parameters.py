"""Parameters and security schemes that operations share."""

from __future__ import annotations

from typing import Any

from app.accounts.auth import COMMUNITY_HEADER

_KEY = {"type": "string", "minLength": 1, "maxLength": 255}

PARAMETERS: dict[str, Any] = {
    "Community": {
        "name": COMMUNITY_HEADER,
        "in": "header",
        "required": True,
        "description": "The slug of the community to act for.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[A-Za-z0-9_-]+$"},
    },
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "The same key with the same request gets the first answer again, for 24 hours.",
        "schema": {**_KEY, "pattern": "^[ -~]+$"},
    },
    "Prefer": {
        "name": "Prefer",
        "in": "header",
        "required": False,
        "description": "`respond-async` answers before the platform has been asked.",
        "schema": {"type": "string"},
    },
    "WebhookId": {
        "name": "webhook-id",
        "in": "header",
        "required": True,
        "description": "The message's id, equal in every attempt to deliver it (Standard Webhooks).",
        "schema": _KEY,
    },
    "WebhookTimestamp": {
        "name": "webhook-timestamp",
        "in": "header",
        "required": True,
        "description": "When this attempt was made, in unix seconds.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "WebhookSignature": {
        "name": "webhook-signature",
        "in": "header",
        "required": True,
        "description": "`v1,<base64>`: HMAC-SHA256 of `<id>.<timestamp>.<body>`. Several, with spaces between, while a "
        "secret rotates.",
        "schema": {"type": "string"},
    },
}

SECURITY_SCHEMES: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The driver's API key (`mgk_…`)."},
    "basic": {"type": "http", "scheme": "basic", "description": "The API key as the user name or the password."},
}
WITH_KEY: list[dict[str, Any]] = [{"bearer": []}, {"basic": []}]
KEY_OPTIONAL: list[dict[str, Any]] = [{}, *WITH_KEY]


def shared(*names: str) -> list[dict[str, Any]]:
    """References to shared parameters."""
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


SIGNED = shared("WebhookId", "WebhookTimestamp", "WebhookSignature")
