"""Weights, and those of whole groups of nodes and edges, by the prefix of their addresses."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from metagov_sdk.graph.addresses import show
from metagov_sdk.graph.errors import WrongGraph


@dataclass(frozen=True, slots=True)
class EdgeWeight:
    """How much of its score an edge passes on, from src to dst and back. Not negative."""

    forwards: float
    backwards: float


@dataclass(slots=True)
class PrefixWeights:
    """By key of a prefix, what was set for it. Addresses of the graph's own nodes are kept with them."""

    nodes: dict[str, float]
    edges: dict[str, EdgeWeight]


def check_weight(weight: float, key: str) -> float:
    """The weight as a float. Raises WrongGraph when it is negative or not finite."""
    if not 0 <= weight < inf:
        raise WrongGraph(f"the weight of {show(key) or 'everything'} is {weight}; it should be 0 or more, and finite")
    # Of zeros there are two, which are written alike.
    return float(weight) + 0.0
