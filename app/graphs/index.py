"""A graph as a small database file, made beside its three files: for questions about single nodes and for its top.

Nodes are all addresses that are a node, an edge's end or a participant, with their parts in UTF-8 and NUL behind each.
Those of the graph come first, in its order, and then the others in theirs: so they are found without an index.
`inflow` is the sum of the weights of all edges in the direction in which they lead to the node.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, pairwise, repeat
from math import fsum, isfinite
from pathlib import Path
from typing import Any

from metagov_sdk.graph import Address, Declaration, PublishedGraph
from metagov_sdk.graph.addresses import NO_BYTE, key_of, utf8
from metagov_sdk.graph.keys import PAGE, Keys

FORMAT = "2"
LARGEST = sys.float_info.max
LONGEST_LABEL = 1000
"""Characters: a foreign node's description may be a megabyte, and a hundred nodes are one answer."""
Say = Callable[[int, int], None]

_TABLES = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA page_size = 8192;
CREATE TABLE sizes (graph INTEGER, others INTEGER);
CREATE TABLE node_types (id INTEGER PRIMARY KEY, name TEXT, plural TEXT, prefix TEXT, count INTEGER, weight REAL,
    user INTEGER);
CREATE TABLE edge_types (id INTEGER PRIMARY KEY, name TEXT, backward TEXT, prefix TEXT, count INTEGER, forwards REAL,
    backwards REAL);
CREATE TABLE nodes (id INTEGER PRIMARY KEY, address BLOB, label TEXT, type INTEGER, time REAL, weight REAL, inflow REAL,
    edges INTEGER, described INTEGER);
CREATE TABLE edges (src INTEGER, dst INTEGER, type INTEGER, time REAL, forwards REAL, backwards REAL);
"""
_INDEXES = """
CREATE INDEX nodes_inflow ON nodes (inflow DESC, edges DESC, id);
CREATE INDEX nodes_type ON nodes (type, inflow DESC, edges DESC, id);
CREATE INDEX edges_src ON edges (src);
CREATE INDEX edges_dst ON edges (dst);
"""


def index_name(digests: Sequence[str]) -> str:
    """The file's name, from the digests of the three files that it is made beside."""
    return hashlib.sha256("\n".join((FORMAT, *digests)).encode()).hexdigest() + ".sqlite"


def write_index(published: PublishedGraph, path: Path, say: Say) -> None:
    """Write the file. `say` is told how many nodes and edges are in it, and of how many."""
    database = sqlite3.connect(path, isolation_level=None)
    try:
        database.executescript(_TABLES)
        database.execute("BEGIN")
        _Indexing(published, database, say).run()
        database.execute("COMMIT")
        database.executescript(_INDEXES)
    finally:
        database.close()


class _Indexing:
    def __init__(self, published: PublishedGraph, database: sqlite3.Connection, say: Say) -> None:
        declaration = published.declaration or Declaration("?", (), (), (), (), ())
        self._nodes = published.graph.node_columns
        self._edges = published.graph.edge_columns
        self._weigh = published.graph.weigh(declaration)
        self._edge_kinds = declaration.edge_types
        self._node_kinds = [*dict.fromkeys((*declaration.node_types, *declaration.user_types))]
        self._users = set(declaration.user_types)
        self._names = {str(key_of(each.address)): each.name for each in published.identities}
        self._database = database
        self._say = say
        self._total = len(self._nodes.keys) + len(self._edges.keys)

    def run(self) -> None:
        inflow, degrees = self._write_edges()
        self._write_nodes(inflow, degrees)
        others = self._write_others()
        self._database.execute("INSERT INTO sizes VALUES (?, ?)", (len(self._nodes.keys), others))

    def _write_edges(self) -> tuple[array[float], array[int]]:
        """Returns by node what flows to it, and how many edges are at it."""
        edges, nodes = self._edges, len(self._nodes.keys)
        forwards, backwards = map(_finite, self._weigh.all_edges())
        counts, sums = [0] * len(self._edge_kinds), [[0.0, 0.0] for _ in self._edge_kinds]
        for type, rows in _by_type(edges.keys, [kind.prefix for kind in self._edge_kinds]):
            self._say(rows.start, self._total)
            each = slice(rows.start, rows.stop)
            ends, weights = (edges.src[each], edges.dst[each]), (forwards[each], backwards[each])
            values = zip(*ends, repeat(type), edges.times[each], *weights)
            self._database.executemany("INSERT INTO edges VALUES (?, ?, ?, ?, ?, ?)", values)
            if type is not None:
                counts[type] += len(rows)
                sums[type] = [_add(before, column) for before, column in zip(sums[type], weights, strict=True)]
        for number, kind in enumerate(self._edge_kinds):
            names = map(_stored, (kind.forward_name, kind.backward_name))
            row = (number, *names, _text(kind.prefix), counts[number], *sums[number])
            self._database.execute("INSERT INTO edge_types VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        inflow, degrees = array("d", bytes(8 * nodes)), array("I", bytes(4 * nodes))
        for src, dst, forth, back in zip(edges.src, edges.dst, forwards, backwards, strict=True):
            inflow[dst] += forth
            inflow[src] += back
            degrees[src] += 1
            degrees[dst] += src != dst
        return _finite(inflow), degrees

    def _write_nodes(self, inflow: array[float], degrees: array[int]) -> None:
        nodes = self._nodes
        weights = _finite(self._weigh.all_nodes())
        for number in (number for number, place in enumerate(nodes.described) if not place):
            weights[number] = 0.0
        types: list[int | None] = []
        counts, sums = [0] * len(self._node_kinds), [0.0] * len(self._node_kinds)
        for type, rows in _by_type(nodes.keys, [kind.prefix for kind in self._node_kinds]):
            types += [type] * len(rows)
            if type is not None:
                each = slice(rows.start, rows.stop)
                counts[type] += len(rows) - nodes.described[each].count(0)
                sums[type] = _add(sums[type], weights[each])
        for page in range(nodes.keys.pages):
            each = slice(page * PAGE, (page + 1) * PAGE)
            self._say(len(self._edges.keys) + each.start, self._total)
            places = nodes.described[each]
            # What has no time is NaN, which the file takes for NULL.
            times = [nodes.times[place - 1] if place else None for place in places]
            columns = (types[each], times, weights[each], inflow[each], degrees[each], map(bool, places))
            text = nodes.keys.text(page)
            self._add_nodes(each.start, text, self._labels(text, places), *columns)
        for number, kind in enumerate(self._node_kinds):
            named = (number, _stored(kind.name), _stored(kind.plural_name), _text(kind.prefix))
            row = (*named, counts[number], sums[number], kind in self._users)
            self._database.execute("INSERT INTO node_types VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def _labels(self, text: str, places: Sequence[int]) -> list[str]:
        """What nodes are called: by what describes them, or whoever they are. Of these, others are left."""
        described = iter(self._nodes.texts.take(place - 1 for place in places if place))
        names = (self._names.pop(key, "") for key in text.split(NO_BYTE))
        return [next(described) if place else name for place, name in zip(places, names, strict=True)]

    def _write_others(self) -> int:
        """Participants that are not in the graph. Returns how many."""
        keys = Keys()
        keys.extend(sorted(self._names))
        keys.close()
        types: list[int | None] = []
        for type, rows in _by_type(keys, [kind.prefix for kind in self._node_kinds]):
            types += [type] * len(rows)
        for page in range(keys.pages):
            each = slice(page * PAGE, (page + 1) * PAGE)
            names = [self._names[key] for key in keys.page(page)]
            nothing = (repeat(None), repeat(0.0), repeat(0.0), repeat(0), repeat(False))
            self._add_nodes(len(self._nodes.keys) + each.start, keys.text(page), names, types[each], *nothing)
        return len(keys)

    def _add_nodes(self, first: int, text: str, labels: Sequence[str], *columns: Iterable[Any]) -> None:
        """`text`: their keys, with NO_BYTE between them, which UTF-8 has not either."""
        addresses = utf8(text).split(NO_BYTE.encode("latin-1"))
        values = zip(count(first), addresses, map(_stored, labels), *columns)
        self._database.executemany("INSERT INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)


def _by_type(keys: Keys, prefixes: Sequence[Address]) -> Iterator[tuple[int | None, range]]:
    """All positions, by those that are together and of one type: that with the longest prefix that their keys have."""
    under = [keys.under(key_of(prefix)) for prefix in prefixes]
    ends = sorted({0, len(keys), *(end for each in under for end in (each.start, each.stop))})
    for start, stop in pairwise(ends):
        fitting = (number for number, each in enumerate(under) if start in each)
        yield max(fitting, key=lambda number: len(prefixes[number]), default=None), range(start, stop)


def _finite(weights: array[float]) -> array[float]:
    """Weights that can be shown: JSON has no infinity. Each is finite in a graph, but not their products and sums."""
    if isfinite(sum(weights)):
        return weights
    # Past the largest number times 0 is not a number: 0, as is whatever else is multiplied by it.
    return array("d", [min(weight, LARGEST) if weight == weight else 0.0 for weight in weights])


def _add(before: float, weights: array[float]) -> float:
    try:
        return min(before + fsum(weights), LARGEST)
    except OverflowError:
        return LARGEST


def _text(address: Address) -> str:
    return json.dumps(address, ensure_ascii=False, separators=(",", ":"))


def _stored(text: str) -> str:
    """Text that can be stored: not too long, and of halves of characters the other half is not there."""
    return text[:LONGEST_LABEL].encode("utf-8", "replace").decode()


def read_address(stored: bytes) -> Address:
    """An address as it is stored."""
    return tuple(stored.decode().split("\0")[:-1])
