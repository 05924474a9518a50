"""What a plugin declares secret in a webhook is masked wherever a stored one is shown, in JSON and in forms."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlencode

import pytest

from app.core.crypto import MASK
from app.inbound.receipts import mask_body

POINTERS = ["/token", "/data/token", "/payload/token", "/payload/a/b", "/a~1b/c~0d"]


def fields(body: bytes) -> dict[str, list[str]]:
    return parse_qs(body.decode(), keep_blank_values=True)


def test_without_pointers_the_body_is_as_it_came() -> None:
    assert mask_body(b"\xff any bytes", []) == b"\xff any bytes"


def test_json() -> None:
    body = {"token": "s", "data": {"token": ["s"], "kept": 1}, "a/b": {"c~d": "s"}, "payload": "text"}
    masked = json.loads(mask_body(json.dumps(body).encode(), POINTERS))
    assert masked == {"token": MASK, "data": {"token": MASK, "kept": 1}, "a/b": {"c~d": MASK}, "payload": "text"}


def test_a_forms_fields_and_the_json_in_them() -> None:
    payload = json.dumps({"token": "s", "a": {"b": "s", "c": "ü"}, "kept": [1]})
    body = urlencode([("token", "s"), ("payload", payload), ("kept", "a b&c"), ("token", "t"), ("empty", "")]).encode()
    masked = fields(mask_body(body, POINTERS))
    assert masked["token"] == [MASK, MASK]
    assert json.loads(masked["payload"][0]) == {"token": MASK, "a": {"b": MASK, "c": "ü"}, "kept": [1]}
    assert (masked["kept"], masked["empty"]) == (["a b&c"], [""])


@pytest.mark.parametrize("value", ["not json", "", "{", "[" * 100_000])
def test_a_field_that_should_hold_json_and_does_not_is_masked_whole(value: str) -> None:
    masked = fields(mask_body(urlencode({"payload": value, "kept": "x"}).encode(), POINTERS))
    assert masked == {"payload": [MASK], "kept": ["x"]}


@pytest.mark.parametrize("body", [b"secret", b"\xff\xfe", b"a=1&secret", b"[" * 100_000, b"a=1&" * 2000])
def test_a_body_that_cannot_be_read_is_masked_whole(body: bytes) -> None:
    assert mask_body(body, POINTERS) == MASK.encode()
