"""Graphs from archives, in the formats of SourceCred 0.11.2: what rule sets import, and what reads and writes files.

class Props(GraphRules[PropsConfig]): …            archive rows → nodes, edges, weights, participants
built = await build_graph(Props(config), archive)
for piece in write_graph(built.graph): …
"""

from metagov_sdk.graph.addresses import Address, Key, has_prefix, key_of
from metagov_sdk.graph.builder import GraphBuilder, merge_graphs
from metagov_sdk.graph.built import Direction, GraphNeighbour, GraphNode, GraphReader
from metagov_sdk.graph.declaration import Declaration, EdgeType, NodeType, join_declarations, write_declaration
from metagov_sdk.graph.documents import read_declaration, read_identities
from metagov_sdk.graph.errors import (
    GraphConflict,
    GraphError,
    GraphTooLarge,
    UnreadableGraph,
    WrongGraph,
    WrongPacking,
)
from metagov_sdk.graph.graph import Edge, Node, WeightedGraph
from metagov_sdk.graph.identities import IdentityProposal, IdentityType, identity_name, write_identities
from metagov_sdk.graph.read import read_graph
from metagov_sdk.graph.rules import GraphConfig, GraphInput, GraphRules, PublishedGraph, build_graph
from metagov_sdk.graph.unpack import LIMITS, ReadLimits, unpack
from metagov_sdk.graph.weighing import Weighing
from metagov_sdk.graph.weights import EdgeWeight
from metagov_sdk.graph.write import Packing, pack, write_graph

__all__ = [
    "LIMITS",
    "Address",
    "Declaration",
    "Direction",
    "Edge",
    "EdgeType",
    "EdgeWeight",
    "GraphBuilder",
    "GraphConfig",
    "GraphConflict",
    "GraphError",
    "GraphInput",
    "GraphNeighbour",
    "GraphNode",
    "GraphReader",
    "GraphRules",
    "GraphTooLarge",
    "IdentityProposal",
    "IdentityType",
    "Key",
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
    "identity_name",
    "join_declarations",
    "key_of",
    "merge_graphs",
    "pack",
    "read_declaration",
    "read_graph",
    "read_identities",
    "unpack",
    "write_declaration",
    "write_graph",
    "write_identities",
]
