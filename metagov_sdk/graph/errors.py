"""What can be wrong with a graph, each by name.

GraphError
├── GraphConflict     two sources say different things of one address, or of one weight
├── WrongGraph        an address, a weight, a time or a name that SourceCred's formats have no place for
└── UnreadableGraph   a file that is no graph; `pointer` says where (a JSON pointer), nothing of it is handed on
    ├── GraphTooLarge    it holds, or unpacks to, more than a reader takes
    └── WrongPacking     it is neither JSON nor zlib nor gzip, or is cut off, or damaged
"""

from __future__ import annotations

from collections.abc import Sequence


class GraphError(Exception):
    """Something about a graph, in words for whoever has to mend it."""


class WrongGraph(GraphError):
    """A rule set made something that cannot stand in a graph."""


class GraphConflict(GraphError):
    """Sources that contradict each other.

    conflicts: a sentence for each, in order; of very many the first thousand. total: how many there are.
    """

    def __init__(self, conflicts: Sequence[str], total: int | None = None) -> None:
        self.conflicts = tuple(conflicts)
        self.total = len(conflicts) if total is None else total
        shown = "; ".join(conflicts[:5])
        super().__init__(shown if self.total <= 5 else f"{shown}; and {self.total - 5:,} more")


class UnreadableGraph(GraphError):
    """A file that is not what it should be. `pointer` is a JSON pointer into it; "" is the whole of it."""

    def __init__(self, pointer: str, reason: str) -> None:
        super().__init__(f"{pointer}: {reason}" if pointer else reason)
        self.pointer = pointer
        self.reason = reason


class GraphTooLarge(UnreadableGraph):
    """A file that holds, or unpacks to, more than a reader takes."""


class WrongPacking(UnreadableGraph):
    """A file that cannot be unpacked."""
