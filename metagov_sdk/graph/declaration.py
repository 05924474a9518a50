"""What kinds of nodes and edges a rule set makes, and their default weights: SourceCred's plugin declaration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import TypeVar

from metagov_sdk.graph.addresses import Address, key_of, raw, show_parts
from metagov_sdk.graph.errors import GraphConflict, WrongGraph
from metagov_sdk.graph.javascript import dump, encode
from metagov_sdk.graph.weights import EdgeWeight


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
    Raises WrongGraph when two types have one prefix, and for weights that are negative or not finite.
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

    def __post_init__(self) -> None:
        for kinds in (self.node_types, self.edge_types, self.user_types):
            if len({key_of(kind.prefix) for kind in kinds}) != len(kinds):
                raise WrongGraph(f"the declaration {self.name!r} has two types of one prefix")
        weights = [kind.default_weight for kind in self.node_types]
        for each in self.edge_types:
            weights += [each.default_weight.forwards, each.default_weight.backwards]
        if not all(0 <= weight < inf for weight in weights):
            raise WrongGraph(f"the declaration {self.name!r} has a weight that is negative or not finite")


def join_declarations(first: Declaration, others: Iterable[Declaration]) -> Declaration:
    """One that has the types of all, and otherwise is the first. Raises GraphConflict when types of a prefix differ."""
    joined = first
    for other in others:
        joined = replace(
            joined,
            node_types=_joined(joined.node_types, other.node_types),
            edge_types=_joined(joined.edge_types, other.edge_types),
            user_types=_joined(joined.user_types, other.user_types),
        )
    return joined


TypeT = TypeVar("TypeT", NodeType, EdgeType)


def _joined(first: Sequence[TypeT], second: Sequence[TypeT]) -> Sequence[TypeT]:
    by_prefix = {kind.prefix: kind for kind in first}
    differ = [kind.prefix for kind in second if by_prefix.setdefault(kind.prefix, kind) != kind]
    if differ:
        raise GraphConflict([f"the type at {show_parts(prefix)} is declared in two ways" for prefix in differ])
    return tuple(by_prefix.values())


def write_declaration(declaration: Declaration) -> bytes:
    """`declaration.json`, as SourceCred's external plugin reads it."""
    node_types = {kind.prefix: _node_type(kind) for kind in (*declaration.node_types, *declaration.user_types)}
    document = {
        "name": declaration.name,
        "nodePrefix": raw("N", declaration.node_prefix),
        "edgePrefix": raw("E", declaration.edge_prefix),
        "nodeTypes": [node_types[kind.prefix] for kind in declaration.node_types],
        "edgeTypes": [_edge_type(kind) for kind in declaration.edge_types],
        "userTypes": [node_types[kind.prefix] for kind in declaration.user_types],
        "keys": {
            "operatorKeys": list(declaration.operator_keys),
            "weightKeys": list(declaration.weight_keys),
            "shareKeys": list(declaration.share_keys),
        },
    }
    return encode(dump(document))


def _node_type(kind: NodeType) -> dict[str, object]:
    return {
        "name": kind.name,
        "pluralName": kind.plural_name,
        "prefix": raw("N", kind.prefix),
        "defaultWeight": kind.default_weight,
        "description": kind.description,
    }


def _edge_type(kind: EdgeType) -> dict[str, object]:
    weight = kind.default_weight
    return {
        "forwardName": kind.forward_name,
        "backwardName": kind.backward_name,
        "prefix": raw("E", kind.prefix),
        "defaultWeight": {"forwards": weight.forwards, "backwards": weight.backwards},
        "description": kind.description,
    }
