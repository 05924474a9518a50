"""The index beside a graph's files answers as the graph does."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from app.graphs.index import write_index
from app.graphs.reader import Index, open_index
from metagov_sdk.graph import (
    Address,
    Declaration,
    EdgeType,
    EdgeWeight,
    GraphBuilder,
    NodeType,
    PublishedGraph,
)

_PEOPLE, _TALK = NodeType("Person", "People", ("town", "P"), 2, ""), NodeType("Talk", "Talks", ("town",), 3, "")
_SAYS = EdgeType("says", "is said by", ("town", "SAYS"), EdgeWeight(1, 0.5), "")
_DECLARATION = Declaration("Town", ("town",), ("town",), (_PEOPLE, _TALK), (_SAYS,), (_PEOPLE,))
_MESSAGES = 9000
"""More than two pages."""


def _person(number: int) -> Address:
    # U+FE0F comes after the emoji by code units, and before it by code points.
    return ("town", "P", "👍" * (number % 2) + "\ufe0f" * (number % 3), str(number))


def _message(number: int) -> Address:
    return ("town", "M", str(number * 7919 % _MESSAGES))


@pytest.fixture(scope="module")
def published() -> PublishedGraph:
    """Four people say everything; some who take part are nodes, one is only an end, others are not in the graph."""
    graph = GraphBuilder("town")
    for number in range(20):
        graph.participant(_person(number), f"person {number}")
        if number % 4:
            graph.node(_person(number), f"Person <{number}> \ud83d", None, weight=number)
    for number in range(_MESSAGES):
        graph.node(_message(number), f"message {number}", number)
        # The first of them is an end that nothing describes; every fourth of the others is in no graph at all.
        graph.edge(("town", "SAYS", str(number)), _person(number % 4), _message(number), number)
    graph.edge_weight(("town", "SAYS", "1"), 10, 1)
    return PublishedGraph(graph.finish(), _DECLARATION, graph.identities())


@pytest.fixture(scope="module")
def path(published: PublishedGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("index") / "index"
    write_index(published, found, lambda done, total: None)
    return found


@pytest.fixture
def index(path: Path) -> object:
    with open_index(path) as opened:
        yield opened


def test_every_address_is_found(published: PublishedGraph, index: Index) -> None:
    weigh = published.graph.weigh(_DECLARATION)
    for node in random.Random(7).sample(list(published.graph.nodes()), 400):
        found = index.node(node.address)
        assert found is not None
        assert (found[1].address, found[1].timestamp_ms) == (node.address, node.timestamp_ms)
        assert found[1].label == node.description.replace("\ud83d", "?")
        assert found[1].weight == weigh.node(node.address)
    for number in range(20):
        found = index.node(_person(number))
        assert found is not None
        assert found[1].type == "Person"
        assert found[1].weight == (2 * 3 * number if number % 4 else 0)
        assert found[1].label == (f"Person <{number}> ?" if number % 4 else f"person-{number}")


def test_other_addresses_are_not(index: Index) -> None:
    for address in [(), ("town",), ("town", "P"), (*_person(3), ""), ("town", "M", str(_MESSAGES)), ("\0",), ("zz",)]:
        assert index.node(address) is None
        assert index.neighbours(address, (), None, 10) == []


def test_edges_flow_by_their_weights(index: Index) -> None:
    quarter = _MESSAGES // 4
    inflow = {}
    for number in range(4):
        found = index.node(_person(number))
        assert found is not None
        inflow[number] = found[1].inflow
        assert found[1].edges == quarter
    assert inflow == {0: 0.5 * quarter, 1: 0.5 * quarter, 2: 0.5 * quarter, 3: 0.5 * quarter}
    said = index.neighbours(_person(1), (), "out", 2)
    assert [(each.type, each.timestamp_ms) for each in said] == [("says", _MESSAGES - 3), ("says", _MESSAGES - 7)]
    [first] = index.neighbours(_message(1), (), None, 5)
    assert (first.direction, first.forwards, first.backwards) == ("in", 10, 0.5)
    assert first.node.address == _person(1)


def test_types_are_counted(published: PublishedGraph, index: Index) -> None:
    people, talks = index.node_types()
    numbers = [number for number in range(20) if number % 4]
    assert (people.name, people.count, people.weight) == ("People", 15, 2.0 * 3 * sum(numbers))
    assert (talks.count, talks.weight) == (_MESSAGES, 3 * _MESSAGES)
    [says] = index.edge_types()
    assert (says.count, says.weight, says.backwards) == (_MESSAGES, _MESSAGES + 9, 0.5 * _MESSAGES)
    assert index.top("Talk", 1)[0].address == _message(1)


def test_a_picture_has_what_joins_the_top(index: Index) -> None:
    picture = index.picture(9)
    kinds = [node.type for node in picture.nodes]
    assert (kinds.count("Person"), kinds.count("Talk")) == (3, 6)
    assert len({node.address for node in picture.nodes}) == 9
    assert len(picture.edges) == 6
    assert all({kinds[src], kinds[dst]} == {"Person", "Talk"} for src, dst, _ in picture.edges)


@pytest.mark.parametrize("limit", [1, 2, 40])
def test_a_picture_is_as_large_as_it_should_be(index: Index, limit: int) -> None:
    assert len(index.picture(limit).nodes) == limit


def test_weights_past_the_largest_number_are_the_largest(tmp_path: Path) -> None:
    graph = GraphBuilder("town")
    graph.node_weight((), 1e300)
    graph.edge_weight((), 1e300, 0)
    for number in range(3):
        graph.node(_message(number), "", 1, weight=1e300)
        graph.edge(("town", "SAYS", str(number)), _message(number), _message(0), 1)
        graph.edge_weight(("town", "SAYS", str(number)), 1e300 if number else 1e8, 1)
    # 1e300 times 1e300 times 0
    graph.node(("town", "P", "0"), "", 1, weight=0)
    graph.node_weight(("town",), 1e300)
    kinds = replace(_DECLARATION, node_types=(_PEOPLE, replace(_TALK, prefix=("town", "M"), default_weight=1)))
    path = tmp_path / "index"
    write_index(PublishedGraph(graph.finish(), kinds), path, lambda done, total: None)
    most = sys.float_info.max
    with open_index(path) as index:
        assert [(each.weight, each.inflow) for each in index.top(None, 4)] == [
            (most, most),
            (most, 0),
            (most, 0),
            (0, 0),
        ]
        assert [each.weight for each in index.node_types()] == [0, most]
        assert [(each.weight, each.backwards) for each in index.edge_types()] == [(most, 0)]
        assert {weight for _, _, weight in index.picture(4).edges} == {most}


def test_types_with_halves_of_characters_in_their_names_are_kept(tmp_path: Path) -> None:
    odd = replace(_TALK, name="\ud83d", plural_name="\ude00")
    kinds = replace(
        _DECLARATION, node_types=(odd,), edge_types=(replace(_SAYS, forward_name="a\ud83d"),), user_types=()
    )
    path = tmp_path / "index"
    write_index(PublishedGraph(GraphBuilder("town").finish(), kinds), path, lambda done, total: None)
    with open_index(path) as index:
        assert [each.name for each in (*index.node_types(), *index.edge_types())] == ["?", "a?"]


def test_a_label_is_no_novel(tmp_path: Path) -> None:
    graph = GraphBuilder("town")
    graph.node(("town", "M", "1"), "novel" * 200_000, 1)
    path = tmp_path / "index"
    write_index(PublishedGraph(graph.finish(), _DECLARATION), path, lambda done, total: None)
    with open_index(path) as index:
        assert [each.label for each in index.top(None, 1)] == ["novel" * 200]
