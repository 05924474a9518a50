"""Values written as JavaScript's JSON.stringify writes them, members sorted: the bytes that SourceCred would write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from json.encoder import encode_basestring
from typing import cast

from metagov_sdk.archive.canonical import utf16

LARGEST = 2**53
"""Integers up to here are exact in JavaScript; larger times and indexes are refused."""

quoted = encode_basestring
"""A string in JSON, with no more escapes than there must be."""


@lru_cache(4096)
def number(value: float) -> str:
    """A finite number, as JavaScript writes it."""
    if abs(value) <= LARGEST and value == int(value):
        return str(int(value))
    sign, text = ("-", repr(value)[1:]) if value < 0 else ("", repr(value))
    mantissa, _, power = text.partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    # The value is 0.digits times 10^point.
    point = len(whole) + int(power or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if len(digits) <= point <= 21:
        return f"{sign}{digits:0<{point}}"
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    rest = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{rest}e{'+' if point > 0 else '-'}{abs(point - 1)}"


def encode(text: str) -> bytes:
    """UTF-8; surrogates that have no other half are escaped."""
    return text.encode("utf-8", "backslashreplace")


def dump(value: object) -> str:
    """Any JSON value: None, booleans, finite numbers, strings, sequences and mappings of them."""
    if isinstance(value, str):
        return quoted(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, Mapping):
        members = sorted(cast(Mapping[str, object], value).items(), key=lambda member: utf16(member[0]))
        return "{" + ",".join(f"{quoted(name)}:{dump(each)}" for name, each in members) + "}"
    return "[" + ",".join(map(dump, cast(Sequence[object], value))) + "]"
