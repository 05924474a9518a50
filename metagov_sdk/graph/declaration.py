"""What kinds of nodes and edges a rule set makes, and their default weights: SourceCred's plugin declaration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from metagov_sdk.graph.addresses import Address


@dataclass(frozen=True, slots=True)
class EdgeWeight:
    """How much of its score an edge passes on, from src to dst and back. Not negative."""

    forwards: float
    backwards: float


@dataclass(frozen=True, slots=True)
class NodeType:
    """The nodes whose addresses begin with `prefix`."""

    name: str
    plural_name: str
    prefix: Address
    default_weight: float
    description: str


@dataclass(frozen=True, slots=True)
class EdgeType:
    """The edges whose addresses begin with `prefix`; named as seen from src (forward) and from dst (backward)."""

    forward_name: str
    backward_name: str
    prefix: Address
    default_weight: EdgeWeight
    description: str


@dataclass(frozen=True, slots=True)
class Declaration:
    """A rule set's kinds of nodes and edges. All addresses of its nodes begin with `node_prefix`, and so on.

    user_types: those of the node types that are participants.
    Raises WrongGraph when two types have one prefix or a type's prefix lies outside of the declaration's.
    """

    name: str
    node_prefix: Address
    edge_prefix: Address
    node_types: Sequence[NodeType]
    edge_types: Sequence[EdgeType]
    user_types: Sequence[NodeType]
    operator_keys: Sequence[str] = ()
    weight_keys: Sequence[str] = ()
    share_keys: Sequence[str] = ()


def write_declaration(declaration: Declaration) -> bytes:
    """`declaration.json`, as SourceCred's external plugin reads it."""
    raise NotImplementedError


def read_declaration(data: bytes) -> Declaration:
    """What is in a `declaration.json` (plain, zlib or gzip). Raises UnreadableGraph."""
    raise NotImplementedError
