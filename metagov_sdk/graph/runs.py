"""Rows on their way into order, in little memory: gathered in runs, each sorted and packed, and merged at the end."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import eq
from typing import Any, TypeVar

from metagov_sdk.graph.keys import PAGE, Keys

NumberT = TypeVar("NumberT", int, float)


def gather(column: array[NumberT], order: Sequence[int]) -> array[NumberT]:
    """A column's values in another order."""
    return array(column.typecode, map(column.__getitem__, order))


def has_twins(keys: Sequence[str]) -> bool:
    """Whether any two neighbours are the same."""
    return any(map(eq, keys, islice(keys, 1, None)))


@dataclass(slots=True)
class Rows:
    """Keys, and beside them columns of numbers."""

    keys: list[str]
    columns: list[array[Any]]

    def sorted(self) -> Rows:
        """The rows in the order of their keys; of the same key, in the order in which they were."""
        order = sorted(range(len(self.keys)), key=self.keys.__getitem__)
        return Rows([self.keys[row] for row in order], [gather(column, order) for column in self.columns])

    def take(self, rows: Sequence[int]) -> Rows:
        """Some of the rows."""
        return Rows([self.keys[row] for row in rows], [gather(column, rows) for column in self.columns])


@dataclass(slots=True)
class Run:
    """Rows in order, packed. In one run no two have the same key."""

    keys: Keys
    columns: list[array[Any]]


class Runs:
    """Sorts more rows than fit: `keep` a run of them now and then, `merge` at the end.

    typecodes: of the columns, as of `array`.
    """

    def __init__(self, typecodes: str) -> None:
        self._typecodes = typecodes
        self._runs: list[Run] = []

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def keep(self, rows: Rows) -> None:
        """Make a run of rows that are in order, and have no key twice."""
        if rows.keys:
            keys = Keys()
            keys.extend(rows.keys)
            self._runs.append(Run(keys.close(), rows.columns))

    def single(self) -> Run | None:
        """The only run; None where there are more, or none. It is gone then."""
        return self._runs.pop() if len(self._runs) == 1 else None

    def merge(self) -> Iterator[Rows]:
        """All rows in order, many at a time; rows of the same key come together. The runs are gone then."""
        fronts = [_Front(run) for run in self._runs]
        self._runs = []
        while True:
            for front in fronts:
                front.refill()
            fronts = [front for front in fronts if front.keys]
            if not fronts:
                return
            # Whatever is not past the first page to end has all come: in no run a key comes twice.
            bound = min((front.keys[-1] for front in fronts if front.more), default=None)
            rows = Rows([], [array(typecode) for typecode in self._typecodes])
            for front in fronts:
                front.move(rows, bound)
            yield rows if len(fronts) == 1 else rows.sorted()


class _Front:
    """How far a run has been read."""

    __slots__ = ("_page", "_run", "_start", "keys")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._page = 0
        self._start = 0
        self.keys: list[str] = []

    @property
    def more(self) -> bool:
        """Whether there are further pages."""
        return self._page < self._run.keys.pages

    def refill(self) -> None:
        """Take the next page, if this one is used up and there is one."""
        if not self.keys and self.more:
            self._start = self._page * PAGE
            self.keys = self._run.keys.page(self._page)
            self._page += 1

    def move(self, rows: Rows, bound: str | None) -> None:
        """Hand over what is not past the bound."""
        count = len(self.keys) if bound is None else bisect_right(self.keys, bound)
        rows.keys += self.keys[:count]
        for column, own in zip(rows.columns, self._run.columns, strict=True):
            column += own[self._start : self._start + count]
        del self.keys[:count]
        self._start += count
