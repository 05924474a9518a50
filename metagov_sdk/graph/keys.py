"""Sorted keys in packed pages: addresses share most of their letters with their neighbours."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import zstandard

from metagov_sdk.graph.addresses import NO_BYTE

PAGE = 4096
"""Keys in a page; the last has what is left."""


class Keys:
    """Keys in order, found by their position, and their position by them: `extend`, `close`, then read."""

    __slots__ = ("_ends", "_firsts", "_length", "_open", "_packed", "_seen")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        # All pages in one piece: many small ones, each made in between large texts, would leave memory full of holes.
        self._packed = bytearray()
        self._ends = array("Q", [0])
        self._firsts: list[str] = []
        self._length = 0
        self._open: list[str] = []
        self._seen: tuple[int, list[str]] = (-1, [])

    def extend(self, keys: Sequence[str]) -> None:
        """Add keys that come behind all that are there."""
        self._length += len(keys)
        start = 0
        if self._open:
            start = PAGE - len(self._open)
            self._open += keys[:start]
            if len(self._open) < PAGE:
                return
            self._write(self._open)
        whole = len(keys) - (len(keys) - start) % PAGE
        for at in range(start, whole, PAGE):
            self._write(keys[at : at + PAGE])
        self._open = list(keys[whole:])

    def close(self) -> Keys:
        """Nothing more comes."""
        if self._open:
            self._write(self._open)
            self._open = []
        return self

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[str]:
        for page in range(self.pages):
            yield from self.page(page)

    def __getitem__(self, index: int) -> str:
        page, at = divmod(index, PAGE)
        return self._cached(page)[at]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Keys):
            return NotImplemented
        if self._firsts != other._firsts or len(self) != len(other):
            return False
        return all(self.text(page) == other.text(page) for page in range(self.pages))

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return len(self._firsts)

    def text(self, page: int) -> str:
        """A page's keys with NO_BYTE between them."""
        packed = self._packed[self._ends[page] : self._ends[page + 1]]
        return zstandard.ZstdDecompressor().decompress(packed).decode("latin-1")

    def page(self, page: int) -> list[str]:
        """A page's keys."""
        return self.text(page).split(NO_BYTE)

    def find(self, key: str) -> int:
        """The position of a key, or -1."""
        page = bisect_right(self._firsts, key) - 1
        if page < 0:
            return -1
        keys = self._cached(page)
        at = bisect_left(keys, key)
        return page * PAGE + at if at < len(keys) and keys[at] == key else -1

    def under(self, prefix: str) -> range:
        """The positions of all keys with a prefix, itself among them; a prefix is a key, or "" for all."""
        if not prefix:
            return range(len(self))
        # Keys end with NUL, and what comes right behind all that begin with one ends with the next byte.
        return range(self._place(prefix), self._place(prefix[:-1] + "\1"))

    def _place(self, key: str) -> int:
        """Where a key is, or would be."""
        page = max(bisect_left(self._firsts, key) - 1, 0)
        return page * PAGE + bisect_left(self._cached(page), key) if self._firsts else 0

    def _cached(self, page: int) -> list[str]:
        seen = self._seen
        if seen[0] != page:
            self._seen = seen = (page, self.page(page))
        return seen[1]

    def _write(self, keys: Sequence[str]) -> None:
        self._firsts.append(keys[0])
        self._packed += zstandard.ZstdCompressor(level=1).compress(NO_BYTE.join(keys).encode("latin-1"))
        self._ends.append(len(self._packed))
