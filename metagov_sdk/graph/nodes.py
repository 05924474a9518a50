"""The nodes of a finished graph, by columns."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

from metagov_sdk.graph.keys import Keys


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

    def __getitem__(self, index: int) -> str:
        return self._letters[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogatepass")


@dataclass(slots=True)
class Nodes:
    """Every address that is a node or an edge's end, in order, and what is known of it.

    described: its place among `texts` and `times`, from 1 on; 0 where it is an end only.
    weights: its own weight; NaN where it has none. times: milliseconds since 1970; NaN for what is of no time.
    """

    keys: Keys
    described: array[int]
    weights: array[float]
    texts: Texts
    times: array[float]
