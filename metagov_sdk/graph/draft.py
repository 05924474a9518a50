"""A graph in the making, by keys and columns; a builder and a reader fill it."""

from __future__ import annotations

from array import array
from math import nan

from metagov_sdk.graph.addresses import show
from metagov_sdk.graph.edges import RUN, EdgeRuns, Edges, gather
from metagov_sdk.graph.errors import GraphConflict
from metagov_sdk.graph.graph import WeightedGraph
from metagov_sdk.graph.javascript import number as written
from metagov_sdk.graph.keys import Keys
from metagov_sdk.graph.nodes import Nodes, Texts
from metagov_sdk.graph.weights import EdgeWeight, PrefixWeights


class Draft:
    """Every node that was named, described or not, has a number; what is told of it stands in columns.

    described  by number, the place of the node among `texts` and `times`, from 1 on; 0: it was only named so far.
    weights    by number, its own weight; NaN: none.
    times      milliseconds since 1970; NaN: of no time.
    conflicts  what was told in two ways, a sentence apiece.
    """

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.described = array("I")
        self.weights = array("d")
        self.texts = Texts()
        self.times = array("d")
        self.prefixes = PrefixWeights()
        self.conflicts: list[str] = []
        self.edge_count = 0
        self._edges = EdgeRuns()
        self._source = ""

    def attribute_to(self, source: str) -> None:
        """Who tells what comes from now on; "" is the one whose graph it is."""
        self._source = source
        self._edges.attribute_to(source)

    def number_of(self, key: str) -> int:
        """The number of a node, a new one if it was not named before."""
        number = self.numbers.get(key)
        if number is None:
            number = self.numbers[key] = len(self.numbers)
            self.described.append(0)
            self.weights.append(nan)
        return number

    def describe(self, number: int, key: str, text: bytes, time: float) -> None:
        """Make it a node of the graph."""
        place = self.described[number]
        if not place:
            self.times.append(time)
            self.texts.append(text)
            self.described[number] = len(self.times)
        elif self.texts.raw(place - 1) != text:
            self._conflict(f"the node {show(key)} has two descriptions")
        elif not _same(self.times[place - 1], time):
            self._conflict(f"the node {show(key)} has two times")

    def weigh(self, number: int, key: str, weight: float) -> None:
        """Set a node's own weight."""
        before = self.weights[number]
        if before != before:
            self.weights[number] = weight
        elif before != weight:
            self._conflict(f"the node {show(key)} has two weights")

    def weigh_nodes(self, key: str, weight: float) -> None:
        """Set the weight of a prefix, which may turn out to be a node."""
        number = self.numbers.get(key)
        if number is not None:
            self.weigh(number, key, weight)
        elif self.prefixes.nodes.setdefault(key, weight) != weight:
            self._conflict(f"the nodes at {show(key)} have two weights")

    def weigh_edges(self, key: str, weight: EdgeWeight) -> None:
        """Set the weights of a prefix of edges."""
        if self.prefixes.edges.setdefault(key, weight) != weight:
            self._conflict(f"the edges at {show(key)} have two weights")

    def connect(self, key: str, src: int, dst: int, time: float) -> None:
        """Add an edge between two numbers."""
        rows = self._edges.open
        rows.keys.append(key)
        rows.src.append(src)
        rows.dst.append(dst)
        rows.times.append(time)
        self.edge_count += 1
        if len(rows.keys) >= RUN:
            self._edges.flush()

    def finish(self) -> WeightedGraph:
        """The graph; the draft is used up. Raises GraphConflict with all conflicts, in order."""
        edges = self._edges.merge()
        for key in self.prefixes.nodes.keys() & self.numbers.keys():
            self.weigh(self.numbers[key], key, self.prefixes.nodes.pop(key))
        self.conflicts += self._told_twice()
        if self.conflicts:
            raise GraphConflict(sorted(self.conflicts))
        if len(self.times) < len(self.numbers):
            self._forget_unused(edges)
        nodes, places = self._sorted_nodes()
        edges.src, edges.dst = gather(places, edges.src), gather(places, edges.dst)
        return WeightedGraph(nodes, edges, self.prefixes)

    def _conflict(self, sentence: str) -> None:
        said = f": {self._source!r} says another than was said before" if self._source else ""
        self.conflicts.append(sentence + said)

    def _told_twice(self) -> list[str]:
        if not self._edges.twice:
            return []
        keys = list(self.numbers)

        def told(source: str, src: int, dst: int, time: float) -> str:
            who = f"{source!r} has it " if source else ""
            return f"{who}from {show(keys[src])} to {show(keys[dst])} at {written(time)}"

        both = ((twice.key, sorted((told(*twice.first), told(*twice.second)))) for twice in self._edges.twice)
        return [f"the edge {show(key)} is there twice: {one} and {other}" for key, (one, other) in both]

    def _forget_unused(self, edges: Edges) -> None:
        """An address that is neither a node nor an edge's end is in no graph."""
        used = bytearray(map(bool, self.described))
        for ends in (edges.src, edges.dst):
            for number in ends:
                used[number] = 1
        unused = [key for key, number in self.numbers.items() if not used[number]]
        for key in unused:
            number = self.numbers.pop(key)
            if (weight := self.weights[number]) == weight:
                self.prefixes.nodes[key] = weight

    def _sorted_nodes(self) -> tuple[Nodes, array[int]]:
        """The nodes in order, and by number the position of each."""
        ordered = sorted(self.numbers)
        order = array("I", map(self.numbers.__getitem__, ordered))
        places = array("I", bytes(len(self.described) * self.described.itemsize))
        self.numbers = {}
        keys = Keys()
        keys.extend(ordered)
        for place, number in enumerate(order):
            places[number] = place
        described, weights = gather(self.described, order), gather(self.weights, order)
        return Nodes(keys.close(), described, weights, self.texts, self.times), places


def _same(time: float, other: float) -> bool:
    return time == other or (time != time and other != other)
