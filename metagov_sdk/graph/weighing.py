"""The weights of single nodes and edges, evaluated as SourceCred does: the product of all whose prefix they have."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from math import isnan, nan
from typing import TYPE_CHECKING

from metagov_sdk.graph.addresses import NO_BYTE, Address, address_of, key_of
from metagov_sdk.graph.declaration import Declaration
from metagov_sdk.graph.keys import Keys
from metagov_sdk.graph.nodes import Nodes
from metagov_sdk.graph.weights import EdgeWeight

if TYPE_CHECKING:
    from metagov_sdk.graph.graph import WeightedGraph


class Weighing:
    """Looks up weights, one by one or all at once; with types' default weights, if it has a declaration."""

    def __init__(self, graph: WeightedGraph, declaration: Declaration | None = None) -> None:
        self._graph = graph
        self._nodes = {address_of(key): weight for key, weight in graph.prefixes.nodes.items()}
        self._edges = {address_of(key): weight for key, weight in graph.prefixes.edges.items()}
        self._nodes |= _weighed_prefixes(graph.node_columns)
        if declaration is not None:
            self._nodes |= {kind.prefix: kind.default_weight for kind in declaration.node_types}
            self._edges |= {kind.prefix: kind.default_weight for kind in declaration.edge_types}

    def node(self, address: Address) -> float:
        """A node's weight; 1 if none was set."""
        known = self._graph.node_columns.keys.find(key_of(address)) >= 0
        weight = 1.0
        for end in range(len(address) + 1):
            found = self._nodes.get(address[:end])
            # Of nodes in the graph, the weights of those before them that begin their addresses are known already.
            if found is None and (end == len(address) or not known):
                found = self._graph.own_weight(key_of(address[:end]))
            if found is not None:
                weight *= found
        return weight

    def edge(self, address: Address) -> EdgeWeight:
        """An edge's weights; 1 and 1 if none were set."""
        forwards = backwards = 1.0
        for end in range(len(address) + 1):
            if found := self._edges.get(address[:end]):
                forwards, backwards = forwards * found.forwards, backwards * found.backwards
        return EdgeWeight(forwards, backwards)

    def all_nodes(self) -> array[float]:
        """The weights of all the graph's nodes, by their positions among `node_columns`."""
        nodes = self._graph.node_columns
        found = _product(nodes.keys, self._nodes.items())
        weighed = {nodes.keys.find(key_of(prefix)) for prefix in self._nodes}
        for position, weight in enumerate(nodes.weights):
            if weight == weight and position not in weighed:
                found[position] *= weight
        return found

    def all_edges(self) -> tuple[array[float], array[float]]:
        """The weights of all the graph's edges, forwards and backwards, by their positions among `edge_columns`."""
        keys, weights = self._graph.edge_columns.keys, self._edges.items()
        forwards = _product(keys, ((prefix, both.forwards) for prefix, both in weights))
        return forwards, _product(keys, ((prefix, both.backwards) for prefix, both in weights))


def _product(keys: Keys, weights: Iterable[tuple[Address, float]]) -> array[float]:
    """By position, the product of all weights whose prefix the key has."""
    found = array("d", [1.0]) * len(keys)
    # From the shortest on, so that it is multiplied in the order in which a single one is.
    for prefix, weight in sorted(weights, key=lambda each: len(each[0])):
        under = keys.under(key_of(prefix))
        if weight != 1:
            found[under.start : under.stop] = array("d", [value * weight for value in found[under.start : under.stop]])
    return found


def _weighed_prefixes(nodes: Nodes) -> dict[Address, float]:
    """Nodes' own weights that weigh other nodes, too, because their addresses begin others'."""
    found = {}
    last, its = NO_BYTE, nan
    for key, weight in zip(nodes.keys, nodes.weights, strict=True):
        # In order, what begins with a key comes right behind it.
        if not isnan(its) and key.startswith(last):
            found[address_of(last)] = its
        last, its = key, weight
    return found
