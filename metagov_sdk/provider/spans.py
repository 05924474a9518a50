"""Sets of closed intervals: which positions of a log have been read without a gap. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

ORIGIN = -1
"""Before the first position of every log."""


@dataclass(frozen=True, slots=True)
class Span:
    """Every position from `low` to `high`, both included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"a span from {self.low} to {self.high}")


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans that do not meet, in order. Two that share a position become one, and neighbours do not.

    A gap between neighbours is no gap in a list of whole numbers, but a log's positions need not be dense: what lies
    between two spans is unknown until something has been read that touches both.
    """

    spans: tuple[Span, ...] = ()

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, int]]) -> Spans:
        """From pairs in any order."""
        found = cls()
        for low, high in pairs:
            found = found.add(Span(low, high))
        return found

    def __iter__(self) -> Iterator[Span]:
        return iter(self.spans)

    def add(self, new: Span) -> Spans:
        """With another span, merged with those that it meets."""
        low, high = new.low, new.high
        apart = []
        for span in self.spans:
            if span.high < low or span.low > high:
                apart.append(span)
            else:
                low, high = min(low, span.low), max(high, span.high)
        return Spans(tuple(sorted([*apart, Span(low, high)], key=lambda span: span.low)))

    def holding(self, position: int) -> Span | None:
        """The span that a position is in."""
        return next((span for span in self.spans if span.low <= position <= span.high), None)

    @property
    def reach(self) -> int:
        """The last position up to which nothing is missing from the log's beginning on; ORIGIN for none."""
        first = self.holding(ORIGIN)
        return ORIGIN if first is None else first.high
