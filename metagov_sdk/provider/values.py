"""What a platform says of one field, as a value that a database takes: each reading says what was odd."""

from __future__ import annotations

import json
import math
import re
import typing
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import orjson

Kind: TypeAlias = Literal["text", "integer", "boolean", "time", "json"]
"""What a column holds."""
ReadValue: TypeAlias = Callable[[Any], tuple[Any, str | None]]
"""Makes a value that fits, or None, of what a platform says; the flag tells what was odd about it."""

HUGE = 1_000_000
"""Characters from which on a text is flagged; it is kept all the same."""
_MOST = 2**63 - 1
_DEEPEST = 64
"""Levels of lists and objects in each other: archives, and most who read JSON, take a hundred."""
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_PLAIN = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
"""Nothing but JSON's own values: all else is unstorable."""


def _read_text(value: Any) -> tuple[Any, str | None]:
    if not isinstance(value, str):
        # An id that a platform writes as a number today is still the id.
        return (str(value), "type") if isinstance(value, int) and not isinstance(value, bool) else (None, "type")
    if "\0" in value or (not value.isascii() and _LONE_SURROGATE.search(value)):
        return _LONE_SURROGATE.sub("\ufffd", value.replace("\0", "\ufffd")), "text"
    return value, "huge" if len(value) > HUGE else None


def _read_integer(value: Any) -> tuple[Any, str | None]:
    if isinstance(value, str) and len(value) < 25 and value.isascii() and value.lstrip("-").isdigit():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MOST:
        return value, None
    return None, "type"


def _read_boolean(value: Any) -> tuple[Any, str | None]:
    return (value, None) if isinstance(value, bool) else (None, "type")


def _read_time(value: Any) -> tuple[Any, str | None]:
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
        elif isinstance(value, datetime):
            moment = value
        elif isinstance(value, int | float) and not isinstance(value, bool):
            moment = datetime.fromtimestamp(value, UTC)
        else:
            return None, "type"
        return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)), None
    except (ValueError, OverflowError, OSError):
        return None, "type"


def _read_json(value: Any) -> tuple[Any, str | None]:
    clean, odd, _ = storable(value)
    return clean, "text" if odd else None


def _read_texts(value: Any) -> tuple[Any, str | None]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        return None, "type"
    return _read_json(value)


_READERS: dict[str, Callable[[Any], tuple[Any, str | None]]] = {
    "text": _read_text,
    "integer": _read_integer,
    "boolean": _read_boolean,
    "time": _read_time,
    "json": _read_json,
}


def reader(kind: Kind, annotation: Any) -> ReadValue:
    """What reads the values of a field."""
    kinds = [typing.get_origin(part) or part for part in typing.get_args(annotation)]
    return _read_texts if list in kinds else _READERS[kind]


def storable(value: Any) -> tuple[Any, bool, str]:
    """The value, if a database's JSON can hold it, whether it could not, and the JSON document.

    What it cannot (NUL, half a surrogate pair, NaN), or archives cannot (dozens of levels), is kept as the text of its
    JSON under "unstorable".
    """
    if value == {}:
        return value, False, "{}"
    try:
        document = orjson.dumps(value, option=_PLAIN)
    except TypeError:
        return _storable_slowly(value)
    # NaN is written as null.
    if b"\\u0000" in document or (b"null" in document and not _is_finite(value)):
        return _storable_slowly(value)
    if document.count(b"[") + document.count(b"{") > _DEEPEST and not _is_shallow(value, _DEEPEST):
        return _unstorable(value)
    return value, False, document.decode()


def _is_shallow(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return True
    return levels > 0 and all(_is_shallow(each, levels - 1) for each in value)


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_finite(each) for each in value.values())
    if isinstance(value, list | tuple):
        return all(_is_finite(each) for each in value)
    return not isinstance(value, float) or math.isfinite(value)


def _storable_slowly(value: Any) -> tuple[Any, bool, str]:
    """For what is deeper, or has greater numbers, than the fast way takes."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
        if "\\u0000" not in text and _is_shallow(value, _DEEPEST):
            return value, False, text
    except (ValueError, TypeError, RecursionError):
        pass
    return _unstorable(value)


def _unstorable(value: Any) -> tuple[Any, bool, str]:
    try:
        clean = {"unstorable": json.dumps(value, default=str)}
    except (ValueError, RecursionError):
        clean = {"unstorable": "nested too deep to be written down"}
    return clean, True, json.dumps(clean)
