"""Secrets at rest, API keys, signatures."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.fernet import Fernet
from standardwebhooks import Webhook

from app.core.crypto import (
    MASK,
    UnreadableSecret,
    Vault,
    hash_api_key,
    new_api_key,
    new_signing_secret,
    sign,
)

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))


def test_sealed_values_come_back_and_do_not_show() -> None:
    vault = Vault([OLD])
    for value in ("s3cret", {"a": ["s3cret"]}, 1, None, "\u00e4\U0001f3b2", ""):
        token = vault.seal(value)
        assert "s3cret" not in token
        assert vault.open(token) == value
    assert vault.seal("x") != vault.seal("x"), "equal secrets do not look equal"


def test_rotation() -> None:
    """A new key in front encrypts; what the old one encrypted stays readable until the old one goes."""
    before = Vault([OLD]).seal("s")
    both = Vault([NEW, OLD])
    assert both.open(before) == "s"
    after = both.seal("s")
    assert Vault([NEW]).open(after) == "s"
    for keys, token in (([NEW], before), ([OLD], after), ([OTHER], before)):
        with pytest.raises(UnreadableSecret, match="METAGOV_SECRET_KEYS"):
            Vault(keys).open(token)


@pytest.mark.parametrize("token", ["", "nonsense", "gAAAA", MASK])
def test_what_is_no_token(token: str) -> None:
    with pytest.raises(UnreadableSecret):
        Vault([OLD]).open(token)


def test_a_changed_token_is_refused() -> None:
    token = Vault([OLD]).seal("s")
    with pytest.raises(UnreadableSecret):
        Vault([OLD]).open(token[:-5] + ("A" if token[-5] != "A" else "B") + token[-4:])


def test_no_keys() -> None:
    with pytest.raises(ValueError, match="METAGOV_SECRET_KEYS"):
        Vault([])


def test_api_keys() -> None:
    keys = {new_api_key() for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        assert key.startswith("mgk_")
        assert len(base64.urlsafe_b64decode(key[4:] + "=")) == 32
        assert key.encode() not in hash_api_key(key)
    assert len({hash_api_key(key) for key in keys}) == 100
    assert hash_api_key("\ud800")


def test_signatures_are_those_of_the_reference_library() -> None:
    secret = new_signing_secret()
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    body = json.dumps({"a": "\u00e4"}).encode()
    import time

    now = int(time.time())
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(now),
        "webhook-signature": sign(secret, "evt_1", now, body),
    }
    assert Webhook(secret).verify(body, headers) == {"a": "\u00e4"}
