"""A finished graph with its weights: sorted, compact, unchangeable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from math import isnan

from metagov_sdk.graph.addresses import Address, address_of, key_of, show_parts
from metagov_sdk.graph.declaration import Declaration
from metagov_sdk.graph.edges import Edges
from metagov_sdk.graph.nodes import Nodes
from metagov_sdk.graph.weighing import Weighing
from metagov_sdk.graph.weights import EdgeWeight, PrefixWeights


@dataclass(frozen=True, slots=True)
class Node:
    """A node. `timestamp_ms`: milliseconds since 1970, or None for what is of no time (a member, a channel)."""

    address: Address
    description: str
    timestamp_ms: float | None


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge from one node to another. Where either is missing from the graph it dangles, and counts for nothing."""

    address: Address
    src: Address
    dst: Address
    timestamp_ms: float


class WeightedGraph:
    """Nodes, edges and weights, in the order of their addresses. Made by a GraphBuilder or by reading a file.

    Two with the same content are equal. Its columns are for those who write and merge it: nobody changes them.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, nodes: Nodes, edges: Edges, prefixes: PrefixWeights) -> None:
        self.node_columns = nodes
        self._node_count = len(nodes.described) - nodes.described.count(0)
        self.edge_columns = edges
        self.prefixes = prefixes

    @property
    def node_count(self) -> int:
        """How many nodes there are."""
        return self._node_count

    @property
    def edge_count(self) -> int:
        """How many edges there are, dangling ones too."""
        return len(self.edge_columns.src)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WeightedGraph):
            return NotImplemented
        mine, its = self.edge_columns, other.edge_columns
        return (
            (self.node_count, self.edge_count) == (other.node_count, other.edge_count)
            and (mine.src, mine.dst, mine.times) == (its.src, its.dst, its.times)
            and self.prefixes.nodes == other.prefixes.nodes
            and self.prefixes.edges == other.prefixes.edges
            and self.node_columns.weights.tobytes() == other.node_columns.weights.tobytes()
            and mine.keys == its.keys
            and self.node_columns.keys == other.node_columns.keys
            and all(one == another for one, another in zip(self.nodes(), other.nodes(), strict=True))
        )

    def nodes(self) -> Iterator[Node]:
        """All nodes, in order."""
        for key, place in zip(self.node_columns.keys, self.node_columns.described, strict=True):
            if place:
                yield self._node(key, place)

    def edges(self) -> Iterator[Edge]:
        """All edges, in order, dangling ones too."""
        edges, ends = self.edge_columns, list(self.node_columns.keys)
        for key, src, dst, time in zip(edges.keys, edges.src, edges.dst, edges.times, strict=True):
            yield Edge(address_of(key), address_of(ends[src]), address_of(ends[dst]), time)

    def node(self, address: Address) -> Node | None:
        """One node, or None."""
        at = self.node_columns.keys.find(key_of(address))
        return self._at(at) if at >= 0 else None

    def node_weights(self) -> Iterator[tuple[Address, float]]:
        """The weights that are set, by address or prefix, in order."""
        own = ((key, weight) for key, weight in zip(self.node_columns.keys, self.node_columns.weights, strict=True))
        set_ones = ((key, weight) for key, weight in own if weight == weight)
        for key, weight in merge(set_ones, sorted(self.prefixes.nodes.items())):
            yield address_of(key), weight

    def edge_weights(self) -> Iterator[tuple[Address, EdgeWeight]]:
        """The weights that are set, by address or prefix, in order."""
        for key in sorted(self.prefixes.edges):
            yield address_of(key), self.prefixes.edges[key]

    def neighbours(self, address: Address) -> Iterator[tuple[Edge, Node | None]]:
        """The edges at a node, in order, each with the node at its other end (None: it dangles)."""
        here = self.node_columns.keys.find(key_of(address))
        if here < 0:
            return
        edges, keys = self.edge_columns, self.node_columns.keys
        for row in _distinct(merge(_rows(edges.src, here), _rows(edges.dst, here))):
            src, dst = edges.src[row], edges.dst[row]
            edge = Edge(address_of(edges.keys[row]), address_of(keys[src]), address_of(keys[dst]), edges.times[row])
            yield edge, self._at(dst if src == here else src)

    def weigh(self, declaration: Declaration | None = None) -> Weighing:
        """The weights of single nodes and edges: the product of all weights whose prefix they have."""
        return Weighing(self, declaration)

    def conflicts_with(self, declaration: Declaration) -> list[str]:
        """Weights of the graph that repeat a type's prefix, which SourceCred refuses; a sentence apiece."""
        return [
            f"the weight of {show_parts(prefix)} is set by the graph and by the declaration's {what} {name!r}"
            for what, name, prefix in self.repeated(declaration)
        ]

    def repeated(self, declaration: Declaration) -> Iterator[tuple[str, str, Address]]:
        """Prefixes that have a weight here and in the declaration: "node type" or "edge type", its name, the prefix."""
        for kind in declaration.node_types:
            if self.own_weight(key_of(kind.prefix)) is not None:
                yield "node type", kind.name, kind.prefix
        for each in declaration.edge_types:
            if key_of(each.prefix) in self.prefixes.edges:
                yield "edge type", each.forward_name, each.prefix

    def own_weight(self, key: str) -> float | None:
        """What was set for exactly this key."""
        at = self.node_columns.keys.find(key)
        if at >= 0 and not isnan(self.node_columns.weights[at]):
            return self.node_columns.weights[at]
        return self.prefixes.nodes.get(key)

    def _at(self, index: int) -> Node | None:
        place = self.node_columns.described[index]
        return self._node(self.node_columns.keys[index], place) if place else None

    def _node(self, key: str, place: int) -> Node:
        time = self.node_columns.times[place - 1]
        return Node(address_of(key), self.node_columns.texts.take((place - 1,))[0], None if isnan(time) else time)


def _rows(column: Sequence[int], value: int) -> Iterator[int]:
    """Where a value stands in a column."""
    start = 0
    try:
        while True:
            start = column.index(value, start) + 1
            yield start - 1
    except ValueError:
        return


def _distinct(rows: Iterator[int]) -> Iterator[int]:
    last = -1
    for row in rows:
        if row != last:
            yield row
        last = row
