"""A built graph as plugins see it: its top, and what is next to a node. The host keeps it ready for such questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from metagov_sdk.graph.addresses import Address
from metagov_sdk.models import Model

Direction = Literal["out", "in"]


class GraphNode(Model):
    """A node, or somebody at whom edges end without being one."""

    address: Address
    """Its parts."""
    label: str
    """The node's description (its first thousand characters), or the participant's name where there is no node."""
    type: str | None
    """The name of its type in the declaration."""
    timestamp_ms: float | None
    """Milliseconds since 1970; null for what is of no time."""
    weight: float
    """What the node itself mints, its type's default weight included."""
    inflow: float
    """The weights of all edges, in the direction in which they lead here, added up."""
    edges: int
    """How many edges begin or end here."""


class GraphNeighbour(Model):
    """An edge at a node, and the node at its other end."""

    type: str | None
    """The edge's type, as it is called from where the edge begins."""
    direction: Direction
    """`out`: the edge begins at the node that was asked for."""
    timestamp_ms: float
    forwards: float
    """The edge's weight from its beginning to its end."""
    backwards: float
    node: GraphNode


class GraphReader(Protocol):
    """Reads the graph that was built last for the instance. Raises metagov_sdk.errors.Conflict while there is none."""

    async def snapshot(self) -> str:
        """The archive's snapshot that it was built from."""
        ...

    async def top_nodes(self, *, type: str | None = None, limit: int = 10) -> Sequence[GraphNode]:
        """The nodes with the greatest inflow, or those of one type. Raises errors.Invalid for an unknown type."""
        ...

    async def node(self, address: Address) -> GraphNode | None:
        """One node, or None."""
        ...

    async def neighbours(
        self, address: Address, *, edges: Address = (), direction: Direction | None = None, limit: int = 100
    ) -> Sequence[GraphNeighbour]:
        """The edges at a node, the newest first; only those of the type with the prefix `edges`, if it is given."""
        ...
