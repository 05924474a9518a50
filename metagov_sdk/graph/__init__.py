"""Graphs from archives, in the formats of SourceCred 0.11.2: what rule sets import, and what reads and writes files.

class Props(GraphRules[PropsConfig]): …            archive rows → nodes, edges, weights, participants
built = await build_graph(Props(config), archive)
for piece in write_graph(built.graph): …
"""

from metagov_sdk.graph.addresses import Address, has_prefix
from metagov_sdk.graph.builder import GraphBuilder
from metagov_sdk.graph.declaration import (
    Declaration,
    EdgeType,
    EdgeWeight,
    NodeType,
    read_declaration,
    write_declaration,
)
from metagov_sdk.graph.errors import (
    GraphConflict,
    GraphError,
    GraphTooLarge,
    UnreadableGraph,
    WrongGraph,
    WrongPacking,
)
from metagov_sdk.graph.graph import Edge, Node, Weighing, WeightedGraph
from metagov_sdk.graph.identities import (
    IdentityProposal,
    IdentityType,
    identity_names,
    read_identities,
    write_identities,
)
from metagov_sdk.graph.read import LIMITS, ReadLimits, read_graph, unpack
from metagov_sdk.graph.rules import GraphConfig, GraphInput, GraphRules, PublishedGraph, build_graph
from metagov_sdk.graph.write import Packing, pack, write_graph

__all__ = [
    "LIMITS",
    "Address",
    "Declaration",
    "Edge",
    "EdgeType",
    "EdgeWeight",
    "GraphBuilder",
    "GraphConfig",
    "GraphConflict",
    "GraphError",
    "GraphInput",
    "GraphRules",
    "GraphTooLarge",
    "IdentityProposal",
    "IdentityType",
    "Node",
    "NodeType",
    "Packing",
    "PublishedGraph",
    "ReadLimits",
    "UnreadableGraph",
    "Weighing",
    "WeightedGraph",
    "WrongGraph",
    "WrongPacking",
    "build_graph",
    "has_prefix",
    "identity_names",
    "pack",
    "read_declaration",
    "read_graph",
    "read_identities",
    "unpack",
    "write_declaration",
    "write_graph",
    "write_identities",
]
