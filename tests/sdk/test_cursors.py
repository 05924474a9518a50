"""Cursors: whatever is cut off, and whatever is said meanwhile, nothing up to `reach` is missing."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metagov_sdk import Page, Record, Rejected, listing, log
from metagov_sdk.provider.cursors import Cursor
from metagov_sdk.provider.spans import ORIGIN, Span, Spans
from metagov_sdk.provider.walks import Place, Walk


class Item(Record):
    """An item."""

    table = "item"
    key = ("id",)

    id: int


def walk(**more: Any) -> Walk:
    @log(Item, position=lambda row: row.id, **more)
    async def items(self: Any, place: Place) -> Page:
        return Page()

    declared: Walk = items.__metagov__  # type: ignore[attr-defined]
    return declared


FORTH, BACK = walk(), walk(newest_first=True)
PAIRS = st.tuples(st.integers(0, 30), st.integers(0, 30)).map(sorted)


@given(st.lists(PAIRS, max_size=12))
def test_spans_are_apart_and_hold_what_was_added(pairs: list[list[int]]) -> None:
    spans = Spans.of((low, high) for low, high in pairs)
    inside = {position for low, high in pairs for position in range(low, high + 1)}
    assert {position for position in range(31) if spans.holding(position)} == inside
    assert all(one.high < other.low for one, other in zip(spans.spans, spans.spans[1:], strict=False))


def test_neighbours_do_not_merge_unless_they_meet() -> None:
    assert Spans.of([(1, 2), (3, 4)]).spans == (Span(1, 2), Span(3, 4))
    assert Spans.of([(1, 3), (3, 4)]).spans == (Span(1, 4),)
    assert Spans.of([(1, 9)]).reach == ORIGIN
    assert Spans.of([(ORIGIN, 9), (11, 12)]).reach == 9


class Platform:
    """A log that grows and shrinks, read in pages; what a mirror has of it."""

    def __init__(self, kind: Walk, page: int) -> None:
        self.kind, self.page = kind, page
        self.there: list[int] = []
        self.cursor = Cursor()
        self.mirrored: set[int] = set()
        self.at_start: list[int] = []
        self.last = 0

    def ask(self, place: Place) -> Page:
        if self.kind.newest_first:
            found = [each for each in reversed(self.there) if place.before is None or each < place.before]
        else:
            assert place.after is not None
            found = [each for each in self.there if each > place.after]
        return Page([Item.read({"id": each}) for each in found[: self.page]], next=len(found) > self.page or None)

    def step(self) -> bool:
        """One page, read and committed. Whether the walk has come to its end."""
        page = self.ask(self.cursor.place(self.kind, "", None))
        self.cursor = Cursor.from_json(self.cursor.advance(self.kind, page).to_json())
        self.mirrored |= {row.id for row in page.rows if isinstance(row, Item)}
        return self.cursor.open is None

    def check(self) -> None:
        """Up to `reach` nothing is missing of what was there when it was read."""
        missing = {each for each in self.there if each <= self.cursor.spans.reach} - self.mirrored
        assert missing == set(), (missing, self.cursor)


@settings(max_examples=300)
@given(st.sampled_from([FORTH, BACK]), st.integers(1, 4), st.lists(st.integers(0, 9), max_size=80), st.integers())
def test_reach_is_never_past_a_gap(kind: Walk, page: int, moves: list[int], seed: int) -> None:
    """Moves: 0-3 something is said, 4 something is deleted, 5 the run is given up, the rest read a page."""
    platform, chance = Platform(kind, page), random.Random(seed)
    for move in moves:
        if move < 4:
            platform.last += chance.randint(1, 3)
            platform.there.append(platform.last)
        elif move == 4 and platform.there:
            platform.there.remove(chance.choice(platform.there))
        elif move == 5:
            platform.cursor = platform.cursor.begin(kind, sweep=chance.random() < 0.3)
        else:
            if platform.cursor.open is None:
                platform.cursor = platform.cursor.begin(kind, sweep=chance.random() < 0.3)
            platform.step()
        platform.check()
    # A run to its end has everything.
    platform.cursor = platform.cursor.begin(kind, sweep=False)
    for _ in range(len(platform.there) + 2):
        if platform.step():
            break
    assert platform.cursor.open is None
    assert set(platform.there) <= platform.mirrored
    platform.check()


@pytest.mark.parametrize("kind", [FORTH, BACK])
def test_new_items_only_are_asked_for_the_second_time(kind: Walk) -> None:
    platform = Platform(kind, 3)
    platform.there = [1, 2, 3, 4, 5, 6, 7, 8]
    platform.cursor = platform.cursor.begin(kind, sweep=False)
    while not platform.step():
        pass
    platform.there += [9]
    platform.cursor = platform.cursor.begin(kind, sweep=False)
    assert platform.step()


def test_the_cursor_between_pages_is_not_complete_newest_first() -> None:
    platform = Platform(BACK, 2)
    platform.there = [1, 2, 3, 4, 5]
    platform.cursor = platform.cursor.begin(BACK, sweep=False)
    assert not platform.step()
    assert platform.cursor.spans.reach == ORIGIN


@pytest.mark.parametrize("kind", [FORTH, BACK])
def test_pages_that_lead_nowhere_are_an_error(kind: Walk) -> None:
    cursor = Cursor().begin(kind, sweep=False)
    with pytest.raises(Rejected, match="nothing new"):
        cursor.advance(kind, Page([], next=True))


def test_tokens_that_go_in_a_circle_are_an_error() -> None:
    @listing(Item)
    async def items(self: Any, place: Place) -> Page:
        return Page()

    kind: Walk = items.__metagov__  # type: ignore[attr-defined]
    cursor = Cursor().begin(kind, sweep=False).advance(kind, Page(next="a"))
    with pytest.raises(Rejected, match="circle"):
        cursor.advance(kind, Page(next="a"))


def test_overlap_begins_before_the_last_position() -> None:
    kind = walk(overlap=5)
    cursor = Cursor(Spans.of([(ORIGIN, 20)])).begin(kind, sweep=False)
    assert cursor.place(kind, "", None).after == 15
