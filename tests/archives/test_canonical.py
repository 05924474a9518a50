"""There is one way to write a row, and it is RFC 8785's where that has a word."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.archives.chunks import RowFormat
from metagov_sdk.archive import WrongValue
from metagov_sdk.archive.canonical import LARGEST, canonical, decode, dump, encoder, moment, restore
from tests.archives.memory import MESSAGES, message

ANY = encoder({"value": "json"})
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(texts | st.sampled_from(["$number", "$object"]), inner, max_size=4)
    ),
    max_leaves=12,
)


def test_the_bytes_of_a_row() -> None:
    row = {
        "id": "175928847299117063",
        "channel_id": "500",
        "author_id": None,
        "content": 'ü "q" \\ / \n\t\x00\x1f\x7f 🌳',
        "created_at": datetime(2026, 1, 31, 10, 0, tzinfo=timezone(timedelta(hours=1))),
        "pinned": False,
        "length": 2**53,
        "mentions": ["2", "1"],
        "deleted_at": None,
        "extra": {"b": None, "a": 1.5, "c": 2**64, "\U0001f333": 1, "\ufb01": -1},
        "first_seen": datetime.now(UTC),
        "synced_at": datetime.now(UTC),
    }
    rows = RowFormat(MESSAGES)
    line = dump(rows.encode(row))
    # The tree (D83C DF33) comes before the ligature (FB01) by UTF-16 units, after it by code points.
    assert line.decode() == (
        '{"channel_id":"500","content":"ü \\"q\\" \\\\ / \\n\\t\\u0000\\u001f\x7f 🌳",'
        '"created_at":"2026-01-31T09:00:00.000000Z","extra":{"a":{"$number":"1.5"},"b":null,'
        '"c":{"$number":"18446744073709551616"},"🌳":1,"ﬁ":-1},"id":"175928847299117063","length":"9007199254740992",'
        '"mentions":["2","1"],"pinned":false}'
    )
    assert hashlib.sha256(line).hexdigest() == "45ef0829d73d41f2347579662465e4e01f511a7d15f6c713741eae88ff6d473b"


def rfc8785(value: Any) -> str:
    """The RFC's algorithm, word for word, for values without floats."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return "{" + ",".join(f"{rfc8785(name)}:{rfc8785(value[name])}" for name in names) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(rfc8785, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-LARGEST, LARGEST) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(plain)
@example({"\U00010000": 1, "\uffff": 2, "a": 3})
def test_canonical_json_is_the_rfcs(value: Any) -> None:
    assert canonical(value).decode() == rfc8785(value)


@given(values)
@example({"$number": "1"})
@example({"$object": {"$number": "x"}})
@example([2**53, -(2**53), 2**53 - 1, 1e16, 1.0, -0.0, 5e-324])
def test_any_json_comes_back_as_it_was(value: Any) -> None:
    written = json.loads(dump(ANY({"value": value})))
    back = restore(written["value"]) if value is not None else None
    assert back == value
    assert json.dumps(back, sort_keys=True) == json.dumps(value, sort_keys=True), "also 1 and 1.0 are not the same"
    assert "." not in json.dumps(numbers(written)), "no fraction is a number"


def numbers(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [value] if isinstance(value, int | float) else []


@given(st.integers())
def test_integers_are_safe_for_javascript(value: int) -> None:
    (written,) = json.loads(dump(encoder({"n": "integer"})({"n": value}))).values()
    assert isinstance(written, str) == (abs(value) > 2**53 - 1)
    assert decode(written, "integer") == value


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)))
def test_times_sort_as_text(at: datetime) -> None:
    later = at + timedelta(microseconds=1)
    assert moment(at) < moment(later)
    assert datetime.fromisoformat(moment(at)) == at


def test_exact_decimals_stay() -> None:
    written = json.loads(dump(ANY({"value": Decimal("1.10")})))
    assert written == {"value": {"$number": "1.10"}}
    assert str(restore(written["value"])) == "1.10"


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", 5),
        ("id", "\ud800"),
        ("pinned", 1),
        ("length", 1.0),
        ("length", True),
        ("length", "5"),
        ("created_at", datetime(2026, 1, 1)),
        ("created_at", 5),
        ("extra", {"a": float("nan")}),
        ("extra", {"a": float("inf")}),
        ("extra", {1: "a"}),
        ("extra", {"a": object()}),
        ("extra", nested(101)),
        ("unknown", 1),
    ],
)
def test_what_an_archive_cannot_hold_is_refused_by_name(column: str, value: Any) -> None:
    with pytest.raises(WrongValue, match=r"discord\.message|JSON") as refused:
        dump(RowFormat(MESSAGES).encode({**message(1), column: value}))
    assert column in str(refused.value) or value == "\ud800"


def test_deep_but_not_too_deep() -> None:
    dump(RowFormat(MESSAGES).encode({**message(1), "extra": {"a": nested(98)}}))
