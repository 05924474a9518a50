"""A graph as a small database file, made beside its three files: for questions about single nodes and for its top.

Nodes are all addresses that are a node, an edge's end or a participant. `inflow` is the sum of the weights of all
edges in the direction in which they lead to the node.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from array import array
from collections.abc import Callable, Iterator, Sequence
from math import isnan
from pathlib import Path
from typing import Any

from metagov_sdk.graph import Address, Declaration, PublishedGraph
from metagov_sdk.graph.addresses import address_of, key_of

FORMAT = "1"
Say = Callable[[int, int], None]

_TABLES = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA page_size = 8192;
CREATE TABLE node_types (id INTEGER PRIMARY KEY, name TEXT, plural TEXT, prefix TEXT, count INTEGER, weight REAL,
    user INTEGER);
CREATE TABLE edge_types (id INTEGER PRIMARY KEY, name TEXT, backward TEXT, prefix TEXT, count INTEGER, forwards REAL,
    backwards REAL);
CREATE TABLE nodes (id INTEGER PRIMARY KEY, hash INTEGER, address TEXT, label TEXT, type INTEGER, time REAL,
    weight REAL, inflow REAL, edges INTEGER, described INTEGER);
CREATE TABLE edges (src INTEGER, dst INTEGER, type INTEGER, time REAL, forwards REAL, backwards REAL);
"""
_INDEXES = """
CREATE INDEX nodes_hash ON nodes (hash);
CREATE INDEX nodes_inflow ON nodes (inflow DESC, edges DESC, id);
CREATE INDEX nodes_type ON nodes (type, inflow DESC, edges DESC, id);
CREATE INDEX edges_src ON edges (src);
CREATE INDEX edges_dst ON edges (dst);
"""
_SAY_EVERY = 50_000


def index_name(digests: Sequence[str]) -> str:
    """The file's name, from the digests of the three files that it is made beside."""
    return hashlib.sha256("\n".join((FORMAT, *digests)).encode()).hexdigest() + ".sqlite"


def hash_of(address: Address) -> int:
    """What nodes are looked up by: 64 bits of a hash of the address."""
    return int.from_bytes(hashlib.sha256(key_of(address).encode("latin-1")).digest()[:8], signed=True)


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
        self._graph = published.graph
        self._declaration = declaration = published.declaration or Declaration("?", (), (), (), (), ())
        self._people = {key_of(each.address): each for each in published.identities}
        self._database = database
        self._say = say
        self._weigh = published.graph.weigh(declaration)
        self._node_types = [*dict.fromkeys((*declaration.node_types, *declaration.user_types))]
        self._node_prefixes = [key_of(kind.prefix) for kind in self._node_types]
        self._edge_prefixes = [key_of(kind.prefix) for kind in declaration.edge_types]
        self._total = len(self._graph.node_columns.keys) + self._graph.edge_count

    def run(self) -> None:
        inflow, degrees, counts, sums = self._write_edges()
        for number, each in enumerate(self._declaration.edge_types):
            row = (number, each.forward_name, each.backward_name, _text(each.prefix), counts[number], *sums[number])
            self._database.execute("INSERT INTO edge_types VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        node_counts, weights = [0] * len(self._node_types), [0.0] * len(self._node_types)
        rows = self._node_rows(inflow, degrees, node_counts, weights)
        self._database.executemany("INSERT INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        users = set(self._declaration.user_types)
        for number, kind in enumerate(self._node_types):
            named = (number, kind.name, kind.plural_name, _text(kind.prefix), node_counts[number], weights[number])
            self._database.execute("INSERT INTO node_types VALUES (?, ?, ?, ?, ?, ?, ?)", (*named, kind in users))

    def _write_edges(self) -> tuple[array[float], array[int], list[int], list[list[float]]]:
        columns = self._graph.edge_columns
        nodes = len(self._graph.node_columns.keys)
        inflow, degrees = array("d", bytes(8 * nodes)), array("I", bytes(4 * nodes))
        counts = [0] * len(self._edge_prefixes)
        sums = [[0.0, 0.0] for _ in self._edge_prefixes]

        def rows() -> Iterator[tuple[Any, ...]]:
            zipped = zip(columns.keys, columns.src, columns.dst, columns.times, strict=True)
            plain = not self._graph.prefixes.edges
            known: dict[int | None, tuple[float, float]] = {}
            for done, (key, src, dst, time) in enumerate(zipped):
                if done % _SAY_EVERY == 0:
                    self._say(done, self._total)
                type = _type_of(key, self._edge_prefixes)
                weights = known.get(type) if plain else None
                if weights is None:
                    found = self._weigh.edge(address_of(key))
                    weights = known[type] = (found.forwards, found.backwards)
                forwards, backwards = weights
                inflow[dst] += forwards
                inflow[src] += backwards
                degrees[src] += 1
                degrees[dst] += src != dst
                if type is not None:
                    counts[type] += 1
                    sums[type][0] += forwards
                    sums[type][1] += backwards
                yield src, dst, type, time, forwards, backwards

        self._database.executemany("INSERT INTO edges VALUES (?, ?, ?, ?, ?, ?)", rows())
        return inflow, degrees, counts, sums

    def _node_rows(
        self, inflow: array[float], degrees: array[int], counts: list[int], sums: list[float]
    ) -> Iterator[tuple[Any, ...]]:
        columns = self._graph.node_columns
        left = dict(self._people)
        number = 0
        for key, place in zip(columns.keys, columns.described, strict=True):
            if number % _SAY_EVERY == 0:
                self._say(self._graph.edge_count + number, self._total)
            person = left.pop(key, None)
            address, type = address_of(key), _type_of(key, self._node_prefixes)
            time = columns.times[place - 1] if place else None
            label = columns.texts.take((place - 1,))[0] if place else person.name if person else ""
            weight = self._weigh.node(address) if place else 0.0
            if type is not None and place:
                counts[type] += 1
                sums[type] += weight
            stamp = None if time is None or isnan(time) else time
            yield (
                number,
                hash_of(address),
                _text(address),
                _stored(label),
                type,
                stamp,
                weight,
                inflow[number],
                degrees[number],
                place > 0,
            )
            number += 1
        for key, person in sorted(left.items()):
            type = _type_of(key, self._node_prefixes)
            address = person.address
            yield number, hash_of(address), _text(address), _stored(person.name), type, None, 0.0, 0.0, 0, False
            number += 1


def _type_of(key: str, prefixes: Sequence[str]) -> int | None:
    """The type with the longest prefix that the key begins with."""
    found = None
    for number, prefix in enumerate(prefixes):
        if key.startswith(prefix) and (found is None or len(prefix) > len(prefixes[found])):
            found = number
    return found


def _text(address: Address) -> str:
    return json.dumps(address, ensure_ascii=False, separators=(",", ":"))


def _stored(text: str) -> str:
    """Text that can be stored: of halves of characters the other half is not there."""
    return text.encode("utf-8", "replace").decode()


def read_address(text: str) -> Address:
    """An address as it is stored."""
    return tuple(json.loads(text))
