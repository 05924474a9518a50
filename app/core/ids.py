"""Identifiers: opaque, unguessable in their second half, and in order of creation so that indexes grow at one end."""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_BITS = 80
_LENGTH = 26


def new_id(prefix: str) -> str:
    """`<prefix>_` and 26 characters of Crockford's base 32: 48 bits of milliseconds since 1970, then 80 random bits."""
    number = (time.time_ns() // 1_000_000 << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
    digits = []
    for _ in range(_LENGTH):
        number, digit = divmod(number, 32)
        digits.append(_ALPHABET[digit])
    return f"{prefix}_{''.join(reversed(digits))}"
