"""The edges of a graph: gathered in any order, then by columns, in order."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from metagov_sdk.graph.keys import Keys
from metagov_sdk.graph.runs import Rows, Runs, gather, has_twins

RUN = 2**19
"""Edges that are held unpacked before they are sorted."""

_MOST = 4000
_KEY, _SRC, _DST, _TIME = map(itemgetter, range(4))

End = tuple[int, int, float, int]
"""From where to where, when, and who says so."""


@dataclass(slots=True)
class Edges:
    """All edges of a graph, in order; ends are positions among the nodes' keys."""

    keys: Keys = field(default_factory=Keys)
    src: array[int] = field(default_factory=lambda: array("I"))
    dst: array[int] = field(default_factory=lambda: array("I"))
    times: array[float] = field(default_factory=lambda: array("d"))


class EdgeRows:
    """Takes edges in any order, between nodes by their numbers.

    source   the number of whoever says what comes; set it after a `flush`.
    unnamed  how many contradictions `finish` has left out, because there are so many.
    """

    def __init__(self) -> None:
        self.source = 0
        self.unnamed = 0
        self._merging = False
        self._flushed = 0
        self._runs = Runs("IIdH")
        self._differ: list[tuple[str, End]] = []
        """Of edges with a key that another of the run has: those that may differ from it."""
        self._rows: list[tuple[str, int, int, float]] = []

    @property
    def count(self) -> int:
        """How many were added."""
        return self._flushed + len(self._rows)

    @property
    def first_differing(self) -> str | None:
        """The key of a contradiction that has shown so far."""
        return self._differ[0][0] if self._differ else None

    def add(self, key: str, src: int, dst: int, time: float) -> None:
        """Add an edge."""
        self._rows.append((key, src, dst, time))
        if len(self._rows) >= RUN:
            self.flush()

    def flush(self) -> None:
        """Sort and pack what has come."""
        added, self._rows = self._rows, []
        added.sort(key=_KEY)
        columns: list[array[Any]] = [array("I", map(_SRC, added)), array("I", map(_DST, added))]
        columns += [array("d", map(_TIME, added)), array("H", [self.source]) * len(added)]
        self._flushed += len(added)
        self._runs.keep(self._distinct(Rows(list(map(_KEY, added)), columns)))

    def ends(self) -> tuple[array[int], ...]:
        """The numbers of all nodes at ends."""
        return tuple(column for run in self._runs for column in run.columns[:2])

    def finish(self, places: array[int]) -> tuple[Edges, dict[str, set[End]]]:
        """All edges in order, each once, and by key those that are not alike. Nothing is left here.

        places: by number of a node its position. Two numbers may have one.
        """
        for run in self._runs:
            run.columns[:2] = (gather(places, column) for column in run.columns[:2])
        self._merging = True
        self._differ = [(key, (places[src], places[dst], at, who)) for key, (src, dst, at, who) in self._differ]
        if only := self._runs.single():
            edges = Edges(only.keys, *only.columns[:3])
        else:
            edges = Edges()
            for batch in self._runs.merge():
                rows = self._distinct(batch)
                edges.keys.extend(rows.keys)
                src, dst, times, _ = rows.columns
                edges.src += src
                edges.dst += dst
                edges.times += times
            edges.keys.close()
        return edges, self._twice()

    def _distinct(self, rows: Rows) -> Rows:
        if not has_twins(rows.keys):
            return rows
        kept = [0]
        for row in range(1, len(rows.keys)):
            if rows.keys[row] != rows.keys[kept[-1]]:
                kept.append(row)
            elif self._row(rows, row)[:3] != self._row(rows, kept[-1])[:3]:
                self._note(rows, kept[-1], row)
        return rows.take(kept)

    def _note(self, rows: Rows, *twins: int) -> None:
        # While all is merged they come in the order of their keys, and the first are enough to be named.
        if self._merging and len(self._differ) >= _MOST:
            self.unnamed += 1
        else:
            self._differ += ((rows.keys[row], self._row(rows, row)) for row in twins)

    @staticmethod
    def _row(rows: Rows, row: int) -> End:
        src, dst, times, sources = rows.columns
        return src[row], dst[row], times[row], sources[row]

    def _twice(self) -> dict[str, set[End]]:
        found: dict[str, set[End]] = {}
        for key, end in self._differ:
            found.setdefault(key, set()).add(end)
        return {key: ends for key, ends in found.items() if len({end[:3] for end in ends}) > 1}
