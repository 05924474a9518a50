"""Reading other people's graphs, and believing nothing in them; in pieces, with a bound on all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from metagov_sdk.graph.graph import WeightedGraph


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How much a reader takes. Bytes, but for `nodes` and `edges`."""

    packed: int = 256 * 2**20
    unpacked: int = 1024 * 2**20
    ratio: int = 200
    """Unpacked to packed; past the first megabytes more than that is a bomb. Graphs pack to a tenth or so."""
    nodes: int = 5_000_000
    edges: int = 10_000_000
    element: int = 2**20
    """One node, edge or weight as it is written."""


LIMITS = ReadLimits()


def read_graph(pieces: Iterable[bytes], limits: ReadLimits = LIMITS) -> WeightedGraph:
    """A graph from a file's bytes, as they come: plain JSON, zlib or gzip.

    Takes all that SourceCred 0.11.2 would (weightedGraph 0.1.0, graph 0.8.0, weights 0.2.0, members in any order), and
    refuses what it would refuse, and NUL in parts. Raises UnreadableGraph with the place, GraphTooLarge, WrongPacking.
    It takes processor time: call it in a thread where a loop runs.
    """
    raise NotImplementedError


def unpack(pieces: Iterable[bytes], limits: ReadLimits = LIMITS) -> Iterator[bytes]:
    """A file's bytes unpacked, whichever of the three it is. Raises GraphTooLarge as soon as it is, and WrongPacking."""
    raise NotImplementedError
