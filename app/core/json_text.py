"""JSON as text that loses nothing."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson


def json_text(value: Any) -> str:
    """Any JSON as text, with integers of any size and decimals to the last digit."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return _exact(value)


def _exact(value: Any) -> str:
    if isinstance(value, dict):
        members = (f"{orjson.dumps(name).decode()}:{json_text(item)}" for name, item in value.items())
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(json_text, value)) + "]"
    if isinstance(value, int | Decimal):
        return str(value)
    raise TypeError(f"a {type(value).__name__} is not JSON")
