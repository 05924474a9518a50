"""Where a walk of one partition is, as JSON between its pages. Pure: a page goes in, the next cursor comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import JsonValue

from metagov_sdk.errors import Rejected
from metagov_sdk.provider.records import Record
from metagov_sdk.provider.spans import ORIGIN, Span, Spans
from metagov_sdk.provider.walks import Page, Place, Walk


@dataclass(frozen=True, slots=True)
class Open:
    """An interval being read: from `low` to `high`, both None before the first page of one read newest first."""

    low: int | None
    high: int | None
    token: JsonValue = None
    sweep: bool = False


@dataclass(frozen=True, slots=True)
class Cursor:
    """Of any walk: what is open, and of a log also which positions have been read without a gap."""

    spans: Spans = field(default_factory=Spans)
    open: Open | None = None

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        opened = self.open and [self.open.low, self.open.high, self.open.token, self.open.sweep]
        return {"spans": [[span.low, span.high] for span in self.spans], "open": opened}

    @classmethod
    def from_json(cls, stored: dict[str, Any] | None) -> Cursor:
        """What `to_json` gave."""
        if not stored:
            return cls()
        opened = stored["open"]
        return cls(Spans.of((low, high) for low, high in stored["spans"]), opened and Open(*opened))

    @property
    def opened(self) -> Open:
        """What is being read. Raises RuntimeError before `begin`."""
        if self.open is None:
            raise RuntimeError("nothing is being read: begin comes first")
        return self.open

    def begin(self, walk: Walk, *, sweep: bool) -> Cursor:
        """At the start of reading a partition. What an earlier run has left open stays an island of what is known.

        Its token is not used again: it may have expired, and new things lie beyond it.
        """
        spans = self.spans
        if walk.kind != "log":
            return Cursor(spans, Open(None, None, None, sweep))
        if walk.newest_first:
            left = self.open
            if left is not None and left.low is not None and left.high is not None:
                spans = spans.add(Span(left.low, left.high))
            return Cursor(spans, Open(None, None, None, sweep))
        low = ORIGIN if sweep else max(ORIGIN, spans.reach - walk.overlap)
        return Cursor(spans, Open(low, low, None, sweep))

    def place(self, walk: Walk, partition: str, data: JsonValue) -> Place:
        """What the next page is asked for with."""
        opened = self.opened
        if walk.kind != "log":
            return Place(partition, data, opened.token, sweep=opened.sweep)
        if walk.newest_first:
            return Place(partition, data, opened.token, before=opened.low, sweep=opened.sweep)
        return Place(partition, data, opened.token, after=opened.high, sweep=opened.sweep)

    def advance(self, walk: Walk, page: Page) -> Cursor:
        """After a page. `open` is None when the walk has come to its end.

        Raises Rejected when the platform's pages lead nowhere.
        """
        opened = self.opened
        if walk.kind != "log":
            if page.next is None:
                return replace(self, open=None)
            if page.next == opened.token:
                raise Rejected("the platform's pages go in a circle")
            return replace(self, open=replace(opened, token=page.next))
        positions = _positions(walk, page.rows)
        if walk.newest_first:
            return self._back(opened, page, positions)
        return self._forth(opened, page, positions)

    def _forth(self, opened: Open, page: Page, positions: Sequence[int]) -> Cursor:
        low = ORIGIN if opened.low is None else opened.low
        high = max([low if opened.high is None else opened.high, *positions])
        spans = self.spans.add(Span(low, high))
        if page.next is None:
            return Cursor(spans)
        token = None if page.next is True else page.next
        if high == opened.high and (token is None or token == opened.token):
            raise Rejected("the platform says there is more, and gives nothing new")
        return Cursor(spans, replace(opened, high=high, token=token))

    def _back(self, opened: Open, page: Page, positions: Sequence[int]) -> Cursor:
        low = min(positions, default=opened.low)
        high = opened.high if opened.high is not None else max(positions, default=None)
        if page.next is None:
            # The end of the pages is the beginning of the log.
            return Cursor(self.spans.add(Span(ORIGIN, ORIGIN if high is None else high)))
        if low is None or high is None or (low == opened.low and page.next == opened.token):
            raise Rejected("the platform says there is more, and gives nothing new")
        low = min(low, high)
        if not opened.sweep and (known := self.spans.holding(low)) is not None and known.low == ORIGIN:
            return Cursor(self.spans.add(Span(low, high)))
        token = None if page.next is True else page.next
        return replace(self, open=replace(opened, low=low, high=high, token=token))


def _positions(walk: Walk, rows: Sequence[Record]) -> list[int]:
    """Those of the rows of the walk's own table that have one; a row that is odd has none."""
    found = []
    for row in rows:
        if walk.position is not None and isinstance(row, walk.records[0]):
            try:
                position = walk.position(row)
            except (TypeError, ValueError, OverflowError):
                continue
            if isinstance(position, int) and ORIGIN < position < 2**63:
                found.append(position)
    return found
