"""The nodes of a graph: named in any order, then by columns, in order."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import nan

from metagov_sdk.graph.keys import Keys
from metagov_sdk.graph.runs import Rows, Runs, gather, has_twins

RUN = 2**18
"""Names that are held unpacked before they are sorted."""


class Texts:
    """Many texts in one piece of memory."""

    __slots__ = ("_ends", "_letters")

    def __init__(self) -> None:
        self._letters = bytearray()
        self._ends = array("Q", [0])

    @staticmethod
    def encode(text: str) -> bytes:
        """A text as it is kept. Halves of characters that have no other half are kept, too."""
        try:
            return text.encode()
        except UnicodeEncodeError:
            whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
            return whole.encode("utf-8", "surrogatepass")

    def append(self, text: bytes) -> None:
        """Add an encoded text."""
        self._letters += text
        self._ends.append(len(self._letters))

    def raw(self, index: int) -> bytes:
        """An encoded text."""
        return bytes(self._letters[self._ends[index] : self._ends[index + 1]])

    def take(self, indexes: Iterable[int]) -> list[str]:
        """Some of the texts."""
        letters, ends = self._letters, self._ends
        return [letters[ends[index] : ends[index + 1]].decode("utf-8", "surrogatepass") for index in indexes]


@dataclass(slots=True)
class Nodes:
    """Every address that is a node or an edge's end, in order, and what is known of it.

    described: its place among `texts` and `times`, from 1 on; 0 where it is an end only.
    weights: its own weight; NaN where it has none. times: milliseconds since 1970; NaN for what is of no time.
    """

    texts: Texts
    times: array[float]
    keys: Keys = field(default_factory=Keys)
    described: array[int] = field(default_factory=lambda: array("I"))
    weights: array[float] = field(default_factory=lambda: array("d"))


class NodeRows:
    """Gives numbers to names. It knows those of names that came lately; others get one more, and are joined later.

    By number, `described` is the place of what describes it among `texts` and `times`, from 1 on (0: nothing does),
    and `weights` its weight (NaN: none).
    """

    def __init__(self) -> None:
        self.described = array("I")
        self.weights = array("d")
        self.texts = Texts()
        self.times = array("d")
        self._numbers: dict[str, int] = {}
        self._runs = Runs("I")

    def number_of(self, key: str) -> int:
        """The number of a node."""
        number = self._numbers.get(key)
        if number is None:
            if len(self._numbers) >= RUN:
                self.flush()
            number = self._numbers[key] = len(self.described)
            self.described.append(0)
            self.weights.append(nan)
        return number

    def add(self, key: str, text: bytes, time: float, weight: float) -> int | None:
        """Give a number to a name that is new, and describe it; None, and nothing is done, for a known one."""
        if key in self._numbers:
            return None
        if len(self._numbers) >= RUN:
            self.flush()
        # Written out: graphs have hundreds of thousands of nodes, and nearly all of them come this way.
        number = self._numbers[key] = len(self.described)
        self.texts.append(text)
        self.times.append(time)
        self.described.append(len(self.times))
        self.weights.append(weight)
        return number

    def describe(self, number: int, text: bytes, time: float) -> None:
        """Make it a node of the graph; it is none yet."""
        self.texts.append(text)
        self.times.append(time)
        self.described[number] = len(self.times)

    def flush(self) -> None:
        """Sort and pack what was named lately."""
        numbers, self._numbers = self._numbers, {}
        keys = sorted(numbers)
        self._runs.keep(Rows(keys, [array("I", map(numbers.__getitem__, keys))]))

    def finish(
        self, used: bytearray, join: Callable[[str, int, int], None]
    ) -> tuple[Nodes, array[int], list[tuple[str, int]]]:
        """The nodes in order; by number the position of each; and with its number what is not used.

        join: called with a key, its first number and another; all that is known has to be with the first after it.
        """
        self.flush()
        places = array("I", bytes(len(self.described) * self.described.itemsize))
        nodes = Nodes(self.texts, self.times)
        if 0 not in used and (run := self._runs.single()):
            # Nothing to join or to leave out: the run is the graph's.
            nodes.keys = run.keys
            self._place(run.columns[0], nodes, places)
            return nodes, places, []
        unused: list[tuple[str, int]] = []
        for rows in self._runs.merge():
            aliases: list[tuple[int, int]] = []
            if has_twins(rows.keys):
                rows, aliases = self._joined(rows, used, join)
            (numbers,) = rows.columns
            if not all(map(used.__getitem__, numbers)):
                unused += ((key, number) for key, number in zip(rows.keys, numbers, strict=True) if not used[number])
                rows = rows.take([row for row, number in enumerate(numbers) if used[number]])
            nodes.keys.extend(rows.keys)
            self._place(rows.columns[0], nodes, places)
            for alias, number in aliases:
                places[alias] = places[number]
        nodes.keys.close()
        return nodes, places, unused

    def _joined(
        self, rows: Rows, used: bytearray, join: Callable[[str, int, int], None]
    ) -> tuple[Rows, list[tuple[int, int]]]:
        (numbers,) = rows.columns
        kept = [0]
        aliases = []
        for row in range(1, len(rows.keys)):
            if rows.keys[row] != rows.keys[kept[-1]]:
                kept.append(row)
                continue
            first, other = numbers[kept[-1]], numbers[row]
            join(rows.keys[row], first, other)
            used[first] |= used[other]
            aliases.append((other, first))
        return rows.take(kept), aliases

    def _place(self, numbers: array[int], nodes: Nodes, places: array[int]) -> None:
        for position, number in enumerate(numbers, len(nodes.described)):
            places[number] = position
        nodes.described += gather(self.described, numbers)
        nodes.weights += gather(self.weights, numbers)
