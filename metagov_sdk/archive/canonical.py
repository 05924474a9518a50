"""The one way to write a value as JSON: sorted, compact, UTF-8, without floats, RFC 8785 where that has a word.

Members are sorted by the UTF-16 code units of their names, strings escape no more than they must. Integers past 2^53
are strings, as JavaScript would round them; inside of columns that hold any JSON, where no schema tells them from
text, they and fractions are `{"$number": "1.5"}`. Times are UTC with six digits of a second, so that they sort as text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson

from metagov_sdk.archive.columns import Kind
from metagov_sdk.archive.errors import WrongValue

LARGEST = 2**53 - 1
"""The largest integer that is written as a number; the smallest is its negative."""
DEEPEST = 100
_NUMBER, _OBJECT = "$number", "$object"
_TAGS = ({_NUMBER}, {_OBJECT})

Key = tuple[str | int, ...]


def utf16(text: str) -> bytes:
    """A sort key: the order of UTF-16 code units, which is JavaScript's and RFC 8785's, and not that of code points."""
    return text.encode("utf-16-be", "surrogatepass")


def canonical(value: Any) -> bytes:
    """Any JSON value, canonically. Raises WrongValue for floats, integers past 2^53 and what JSON has no word for."""
    return _dump(_sorted(value, 0))


def moment(value: datetime | str) -> str:
    """A time as it is written: `2026-01-31T09:00:00.000000Z`. A text is taken as it is. Raises WrongValue if naive."""
    if type(value) is str:
        return value
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise WrongValue(f"not a time with a time zone: {type(value).__name__}")
    if value.tzinfo is not UTC:
        value = value.astimezone(UTC)
    return value.isoformat(timespec="microseconds")[:-6] + "Z"


def encoder(kinds: Mapping[str, Kind]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Makes a function from a row to what is written of it: known columns in their order, nulls left out.

    It raises WrongValue for a value that is not of its column's kind.
    """
    columns = [(name, _EXACT[kinds[name]], _CONVERT[kinds[name]]) for name in sorted(kinds, key=utf16)]

    def encode(row: Mapping[str, Any]) -> dict[str, Any]:
        written = {}
        get = row.get
        try:
            for name, exact, convert in columns:
                value = get(name)
                if value is not None:
                    written[name] = value if type(value) is exact else convert(value)
        except WrongValue as error:
            raise WrongValue(f"{name}: {error}") from None
        return written

    return encode


def dump_all(written: Sequence[Mapping[str, Any]]) -> bytes:
    """A JSON array of them, names sorted by code points. Raises WrongValue."""
    try:
        return orjson.dumps(written, option=orjson.OPT_STRICT_INTEGER | orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise WrongValue(f"cannot be written as JSON: {error}") from None


def dump(written: Mapping[str, Any]) -> bytes:
    """The bytes of what an encoder made. Raises WrongValue for text that is not Unicode."""
    return _dump(written)


def dump_any(value: Any) -> bytes:
    """The bytes of a value of a column that holds any JSON. Raises WrongValue."""
    return _dump(_tagged(value))


def decode(value: Any, kind: Kind) -> Any:
    """What was encoded, of a column of this kind. Times stay text. Raises WrongValue."""
    if kind == "integer" and type(value) is str:
        return _integer(value)
    return restore(value) if kind == "json" else value


def restore(value: Any) -> Any:
    """A value of a column that holds any JSON, as it was before it was written. Raises WrongValue."""
    if isinstance(value, list):
        return [restore(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        if isinstance(number := value.get(_NUMBER), str):
            return _number(number)
        if isinstance(inner := value.get(_OBJECT), dict):
            value = inner
    return {key: restore(item) for key, item in value.items()}


def _dump(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_STRICT_INTEGER | orjson.OPT_PASSTHROUGH_DATETIME)
    except TypeError as error:
        raise WrongValue(f"cannot be written as JSON: {error}") from None


def _sorted(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if depth >= DEEPEST:
        raise WrongValue(f"nested deeper than {DEEPEST}")
    if isinstance(value, list | tuple):
        return [_sorted(item, depth + 1) for item in value]
    if isinstance(value, Mapping):
        return {key: _sorted(value[key], depth + 1) for key in _keys(value)}
    raise WrongValue(f"a {type(value).__name__} has no canonical form")


def _keys(value: Mapping[Any, Any]) -> list[str]:
    try:
        # Where all names are ASCII the two orders are the same, and the plain one costs a tenth.
        return sorted(value) if "".join(value).isascii() else sorted(value, key=utf16)
    except (TypeError, AttributeError):
        raise WrongValue("an object has a name that is not a string") from None


def _tagged(value: Any, depth: int = 0) -> Any:
    """Any JSON with its numbers made safe."""
    # Types are compared from the most frequent on: this is where most of the time of a snapshot goes.
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return value
    if kind is int:
        return value if -LARGEST <= value <= LARGEST else {_NUMBER: str(value)}
    if kind is dict or kind is list:
        if not value:
            return value
        if depth >= DEEPEST:
            raise WrongValue(f"nested deeper than {DEEPEST}")
        if kind is list:
            return [_tagged(item, depth + 1) for item in value]
        tagged = {key: _tagged(value[key], depth + 1) for key in _keys(value)}
        return {_OBJECT: tagged} if len(tagged) == 1 and tagged.keys() in _TAGS else tagged
    if isinstance(value, float | Decimal):
        if not math.isfinite(value):
            raise WrongValue("a number is infinite or none")
        return {_NUMBER: repr(value) if isinstance(value, float) else str(value)}
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, tuple):
        return _tagged(list(value), depth)
    if isinstance(value, Mapping):
        return _tagged(dict(value), depth)
    raise WrongValue(f"a {kind.__name__} is not JSON")


def is_tagged(value: Any) -> bool:
    """Whether this is what `encoder` can have made of a column that holds any JSON: no floats, names in order."""
    kind = type(value)
    if kind is str or value is None or kind is bool or kind is int:
        return True
    if kind is list:
        return all(map(is_tagged, value))
    if kind is not dict:
        return False
    names = list(value)
    if len(names) > 1 and names != _keys(value):
        return False
    if value.keys() in _TAGS:
        return False  # Only reading it back tells whether it had to be written so.
    return all(map(is_tagged, value.values()))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    raise WrongValue(f"not a text: {type(value).__name__}")


def _safe_integer(value: Any) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int):
        raise WrongValue(f"not an integer: {type(value).__name__}")
    return value if -LARGEST <= value <= LARGEST else str(value)


def _boolean(value: Any) -> bool:
    raise WrongValue(f"not a boolean: {type(value).__name__}")


def is_large(value: Any) -> bool:
    """Whether this is how an integer past 2^53 is written."""
    try:
        return type(value) is str and _integer(value) is not None
    except WrongValue:
        return False


def _integer(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise WrongValue("not an integer") from None
    if str(value) != text or -LARGEST <= value <= LARGEST:
        raise WrongValue("an integer is written as text that need not be")
    return value


def _number(text: str) -> int | float | Decimal:
    try:
        if text.lstrip("-").isdecimal():
            return int(text)
        value = float(text)
        exact = Decimal(text)
    except (ValueError, ArithmeticError):
        raise WrongValue("not a number") from None
    if not exact.is_finite():
        raise WrongValue("a number is infinite or none")
    return value if repr(value) == text else exact


_EXACT: dict[Kind, type | None] = {"text": str, "boolean": bool, "integer": None, "moment": str, "json": str}
"""The type whose values are written as they are."""
_CONVERT: dict[Kind, Callable[[Any], Any]] = {
    "text": _text,
    "boolean": _boolean,
    "integer": _safe_integer,
    "moment": moment,
    "json": _tagged,
}
