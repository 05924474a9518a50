"""What the plugin of every rule set offers: derive yours from GraphPlugin[YourConfig], and add actions of its own."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import TypeVar

from metagov_sdk import errors
from metagov_sdk.actions import action
from metagov_sdk.graph.built import GraphNeighbour, GraphNode, GraphReader
from metagov_sdk.graph.rules import GraphConfig
from metagov_sdk.models import Model
from metagov_sdk.plugin import Plugin

GraphConfigT = TypeVar("GraphConfigT", bound=GraphConfig)
Limit = Annotated[int, Field(ge=1, le=100)]
AddressPart = Annotated[str, Field(max_length=1000)]


class TopNodesParams(Model):
    """Which nodes."""

    type: str | None = Field(default=None, max_length=200)
    """Only nodes of this type, by its name in the declaration."""
    limit: Limit = 10
    """How many."""


class TopNodes(Model):
    """The nodes with the greatest inflow, first the greatest."""

    snapshot: str
    """The archive's snapshot that the graph was built from."""
    nodes: list[GraphNode]


class NeighboursParams(Model):
    """Whose neighbours."""

    address: list[AddressPart] = Field(min_length=1, max_length=50)
    """The node's address, part by part."""
    limit: Limit = 50
    """How many."""


class Neighbours(Model):
    """A node and what its edges lead to, the newest first."""

    snapshot: str
    """The archive's snapshot that the graph was built from."""
    node: GraphNode
    neighbours: list[GraphNeighbour]


class GraphPlugin(Plugin[GraphConfigT]):
    """The plugin of a rule set: its graph is built whenever the archive it reads moves."""

    @property
    def graph(self) -> GraphReader:
        """The graph that was built last."""
        if self._call.graph is None:
            raise RuntimeError("only an action of a plugin with a graph can read it: Manifest(…, graph=…)")
        return self._call.graph

    @action("top-nodes")
    async def top_nodes(self, params: TopNodesParams) -> TopNodes:
        """The nodes that most of the weight leads to. It is no score: that is SourceCred's to say."""
        nodes = await self.graph.top_nodes(type=params.type, limit=params.limit)
        return TopNodes(snapshot=await self.graph.snapshot(), nodes=list(nodes))

    @action("neighbours")
    async def neighbours(self, params: NeighboursParams) -> Neighbours:
        """The edges at a node, each with the node at its other end."""
        address = tuple(params.address)
        node = await self.graph.node(address)
        if node is None:
            raise errors.NotFound("the graph has no node with this address")
        found = await self.graph.neighbours(address, limit=params.limit)
        return Neighbours(snapshot=await self.graph.snapshot(), node=node, neighbours=list(found))
