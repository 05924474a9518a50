"""Reading other people's graphs, and believing nothing in them; in pieces, with a bound on all of it."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping
from math import nan
from typing import Any

from metagov_sdk.graph.addresses import key_of, raw, show
from metagov_sdk.graph.declaration import Declaration
from metagov_sdk.graph.draft import Draft
from metagov_sdk.graph.errors import GraphConflict, GraphTooLarge, UnreadableGraph, WrongGraph
from metagov_sdk.graph.graph import WeightedGraph
from metagov_sdk.graph.javascript import LARGEST
from metagov_sdk.graph.nodes import Texts
from metagov_sdk.graph.scan import JsonScanner, below
from metagov_sdk.graph.unpack import LIMITS, ReadLimits, unpack
from metagov_sdk.graph.weights import EdgeWeight, check_weight

_OFTEN = 2**16
_GRAPH, _WEIGHTS = "/1/graphJSON", "/1/weightsJSON"
_VERSIONS = {"sourcecred/weightedGraph": "0.1.0", "sourcecred/graph": "0.8.0", "sourcecred/weights": "0.2.0"}


def read_graph(
    pieces: Iterable[bytes], limits: ReadLimits = LIMITS, declaration: Declaration | None = None
) -> WeightedGraph:
    """A graph from a file's bytes, as they come: plain JSON, zlib or gzip.

    Takes what SourceCred 0.11.2 would (weightedGraph 0.1.0, graph 0.8.0, weights 0.2.0, members in any order), and
    refuses what it would refuse, and besides what it would trip over later: NUL in parts, a node or address that is
    there twice, negative weights, times past 2^53. declaration: refuse weights that repeat its types' prefixes.

    Raises UnreadableGraph with the place, GraphTooLarge, WrongPacking. It takes processor time: call it in a thread
    where a loop runs.
    """
    graph = _Reading(JsonScanner(unpack(pieces, limits), limits.element), limits).read()
    if declaration is not None:
        for what, name, prefix in graph.repeated(declaration):
            nonce, member = ("N", "nodeWeights") if what == "node type" else ("E", "edgeWeights")
            place = below(f"{_WEIGHTS}/1/{member}", raw(nonce, prefix))
            raise UnreadableGraph(place, f"the declaration's {what} {name!r} has a weight for this prefix, too")
    return graph


class _Reading:
    """One document, on its way into a draft: an address's index is its number there."""

    def __init__(self, scanner: JsonScanner, limits: ReadLimits) -> None:
        self._scan = scanner
        self._limits = limits
        self._draft = Draft()
        self._indexes = array("I")
        """The nodes' indexes, as they come."""
        self._highest, self._highest_at = -1, ""
        self._first, self._count = 0, 0
        """The number of the address with index 0, and how many there are."""

    def read(self) -> WeightedGraph:
        """The whole of it."""
        self._wrapped(
            "", "sourcecred/weightedGraph", {"graphJSON": self._read_graph, "weightsJSON": self._read_weights}
        )
        self._scan.end()
        self._describe()
        try:
            return self._draft.finish()
        except GraphConflict as error:
            raise UnreadableGraph(f"{_GRAPH}/1", str(error)) from None

    def _read_graph(self, pointer: str) -> None:
        # Addresses get numbers one after the other, even if weights have named some of them before.
        self._draft.nodes.flush()
        self._first = len(self._draft.nodes.described)
        members = {"sortedNodeAddresses": self._addresses, "nodes": self._nodes, "edges": self._edges}
        self._wrapped(pointer, "sourcecred/graph", members)

    def _read_weights(self, pointer: str) -> None:
        members = {"nodeWeights": self._node_weights, "edgeWeights": self._edge_weights}
        self._wrapped(pointer, "sourcecred/weights", members)

    def _wrapped(self, pointer: str, kind: str, members: Mapping[str, Callable[[str], None]]) -> None:
        """`[{type, version}, {…}]`, with all of the members."""
        index = -1
        for index in self._scan.items(pointer):
            here = below(pointer, index)
            if index == 0:
                self._header(here, kind)
            elif index == 1:
                self._members(here, members)
            else:
                raise UnreadableGraph(here, "nothing should follow the header and its content")
        if index < 1:
            raise UnreadableGraph(pointer, f"it should be a header, with type {kind} and version, and its content")

    def _header(self, pointer: str, kind: str) -> None:
        header = self._scan.value(pointer)
        version = _VERSIONS[kind]
        for name, wanted in (("type", kind), ("version", version)):
            found = header.get(name) if isinstance(header, dict) else None
            if found != wanted:
                raise UnreadableGraph(below(pointer, name), f"it should be {wanted}, and is {_short(found)}")

    def _members(self, pointer: str, members: Mapping[str, Callable[[str], None]]) -> None:
        seen = set()
        for name in self._scan.members(pointer):
            here = below(pointer, name)
            if name in seen:
                raise UnreadableGraph(here, "it is there twice")
            if name in members:
                seen.add(name)
                members[name](here)
            else:
                self._scan.value(here)
        for name in members:
            if name not in seen:
                raise UnreadableGraph(below(pointer, name), "it is missing")

    def _addresses(self, pointer: str) -> None:
        number_of = self._draft.number_of
        for index in self._scan.items(pointer):
            here = f"{pointer}/{index}"
            self._count += 1
            if number_of(self._key(self._scan.value(here), here)) != self._first + index:
                raise UnreadableGraph(here, "the address is there twice")
            if index >= 3 * self._limits.nodes:
                raise GraphTooLarge(here, f"there are more than {3 * self._limits.nodes:,} addresses")

    def _nodes(self, pointer: str) -> None:
        nodes = self._draft.nodes
        seen = set()
        for index in self._scan.items(pointer):
            here = f"{pointer}/{index}"
            if index >= self._limits.nodes:
                raise GraphTooLarge(here, f"there are more than {self._limits.nodes:,} nodes")
            node = _object(self._scan.value(here), here)
            number = self._index(node, "index", here)
            if number in seen:
                raise UnreadableGraph(f"{here}/index", f"the node {number} is there twice")
            seen.add(number)
            description = node.get("description")
            if not isinstance(description, str):
                raise UnreadableGraph(f"{here}/description", f"it should be a string, and is {_short(description)}")
            timeless = "timestampMs" in node and node["timestampMs"] is None
            nodes.times.append(nan if timeless else _time(node, here))
            nodes.texts.append(Texts.encode(description))
            self._indexes.append(number)

    def _edges(self, pointer: str) -> None:
        connect = self._draft.connect
        for index in self._scan.items(pointer):
            here = f"{pointer}/{index}"
            if index >= self._limits.edges:
                raise GraphTooLarge(here, f"there are more than {self._limits.edges:,} edges")
            edge = _object(self._scan.value(here), here)
            key = self._key(edge.get("address"), f"{here}/address")
            src, dst = self._index(edge, "srcIndex", here), self._index(edge, "dstIndex", here)
            connect(key, self._first + src, self._first + dst, _time(edge, here))
            if index % _OFTEN == 0 and (twice := self._draft.edges.first_differing):
                # Each costs memory, and one is enough to refuse the file.
                raise UnreadableGraph(pointer, f"the edge {show(twice)} is there twice, with other ends or times")

    def _node_weights(self, pointer: str) -> None:
        for index, name in enumerate(self._scan.members(pointer)):
            self._refuse_many(index, pointer)
            here = below(pointer, name)
            key = _raw_key(name, "N", here)
            self._draft.weigh(self._draft.number_of(key), key, _weight(self._scan.value(here), here))
            self._refuse_conflict(here)

    def _edge_weights(self, pointer: str) -> None:
        for index, name in enumerate(self._scan.members(pointer)):
            self._refuse_many(index, pointer)
            here = below(pointer, name)
            key = _raw_key(name, "E", here)
            both = _object(self._scan.value(here), here)
            forwards, backwards = (_weight(both.get(side), f"{here}/{side}") for side in ("forwards", "backwards"))
            self._draft.weigh_edges(key, EdgeWeight(forwards, backwards))
            self._refuse_conflict(here)

    def _refuse_many(self, index: int, pointer: str) -> None:
        if index >= self._limits.nodes:
            raise GraphTooLarge(pointer, f"there are more than {self._limits.nodes:,} weights")

    def _refuse_conflict(self, pointer: str) -> None:
        if self._draft.conflicts.total:
            raise UnreadableGraph(pointer, "it has another weight before")

    def _describe(self) -> None:
        """Now that addresses are known, say which of them are nodes."""
        if self._highest >= self._count:
            raise UnreadableGraph(self._highest_at, f"there is no address {self._highest}; there are {self._count:,}")
        self._draft.distinct = range(self._first, self._first + self._count)
        for place, index in enumerate(self._indexes, 1):
            self._draft.nodes.described[self._first + index] = place

    def _index(self, row: dict[str, Any], name: str, pointer: str) -> int:
        value = row.get(name)
        if type(value) is float and value.is_integer():
            value = int(value)
        # Some room is left: its number may be higher than its index.
        if type(value) is not int or not 0 <= value < 2**31:
            raise UnreadableGraph(f"{pointer}/{name}", f"it should be an address's index, and is {_short(value)}")
        if value > self._highest:
            self._highest, self._highest_at = value, f"{pointer}/{name}"
        return value

    def _key(self, parts: object, pointer: str) -> str:
        if not isinstance(parts, list):
            raise UnreadableGraph(pointer, f"it should be a list of an address's parts, and is {_short(parts)}")
        try:
            return key_of(tuple(parts))
        except (TypeError, WrongGraph):
            return _wrong_part(parts, pointer)


def _wrong_part(parts: list[Any], pointer: str) -> str:
    for index, part in enumerate(parts):
        if not isinstance(part, str):
            raise UnreadableGraph(f"{pointer}/{index}", f"it should be a string, and is {_short(part)}")
        if "\0" in part:
            raise UnreadableGraph(f"{pointer}/{index}", "a part of an address has NUL in it")
    raise UnreadableGraph(pointer, "the address is not Unicode: it has halves of characters")


def _raw_key(text: str, nonce: str, pointer: str) -> str:
    if not text.startswith(f"{nonce}\0") or not text.endswith("\0"):
        raise UnreadableGraph(pointer, f"an address should begin with {nonce} and NUL, and end with NUL")
    try:
        return key_of(tuple(text.split("\0")[1:-1]))
    except WrongGraph as error:
        raise UnreadableGraph(pointer, str(error)) from None


def _object(value: object, pointer: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UnreadableGraph(pointer, f"it should be an object, and is {_short(value)}")
    return value


def _time(row: dict[str, Any], pointer: str) -> float:
    value = row.get("timestampMs")
    if type(value) not in (int, float) or not -LARGEST <= value <= LARGEST:  # type: ignore[operator]
        raise UnreadableGraph(f"{pointer}/timestampMs", f"it should be milliseconds since 1970, and is {_short(value)}")
    return value + 0.0  # type: ignore[operator]


def _weight(value: object, pointer: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnreadableGraph(pointer, f"a weight should be a number, and is {_short(value)}")
    try:
        return check_weight(value, "")
    except (WrongGraph, OverflowError):
        raise UnreadableGraph(pointer, f"a weight should be 0 or more, and finite; it is {_short(value)}") from None


def _short(value: object) -> str:
    if value is None:
        return "missing"
    if isinstance(value, list | dict):
        return f"a {'list' if isinstance(value, list) else 'object'}"
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
