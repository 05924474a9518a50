"""A graph in the making, by keys and numbers; a builder and a reader fill it."""

from __future__ import annotations

from bisect import bisect_right

from metagov_sdk.graph.addresses import show
from metagov_sdk.graph.edges import EdgeRows, End
from metagov_sdk.graph.errors import GraphConflict
from metagov_sdk.graph.graph import WeightedGraph
from metagov_sdk.graph.javascript import number as written
from metagov_sdk.graph.nodes import NodeRows, Nodes
from metagov_sdk.graph.weights import EdgeWeight, PrefixWeights

MOST_CONFLICTS = 1000
"""How many are named; somebody else's graph may have millions."""


class Conflicts:
    """What was told in two ways, a sentence apiece: the first of them in order, and how many there are."""

    def __init__(self) -> None:
        self.total = 0
        self._sentences: list[str] = []

    def add(self, sentence: str) -> None:
        """One more."""
        self.total += 1
        self._sentences.append(sentence)
        if len(self._sentences) >= 2 * MOST_CONFLICTS:
            self._sentences = self.first()

    def first(self) -> list[str]:
        """The first of them, whatever the order they came in."""
        return sorted(self._sentences)[:MOST_CONFLICTS]


class Draft:
    """What was told of a graph so far. Nodes go by numbers; one may have several, until all comes together.

    distinct   numbers of which no two may turn out to be one node.
    conflicts  what was told in two ways.
    """

    def __init__(self) -> None:
        self.nodes = NodeRows()
        self.edges = EdgeRows()
        self.edge_weights: dict[str, EdgeWeight] = {}
        self.conflicts = Conflicts()
        self.distinct = range(0)
        self.number_of = self.nodes.number_of
        self.connect = self.edges.add
        self._sources = [""]
        self._starts = [0]
        """By source, the first number that it may have given."""

    def attribute_to(self, source: str) -> None:
        """Who tells what comes from now on; "" is the one whose graph it is."""
        self.edges.flush()
        self.edges.source = len(self._sources)
        self._sources.append(source)
        self.nodes.flush()
        self._starts.append(len(self.nodes.described))

    def describe(self, number: int, key: str, text: bytes, time: float) -> None:
        """Make it a node of the graph. `time`: NaN for what is of no time."""
        nodes = self.nodes
        place = nodes.described[number]
        if not place:
            nodes.describe(number, text, time)
        elif nodes.texts.raw(place - 1) != text:
            self._conflict(f"the node {show(key)} has two descriptions", number)
        elif not _same(nodes.times[place - 1], time):
            self._conflict(f"the node {show(key)} has two times", number)

    def weigh(self, number: int, key: str, weight: float) -> None:
        """Set a node's own weight, or that of a prefix: which it is shows at the end."""
        before = self.nodes.weights[number]
        if before != before:
            self.nodes.weights[number] = weight
        elif before != weight:
            self._conflict(f"the nodes at {show(key)} have two weights", number)

    def weigh_edges(self, key: str, weight: EdgeWeight) -> None:
        """Set the weights of a prefix of edges."""
        if self.edge_weights.setdefault(key, weight) != weight:
            self._conflict(f"the edges at {show(key)} have two weights", len(self.nodes.described))

    def finish(self) -> WeightedGraph:
        """The graph; the draft is used up. Raises GraphConflict with all conflicts, in order."""
        self.edges.flush()
        described = self.nodes.described
        used = bytearray(map(bool, described))
        if bare := {number for number, place in enumerate(described) if not place}:
            for ends in self.edges.ends():
                for number in bare.intersection(ends):
                    used[number] = 1
        nodes, places, unused = self.nodes.finish(used, self._join)
        edges, twice = self.edges.finish(places)
        for key in sorted(twice)[:MOST_CONFLICTS]:
            self.conflicts.add(self._told_twice(key, twice[key], nodes))
        self.conflicts.total += max(0, len(twice) - MOST_CONFLICTS) + self.edges.unnamed
        if self.conflicts.total:
            raise GraphConflict(self.conflicts.first(), self.conflicts.total)
        # An address that is neither a node nor an edge's end is in no graph; if it has a weight it is a prefix.
        weights = self.nodes.weights
        prefixes = {key: weights[number] for key, number in unused if weights[number] == weights[number]}
        return WeightedGraph(nodes, edges, PrefixWeights(prefixes, self.edge_weights))

    def _join(self, key: str, first: int, other: int) -> None:
        nodes = self.nodes
        if first in self.distinct and other in self.distinct:
            self.conflicts.add(f"the address {show(key)} is there twice")
        place = nodes.described[other]
        if place and not nodes.described[first]:
            nodes.described[first] = place
        elif place:
            its = nodes.described[first] - 1
            if nodes.texts.raw(its) != nodes.texts.raw(place - 1):
                self._conflict(f"the node {show(key)} has two descriptions", first, other)
            elif not _same(nodes.times[its], nodes.times[place - 1]):
                self._conflict(f"the node {show(key)} has two times", first, other)
        weight = nodes.weights[other]
        if weight == weight:
            before = nodes.weights[first]
            if before != before:
                nodes.weights[first] = weight
            elif before != weight:
                self._conflict(f"the nodes at {show(key)} have two weights", first, other)

    def _conflict(self, sentence: str, *numbers: int) -> None:
        sources = {self._sources[bisect_right(self._starts, number) - 1] for number in numbers} - {""}
        if sources:
            first, other = sorted(sources)[0], sorted(sources)[1:]
            sentence = f"{sentence}: {first!r} says another than {repr(other[0]) if other else 'the rest'}"
        self.conflicts.add(sentence)

    def _told_twice(self, key: str, ends: set[End], nodes: Nodes) -> str:
        told = []
        for src, dst, time, source in ends:
            who = f"{self._sources[source]!r} has it " if self._sources[source] else ""
            told.append(f"{who}from {show(nodes.keys[src])} to {show(nodes.keys[dst])} at {written(time)}")
        return f"the edge {show(key)} is there twice: {' and '.join(sorted(told))}"


def _same(time: float, other: float) -> bool:
    return time == other or (time != time and other != other)
