"""Edges on their way into a graph: gathered in runs, each sorted and packed, and merged at the end."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import eq
from typing import TypeVar

from metagov_sdk.graph.keys import PAGE, Keys

RUN = 2**19
"""Edges that are held unpacked before they are sorted."""
NumberT = TypeVar("NumberT", int, float)


@dataclass(slots=True)
class EdgeColumns:
    """Edges by columns: their keys, the numbers of the nodes at their ends, their times."""

    keys: list[str] = field(default_factory=list)
    src: array[int] = field(default_factory=lambda: array("I"))
    dst: array[int] = field(default_factory=lambda: array("I"))
    times: array[float] = field(default_factory=lambda: array("d"))

    def extend(self, other: EdgeColumns) -> None:
        """Add the others' rows behind."""
        self.keys += other.keys
        self.src += other.src
        self.dst += other.dst
        self.times += other.times

    def cut(self, start: int, end: int | None = None) -> EdgeColumns:
        """Some of the rows."""
        return EdgeColumns(self.keys[start:end], self.src[start:end], self.dst[start:end], self.times[start:end])


@dataclass(slots=True)
class Edges:
    """All edges of a graph, in order; ends are positions among the nodes' keys."""

    keys: Keys
    src: array[int]
    dst: array[int]
    times: array[float]


@dataclass(frozen=True, slots=True)
class Twice:
    """Two edges of one address that are not alike: who says it, and the row (src, dst, time)."""

    key: str
    first: tuple[str, int, int, float]
    second: tuple[str, int, int, float]


@dataclass(slots=True)
class _Run:
    edges: Edges
    source: str
    page: int = 0
    rows: EdgeColumns = field(default_factory=EdgeColumns)

    def refill(self) -> None:
        """Take the next page, if all rows are used up and there is one."""
        if not self.rows.keys and self.more:
            start = self.page * PAGE
            each = slice(start, start + PAGE)
            edges = self.edges
            self.rows = EdgeColumns(edges.keys.page(self.page), edges.src[each], edges.dst[each], edges.times[each])
            self.page += 1

    @property
    def more(self) -> bool:
        """Whether there are further pages."""
        return self.page < self.edges.keys.pages


class EdgeRuns:
    """Takes edges in any order: append to `open`, a row at a time, and call `full` now and then.

    `source` is who says what is appended; change it with `attribute_to`.
    """

    def __init__(self) -> None:
        self.open = EdgeColumns()
        self.twice: list[Twice] = []
        self._source = ""
        self._runs: list[_Run] = []

    def attribute_to(self, source: str) -> None:
        """Who says what comes from now on."""
        self.flush()
        self._source = source

    def flush(self) -> None:
        """Sort and pack what is open."""
        rows = self.open
        if not rows.keys:
            return
        self.open = EdgeColumns()
        rows = self._sorted(rows, lambda _: self._source)
        keys = Keys()
        keys.extend(rows.keys)
        self._runs.append(_Run(Edges(keys.close(), rows.src, rows.dst, rows.times), self._source))

    def merge(self) -> Edges:
        """All edges in order, each once; `twice` has those that contradict each other. Uses the runs up."""
        self.flush()
        if len(self._runs) == 1:
            return self._runs.pop().edges
        merged = Edges(Keys(), array("I"), array("I"), array("d"))
        for rows in self._batches():
            merged.keys.extend(rows.keys)
            merged.src += rows.src
            merged.dst += rows.dst
            merged.times += rows.times
        merged.keys.close()
        return merged

    def _batches(self) -> Iterator[EdgeColumns]:
        """What is before the smallest end of the runs' pages is complete, and sorted at once."""
        runs, self._runs = self._runs, []
        while True:
            for run in runs:
                run.refill()
            runs = [run for run in runs if run.rows.keys]
            if not runs:
                return
            bound = min((run.rows.keys[-1] for run in runs if run.more), default=None)
            batch = EdgeColumns()
            starts, sources = [], []
            for run in runs:
                end = len(run.rows.keys) if bound is None else bisect_right(run.rows.keys, bound)
                starts.append(len(batch.keys))
                sources.append(run.source)
                batch.extend(run.rows.cut(0, end))
                run.rows = run.rows.cut(end)
            yield self._sorted(batch, lambda row, s=starts, n=sources: n[bisect_right(s, row) - 1])  # type: ignore[misc]

    def _sorted(self, rows: EdgeColumns, source_of: Callable[[int], str]) -> EdgeColumns:
        order = sorted(range(len(rows.keys)), key=rows.keys.__getitem__)
        keys = [rows.keys[row] for row in order]
        if any(map(eq, keys, islice(keys, 1, None))):
            order = self._distinct(rows, order, source_of)
            keys = [rows.keys[row] for row in order]
        return EdgeColumns(keys, gather(rows.src, order), gather(rows.dst, order), gather(rows.times, order))

    def _distinct(self, rows: EdgeColumns, order: list[int], source_of: Callable[[int], str]) -> list[int]:
        kept = order[:1]
        for row in order[1:]:
            last = kept[-1]
            if rows.keys[row] != rows.keys[last]:
                kept.append(row)
                continue
            first, second = ((rows.src[each], rows.dst[each], rows.times[each]) for each in (last, row))
            if first != second:
                self.twice.append(Twice(rows.keys[row], (source_of(last), *first), (source_of(row), *second)))
        return kept


def gather(column: array[NumberT], order: Sequence[int]) -> array[NumberT]:
    """A column's values in another order."""
    return array(column.typecode, map(column.__getitem__, order))
