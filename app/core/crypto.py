"""Secrets at rest and API keys.

What must be read again (platform tokens, signing secrets) is encrypted with rotatable Fernet keys. What need only be
recognised (API keys: 256 random bits) is stored as its SHA-256; with that much randomness a slow hash adds nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from app.core.errors import Conflict

MASK = "********"
API_KEY_PREFIX = "mgk_"
SIGNING_SECRET_PREFIX = "whsec_"  # noqa: S105 -- the public prefix of Standard Webhooks secrets, not a secret


class UnreadableSecret(Conflict):
    """A stored secret was encrypted with a key that METAGOV_SECRET_KEYS no longer holds."""

    slug = "unreadable-secret"


class Vault:
    """Encrypts and decrypts with the operator's keys: the first encrypts, all decrypt."""

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise ValueError("METAGOV_SECRET_KEYS is empty: set at least one Fernet key")
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def seal(self, value: Any) -> str:
        """A JSON value as an encrypted token."""
        return self._fernet.encrypt(json.dumps(value, separators=(",", ":")).encode()).decode()

    def open(self, token: str) -> Any:
        """The JSON value in a token. Raises UnreadableSecret when no key fits."""
        try:
            return json.loads(self._fernet.decrypt(token.encode()))
        except InvalidToken as error:
            raise UnreadableSecret(
                "a stored secret cannot be read: put its old key back into METAGOV_SECRET_KEYS"
            ) from error


def new_api_key() -> str:
    """A fresh API key: `mgk_` and 256 random bits."""
    return API_KEY_PREFIX + secrets.token_urlsafe(32)


def hash_api_key(key: str) -> bytes:
    """What is stored of an API key, and looked up by."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def new_signing_secret() -> str:
    """A fresh Standard Webhooks secret: `whsec_` and base64 of 32 bytes."""
    return SIGNING_SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` value of Standard Webhooks: `v1,` and base64 HMAC-SHA256 of `id.timestamp.body`."""
    key = base64.b64decode(secret.removeprefix(SIGNING_SECRET_PREFIX))
    digest = hmac.new(key, b"%s.%d.%s" % (message_id.encode(), timestamp, body), hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()
