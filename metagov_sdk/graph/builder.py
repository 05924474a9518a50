"""Builds a graph from whatever comes, in any order, in little memory: the same content gives the same bytes."""

from __future__ import annotations

from collections.abc import Sequence

from metagov_sdk.graph.addresses import Address
from metagov_sdk.graph.graph import WeightedGraph
from metagov_sdk.graph.identities import IdentityProposal, IdentityType


class GraphBuilder:
    """Collects nodes, edges, weights and participants; `finish` makes the graph of them.

    To say the same twice changes nothing. To say different things of one address raises GraphConflict, and what no
    graph can hold WrongGraph: NUL in a part, numbers that are not finite, negative weights.
    """

    def __init__(self, plugin_name: str = "metagov") -> None:
        self.plugin_name = plugin_name

    @property
    def node_count(self) -> int:
        """How many nodes were added."""
        raise NotImplementedError

    @property
    def edge_count(self) -> int:
        """How many edges were added."""
        raise NotImplementedError

    def node(
        self, address: Address, description: str, timestamp_ms: float | None = None, *, weight: float | None = None
    ) -> None:
        """Add a node. `weight` is as `node_weight` of this address, and cheaper."""
        raise NotImplementedError

    def edge(self, address: Address, src: Address, dst: Address, timestamp_ms: float) -> None:
        """Add an edge. Its ends may be added later, or never: then it dangles."""
        raise NotImplementedError

    def node_weight(self, prefix: Address, weight: float) -> None:
        """Weigh all nodes with this prefix (a whole address is one); what fits several prefixes has their product."""
        raise NotImplementedError

    def edge_weight(self, prefix: Address, forwards: float, backwards: float) -> None:
        """Weigh all edges with this prefix."""
        raise NotImplementedError

    def participant(self, address: Address, name: str, type: IdentityType = "USER", description: str = "") -> None:
        """Propose an identity for a node. Any text will do for a name; a valid one is made of it.

        description: Markdown, shown beside the alias. It cannot hold everything a node's can, so it is the node's
        address if it is empty.
        """
        raise NotImplementedError

    def include(self, graph: WeightedGraph, source: str) -> None:
        """Merge a finished graph into this one: addresses are kept, weights are joined.

        source: how conflicts call it. Raises GraphConflict with all conflicts; then nothing has been merged.
        """
        raise NotImplementedError

    def include_identities(self, proposals: Sequence[IdentityProposal]) -> None:
        """Propose another graph's identities here, too, by their own plugin names."""
        raise NotImplementedError

    def finish(self) -> WeightedGraph:
        """The graph. The builder's storage goes into it: the builder can only tell its `identities` after."""
        raise NotImplementedError

    def identities(self) -> Sequence[IdentityProposal]:
        """The participants as they are to be proposed, in the order of their addresses, with valid and distinct names."""
        raise NotImplementedError
