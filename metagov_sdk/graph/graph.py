"""A finished graph with its weights: sorted, compact, unchangeable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from metagov_sdk.graph.addresses import Address
from metagov_sdk.graph.declaration import Declaration, EdgeWeight


@dataclass(frozen=True, slots=True)
class Node:
    """A node. `timestamp_ms`: milliseconds since 1970, or None for what is of no time (a member, a channel)."""

    address: Address
    description: str
    timestamp_ms: float | None


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge from one node to another. Either may be missing from the graph: the edge dangles, and counts for nothing."""

    address: Address
    src: Address
    dst: Address
    timestamp_ms: float


class WeightedGraph:
    """Nodes, edges and weights, in the order of their addresses. Two with the same content are equal."""

    node_count: int
    edge_count: int

    def nodes(self) -> Iterator[Node]:
        """All nodes, in order."""
        raise NotImplementedError

    def edges(self) -> Iterator[Edge]:
        """All edges, in order, dangling ones too."""
        raise NotImplementedError

    def node(self, address: Address) -> Node | None:
        """One node, or None."""
        raise NotImplementedError

    def node_weights(self) -> Iterator[tuple[Address, float]]:
        """The weights that are set, by address or prefix, in order."""
        raise NotImplementedError

    def edge_weights(self) -> Iterator[tuple[Address, EdgeWeight]]:
        """The weights that are set, by address or prefix, in order."""
        raise NotImplementedError

    def neighbours(self, address: Address) -> Iterator[tuple[Edge, Node | None]]:
        """The edges at a node, in order, each with the node at its other end (None: it dangles)."""
        raise NotImplementedError

    def weigh(self, declaration: Declaration | None = None) -> Weighing:
        """The weights of single nodes and edges: the product of all weights whose prefix they have."""
        raise NotImplementedError

    def conflicts_with(self, declaration: Declaration) -> list[str]:
        """Weights of the graph that repeat a type's prefix, which SourceCred refuses; a sentence apiece."""
        raise NotImplementedError


class Weighing:
    """Looks up weights as SourceCred evaluates them; types' default weights are among them if there is a declaration."""

    node_prefixes: Mapping[Address, float]
    edge_prefixes: Mapping[Address, EdgeWeight]

    def node(self, address: Address) -> float:
        """A node's weight; 1 if none was set."""
        raise NotImplementedError

    def edge(self, address: Address) -> EdgeWeight:
        """An edge's weights; 1 and 1 if none were set."""
        raise NotImplementedError
