"""Builds a graph from whatever comes, in any order, in little memory: the same content gives the same bytes."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from math import nan

from metagov_sdk.graph.addresses import Address, Key, key_of, show
from metagov_sdk.graph.draft import Draft
from metagov_sdk.graph.errors import WrongGraph
from metagov_sdk.graph.graph import WeightedGraph
from metagov_sdk.graph.identities import IdentityProposal, IdentityType, propose
from metagov_sdk.graph.javascript import LARGEST
from metagov_sdk.graph.nodes import Texts
from metagov_sdk.graph.weights import EdgeWeight, check_weight


class GraphBuilder:
    """Collects nodes, edges, weights and participants; `finish` makes the graph of them.

    To say the same twice changes nothing. To say different things of one address is a conflict, and `finish` names
    them all. What no graph can hold raises WrongGraph: NUL in a part, numbers that are not finite, negative weights.
    """

    def __init__(self, plugin_name: str = "metagov") -> None:
        self.plugin_name = plugin_name
        self._draft = Draft()
        self._add_node = self._draft.nodes.add
        self._connect = self._draft.connect
        self._participants: dict[Address, IdentityProposal] = {}
        self._others: list[IdentityProposal] = []
        self._settled: list[IdentityProposal] = []

    @property
    def node_count(self) -> int:
        """How many nodes were added; one that was added twice may count twice."""
        return len(self._draft.nodes.times)

    @property
    def edge_count(self) -> int:
        """How many edges were added; one that was added twice counts twice."""
        return self._draft.edges.count

    def node(
        self, address: Address, description: str, timestamp_ms: float | None = None, *, weight: float | None = None
    ) -> int:
        """Add a node. `weight` is as `node_weight` of this address, and cheaper.

        Returns its number, which `edge` of this builder takes for the address: that is cheaper, too.
        """
        return self.keyed_node((key_of(address),), description, timestamp_ms, weight=weight)

    def keyed_node(
        self, keys: Iterable[Key], description: str, timestamp_ms: float | None = None, *, weight: float | None = None
    ) -> int:
        """As `node`, of the address whose parts' keys these are: cheaper where many addresses share their parts."""
        key = "".join(keys)
        if timestamp_ms is None:
            timestamp_ms = nan
        elif not -LARGEST <= timestamp_ms <= LARGEST:
            raise WrongGraph(f"the time of the node {show(key)} is {timestamp_ms}; milliseconds since 1970 should be")
        own = nan if weight is None else check_weight(weight, key)
        text = Texts.encode(description)
        number = self._add_node(key, text, timestamp_ms, own)
        if number is None:
            draft = self._draft
            number = draft.number_of(key)
            draft.describe(number, key, text, timestamp_ms)
            if weight is not None:
                draft.weigh(number, key, own)
        return number

    def edge(self, address: Address, src: Address | int, dst: Address | int, timestamp_ms: float) -> None:
        """Add an edge. Its ends may be added later, or never: then it dangles."""
        number_of = self._draft.number_of
        if not isinstance(src, int):
            src = number_of(key_of(src))
        if not isinstance(dst, int):
            dst = number_of(key_of(dst))
        self.keyed_edge((key_of(address),), src, dst, timestamp_ms)

    def keyed_edge(self, keys: Iterable[Key], src: int, dst: int, timestamp_ms: float) -> None:
        """As `edge`, of the address whose parts' keys these are, between nodes by their numbers: cheaper, too."""
        key = "".join(keys)
        if not -LARGEST <= timestamp_ms <= LARGEST:
            raise WrongGraph(f"the time of the edge {show(key)} is {timestamp_ms}; milliseconds since 1970 should be")
        self._connect(key, src, dst, timestamp_ms)

    def node_weight(self, prefix: Address, weight: float) -> None:
        """Weigh all nodes with this prefix (a whole address is one); what fits several prefixes has their product."""
        key = key_of(prefix)
        self._draft.weigh(self._draft.number_of(key), key, check_weight(weight, key))

    def edge_weight(self, prefix: Address, forwards: float, backwards: float) -> None:
        """Weigh all edges with this prefix."""
        key = key_of(prefix)
        self._draft.weigh_edges(key, EdgeWeight(check_weight(forwards, key), check_weight(backwards, key)))

    def participant(self, address: Address, name: str, type: IdentityType = "USER", description: str = "") -> None:
        """Propose an identity for a node. Any text will do for a name; a valid one is made of it.

        description: what is shown beside its alias, in Markdown; the address if it is empty.
        """
        key = key_of(address)
        proposal = IdentityProposal(name, self.plugin_name, type, address, description or "/".join(address))
        if self._participants.setdefault(address, proposal) != proposal:
            self._draft.conflicts.add(f"the participant {show(key)} is proposed in two ways")

    def include(self, graph: WeightedGraph, source: str) -> None:
        """Merge a finished graph into this one: addresses are kept, weights are joined.

        source: how conflicts call it; `finish` names them all, and then makes no graph.
        """
        draft, nodes, edges = self._draft, graph.node_columns, graph.edge_columns
        draft.attribute_to(source)
        numbers = array("I", map(draft.number_of, nodes.keys))
        for number, key, place, weight in zip(numbers, nodes.keys, nodes.described, nodes.weights, strict=True):
            if place:
                draft.describe(number, key, nodes.texts.raw(place - 1), nodes.times[place - 1])
            if weight == weight:
                draft.weigh(number, key, weight)
        for key, src, dst, time in zip(edges.keys, edges.src, edges.dst, edges.times, strict=True):
            draft.connect(key, numbers[src], numbers[dst], time)
        for key, weight in graph.prefixes.nodes.items():
            draft.weigh(draft.number_of(key), key, weight)
        for key, both in graph.prefixes.edges.items():
            draft.weigh_edges(key, both)
        draft.attribute_to("")

    def include_identities(self, proposals: Sequence[IdentityProposal]) -> None:
        """Propose another graph's identities, too, by their own plugin names. Of one address the first is kept."""
        self._others += proposals

    def settle_identities(self, proposals: Sequence[IdentityProposal]) -> None:
        """Propose identities just as they are: for a rule set whose names have to be those of another program.

        It sees to it that they are valid, and that SourceCred finds a name for each: `name`, `name-plugin`,
        `name-plugin-1` and so on to 99 are tried, of up to 42 characters.
        """
        self._settled += proposals

    def finish(self) -> WeightedGraph:
        """The graph. The builder's storage goes into it: after that it can only tell its `identities`.

        Raises GraphConflict with all there are.
        """
        return self._draft.finish()

    def identities(self) -> Sequence[IdentityProposal]:
        """The participants as they are to be proposed, in the order of their addresses, names valid and distinct."""
        return propose(self._participants.values(), self._others, self._settled)


def merge_graphs(graphs: Mapping[str, WeightedGraph]) -> WeightedGraph:
    """Several graphs as one; the names are how conflicts call them. Raises GraphConflict."""
    builder = GraphBuilder()
    for name, graph in graphs.items():
        builder.include(graph, name)
    return builder.finish()
