"""Cursors."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import Invalid
from app.core.paging import cut, decode_cursor, encode_cursor

_TEXT = st.text(st.characters(categories=["L", "N", "P"]), max_size=20)


@given(st.lists(_TEXT, min_size=1, max_size=3), st.sampled_from(["", "communities"]))
def test_a_cursor_comes_back_as_its_position(position: list[str], of: str) -> None:
    cursor = encode_cursor(position, of=of)
    assert decode_cursor(cursor, [str] * len(position), of=of) == position
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_numbers() -> None:
    assert decode_cursor(encode_cursor([1, "2", -3]), (int, str, int)) == [1, "2", -3]


@pytest.mark.parametrize("cursor", [None, ""])
def test_the_first_page(cursor: str | None) -> None:
    assert decode_cursor(cursor, (str,), of="communities") is None


@pytest.mark.parametrize(
    "position", [[], ["a"], ["a", "b", "c"], [1, "b"], ["a", 1], ["a", True], ["a", None], "ab", {}, 7]
)
def test_what_is_no_position(position: Any) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")
    with pytest.raises(Invalid) as caught:
        decode_cursor(cursor, (str, str))
    assert caught.value.errors[0].pointer == "/after"


@pytest.mark.parametrize("part", ["\0", "\ud800", "a\nb", 2**63, -(2**63), True, 1.0])
def test_parts_that_no_column_takes(part: Any) -> None:
    with pytest.raises(Invalid):
        decode_cursor(encode_cursor([part]), (int if isinstance(part, int | float) else str,))


def test_another_lists_cursor() -> None:
    for made, read in (("a", "b"), ("", "b"), ("a", "")):
        with pytest.raises(Invalid):
            decode_cursor(encode_cursor(["x"], of=made), (str,), of=read)


@given(st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", max_size=300))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    try:
        position = decode_cursor(text, (str,))
    except Invalid:
        return
    assert position is None or (len(position) == 1 and position[0].isprintable())


def test_cut() -> None:
    assert cut([1, 2, 3], 3) == ([1, 2, 3], False)
    assert cut([1, 2, 3], 2) == ([1, 2], True)
    assert cut([], 2) == ([], False)
