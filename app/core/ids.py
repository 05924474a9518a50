"""Identifiers: opaque, unguessable in their second half, and in order of creation so that indexes grow at one end."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime, timedelta

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
"""Ten bits in two characters: every identifier is spelled out on some hot path."""
_RANDOM_BYTES = 10
_MOMENT_LENGTH = 10
_RANDOM_LENGTH = 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def new_id(prefix: str) -> str:
    """`<prefix>_` and 26 characters of Crockford's base 32: 48 bits of milliseconds since 1970, then 80 random bits."""
    return new_ids(prefix, 1)[0]


def new_ids(prefix: str, count: int) -> list[str]:
    """As many identifiers of one moment, for a batch."""
    head = f"{prefix}_{_spell(time.time_ns() // 1_000_000, 5)}"
    noise = secrets.token_bytes(_RANDOM_BYTES * count)
    return [
        head + _spell(int.from_bytes(noise[start : start + _RANDOM_BYTES], "big"), 8)
        for start in range(0, len(noise), _RANDOM_BYTES)
    ]


def lowest_id(prefix: str, moment: datetime) -> str:
    """The id below which lies every id made before `moment` (to the millisecond), in the byte order of `COLLATE "C"`.

    Raises ValueError for a moment before 1970.
    """
    milliseconds = (moment - _EPOCH) // timedelta(milliseconds=1)
    if milliseconds < 0:
        raise ValueError("ids begin with the year 1970")
    return f"{prefix}_{_spell(milliseconds, _MOMENT_LENGTH // 2)}{_ALPHABET[0] * _RANDOM_LENGTH}"


def moment_of(made: str) -> datetime:
    """When an id was made, to the millisecond. Raises ValueError for what is no id."""
    digits = made.rpartition("_")[2]
    if len(digits) != _MOMENT_LENGTH + _RANDOM_LENGTH:
        raise ValueError("this is not an id")
    milliseconds = 0
    for digit in digits[:_MOMENT_LENGTH]:
        milliseconds = milliseconds * len(_ALPHABET) + _ALPHABET.index(digit)
    return _EPOCH + timedelta(milliseconds=milliseconds)


def _spell(number: int, pairs: int) -> str:
    return "".join([_PAIRS[number >> shift & 1023] for shift in range((pairs - 1) * 10, -1, -10)])
