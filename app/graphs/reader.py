"""Reading the index of a built graph: for actions of plugins, for statistics and for pictures."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from app.core.db import Pool
from app.graphs.files import GraphFiles
from app.graphs.index import LARGEST, read_address
from metagov_sdk import errors
from metagov_sdk.graph import Address, Direction, GraphNeighbour, GraphNode, Key, WrongGraph, key_of

ResultT = TypeVar("ResultT")

_COLUMNS = "n.id, n.address, n.label, t.name, n.time, n.weight, n.inflow, n.edges"
_FROM = "FROM nodes n LEFT JOIN node_types t ON t.id = n.type"
_ORDER = "ORDER BY n.inflow DESC, n.edges DESC, n.id LIMIT ?"
_TOP = f"SELECT {_COLUMNS} {_FROM} {_ORDER}"
_TOP_OF_TYPE = f"SELECT {_COLUMNS} {_FROM} WHERE n.type = ? {_ORDER}"
_BY_NUMBER = f"SELECT {_COLUMNS} {_FROM} WHERE n.id = ?"
_ADDRESS = "SELECT address FROM nodes WHERE id = ?"
# A loop is seen once, from its beginning.
_NEIGHBOURS = f"""
SELECT {_COLUMNS}, e.name, e.direction, e.time, e.forwards, e.backwards FROM (
    SELECT y.name, 'out' AS direction, e.time, e.forwards, e.backwards, e.dst AS other
    FROM edges e LEFT JOIN edge_types y ON y.id = e.type
    WHERE e.src = :node AND :direction <> 'in' AND (:prefix = '' OR y.prefix = :prefix)
    UNION ALL
    SELECT y.name, 'in', e.time, e.forwards, e.backwards, e.src
    FROM edges e LEFT JOIN edge_types y ON y.id = e.type
    WHERE e.dst = :node AND e.src <> e.dst AND :direction <> 'out' AND (:prefix = '' OR y.prefix = :prefix)
) e JOIN nodes n ON n.id = e.other LEFT JOIN node_types t ON t.id = n.type
ORDER BY e.time DESC, n.id, e.direction, e.name LIMIT :limit
"""  # noqa: S608 -- constants only
# Nodes beside those that were chosen: first those beside several.
_BESIDE = f"""
SELECT {_COLUMNS} FROM (
    SELECT other, count(DISTINCT here) AS joined FROM (
        SELECT src AS here, dst AS other FROM edges WHERE src IN (SELECT value FROM json_each(:chosen))
        UNION ALL
        SELECT dst, src FROM edges WHERE dst IN (SELECT value FROM json_each(:chosen))
    ) WHERE other NOT IN (SELECT value FROM json_each(:chosen)) GROUP BY other
) b JOIN nodes n ON n.id = b.other LEFT JOIN node_types t ON t.id = n.type
ORDER BY b.joined DESC, n.inflow DESC, n.edges DESC, n.id LIMIT :limit
"""  # noqa: S608 -- constants only
_AMONG = """
SELECT src, dst, type, sum(forwards + backwards), count(*) FROM edges
WHERE src IN (SELECT value FROM json_each(?1)) AND dst IN (SELECT value FROM json_each(?1)) AND src <> dst
GROUP BY src, dst, type ORDER BY src, dst, type
"""


@dataclass(frozen=True, slots=True)
class TypeCount:
    """A type of nodes or edges: how many there are, and their weights added up."""

    name: str
    count: int
    weight: float
    backwards: float | None = None
    """Of edges: `weight` is that forwards, this is that backwards."""


@dataclass(frozen=True, slots=True)
class Top:
    """The top of a graph: its first nodes, and the edges among them as (from, to, weight), by positions."""

    nodes: Sequence[GraphNode]
    edges: Sequence[tuple[int, int, float]]


class Index:
    """The index, opened: one thread at a time."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def top(self, type: str | None, limit: int) -> list[GraphNode]:
        """The nodes with the greatest inflow. Raises errors.Invalid for an unknown type."""
        if type is None:
            return [_node(row) for row in self._database.execute(_TOP, (limit,))]
        types = {name: number for number, name in self._database.execute("SELECT id, name FROM node_types")}
        if type not in types:
            known = ", ".join(sorted(types)) or "none"
            raise errors.Invalid("/type", f"there is no type of nodes of this name; there are: {known}")
        return [_node(row) for row in self._database.execute(_TOP_OF_TYPE, (types[type], limit))]

    def node(self, address: Address) -> tuple[int, GraphNode] | None:
        """A node with its number."""
        try:
            key = key_of(address)
        except WrongGraph:
            return None
        of_graph, others = self._database.execute("SELECT graph, others FROM sizes").fetchone()
        for numbers in (range(of_graph), range(of_graph, of_graph + others)):
            at = bisect_left(numbers, key, key=self._key)
            if at < len(numbers) and self._key(numbers[at]) == key:
                return numbers[at], _node(self._database.execute(_BY_NUMBER, (numbers[at],)).fetchone())
        return None

    def _key(self, number: int) -> Key:
        return key_of(read_address(self._database.execute(_ADDRESS, (number,)).fetchone()[0]))

    def neighbours(
        self, address: Address, edges: Address, direction: Direction | None, limit: int
    ) -> list[GraphNeighbour]:
        """The edges at a node, the newest first."""
        found = self.node(address)
        if found is None:
            return []
        prefix = json.dumps(edges, ensure_ascii=False, separators=(",", ":")) if edges else ""
        values = {"node": found[0], "direction": direction or "", "prefix": prefix, "limit": limit}
        return [
            GraphNeighbour(
                type=row[8],
                direction=row[9],
                timestamp_ms=row[10],
                forwards=row[11],
                backwards=row[12],
                node=_node(row),
            )
            for row in self._database.execute(_NEIGHBOURS, values)
        ]

    def node_types(self) -> list[TypeCount]:
        """The types of nodes, in the order of the declaration."""
        rows = self._database.execute("SELECT plural, count, weight FROM node_types ORDER BY id")
        return [TypeCount(*row) for row in rows]

    def edge_types(self) -> list[TypeCount]:
        """The types of edges, in the order of the declaration."""
        rows = self._database.execute("SELECT name, count, forwards, backwards FROM edge_types ORDER BY id")
        return [TypeCount(*row) for row in rows]

    def picture(self, limit: int) -> Top:
        """The top with what joins it, `limit` nodes in all, and the edges among them.

        The nodes with the greatest inflow are often of one kind (members), and joined by others only (messages, and
        reactions to them): so a third is the top itself, the next what is beside it, the last what joins all that.
        """
        rows = list(self._database.execute(_TOP, (max(1, limit // 3),)))
        for size in (2 * limit // 3, limit):
            chosen = json.dumps([row[0] for row in rows])
            rows += self._database.execute(_BESIDE, {"chosen": chosen, "limit": max(0, size - len(rows))})
        rows += self._rest(rows, limit - len(rows))
        places = {row[0]: place for place, row in enumerate(rows)}
        edges: dict[tuple[int, int], float] = {}
        for src, dst, _, weight, _ in self._database.execute(_AMONG, (json.dumps(list(places)),)):
            ends = places[src], places[dst]
            edges[ends] = min(edges.get(ends, 0.0) + weight, LARGEST)
        return Top([_node(row) for row in rows], [(*ends, weight) for ends, weight in edges.items()])

    def _rest(self, rows: Sequence[Any], count: int) -> list[Any]:
        """The next of the top, where nothing more is beside what was chosen."""
        chosen = {row[0] for row in rows}
        following = self._database.execute(_TOP, (len(rows) + count,)) if count else ()
        return [row for row in following if row[0] not in chosen][:count]


@contextlib.contextmanager
def open_index(path: Path) -> Iterator[Index]:
    """Open an index to read it. Raises sqlite3.DatabaseError when it is not there, or damaged."""
    database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        yield Index(database)
    finally:
        database.close()


class BuiltGraph:
    """The graph of an instance, for its plugin (metagov_sdk.graph.GraphReader). All of one call is of one build."""

    def __init__(self, pool: Pool, files: GraphFiles | None, instance_id: str) -> None:
        self._pool = pool
        self._files = files
        self._instance = instance_id
        self._found: tuple[str, Path] | None = None

    async def snapshot(self) -> str:
        """The archive's snapshot that it was built from. Raises errors.Conflict when there is no graph yet."""
        return (await self._built())[0]

    async def top_nodes(self, *, type: str | None = None, limit: int = 10) -> Sequence[GraphNode]:
        """The nodes with the greatest inflow."""
        return await self._read(lambda index: index.top(type, limit))

    async def node(self, address: Address) -> GraphNode | None:
        """One node."""
        found = await self._read(lambda index: index.node(address))
        return None if found is None else found[1]

    async def neighbours(
        self, address: Address, *, edges: Address = (), direction: Direction | None = None, limit: int = 100
    ) -> Sequence[GraphNeighbour]:
        """The edges at a node."""
        return await self._read(lambda index: index.neighbours(address, edges, direction, limit))

    async def _read(self, question: Callable[[Index], ResultT]) -> ResultT:
        _, path = await self._built()

        def ask() -> ResultT:
            with open_index(path) as index:
                return question(index)

        try:
            return await asyncio.to_thread(ask)
        except sqlite3.DatabaseError as error:
            if type(error) is sqlite3.DatabaseError:
                # Damaged: the next build would take it for whole, and leave it as it is.
                path.unlink(missing_ok=True)
            raise errors.Conflict("the graph's index is not there, or damaged; ask for a build") from error

    async def _built(self) -> tuple[str, Path]:
        if self._found is None:
            row = await self._pool.fetchrow(
                "SELECT snapshot, files ->> 'index' AS index, error FROM graphs WHERE instance_id = $1", self._instance
            )
            if self._files is None:
                raise errors.Conflict("this deployment keeps no graphs; set METAGOV_GRAPH_DIR")
            if row is None or row["index"] is None:
                reason = f": {row['error']}" if row is not None and row["error"] else ""
                raise errors.Conflict(f"the graph is not built yet{reason}")
            self._found = row["snapshot"], self._files.path(row["index"])
        return self._found


def _node(row: Any) -> GraphNode:
    return GraphNode(
        address=read_address(row[1]),
        label=row[2],
        type=row[3],
        timestamp_ms=row[4],
        weight=row[5],
        inflow=row[6],
        edges=row[7],
    )
