"""Writing SourceCred's formats, in pieces: same graph, same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from metagov_sdk.graph.graph import WeightedGraph

Packing = Literal["zlib", "gzip"]


def write_graph(graph: WeightedGraph) -> Iterator[bytes]:
    """`graph.json`: SourceCred's weightedGraph 0.1.0, in pieces of up to about a megabyte."""
    raise NotImplementedError


def pack(pieces: Iterable[bytes], packing: Packing, level: int = 6) -> Iterator[bytes]:
    """The pieces, compressed; no time or name goes into it, so that same bytes give same bytes."""
    raise NotImplementedError
