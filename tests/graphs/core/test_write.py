"""What is written is what SourceCred writes, byte for byte."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from metagov_sdk.graph import (
    Declaration,
    EdgeType,
    EdgeWeight,
    GraphBuilder,
    IdentityProposal,
    NodeType,
    WeightedGraph,
    WrongGraph,
    pack,
    read_declaration,
    read_graph,
    read_identities,
    write_declaration,
    write_graph,
    write_identities,
)
from metagov_sdk.graph.javascript import number

DATA = Path(__file__).parent.parent / "data" / "core"
CASES: dict[str, Any] = json.loads((DATA / "cases.json").read_text())


def build(case: dict[str, Any]) -> WeightedGraph:
    graph = GraphBuilder()
    for prefix, weight in case["nodeWeights"]:
        graph.node_weight(tuple(prefix), weight)
    for prefix, forwards, backwards in case["edgeWeights"]:
        graph.edge_weight(tuple(prefix), forwards, backwards)
    for address, src, dst, at in reversed(case["edges"]):
        graph.edge(tuple(address), tuple(src), tuple(dst), at)
    for address, description, at in case["nodes"]:
        graph.node(tuple(address), description, at)
    return graph.finish()


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_sourcecred_writes(name: str) -> None:
    expected = (DATA / f"{name}.graph.json").read_bytes()
    assert b"".join(write_graph(build(CASES[name]))) == expected


@pytest.mark.parametrize("name", CASES)
def test_what_sourcecred_writes_is_read(name: str) -> None:
    data = (DATA / f"{name}.graph.json").read_bytes()
    graph = read_graph([data])
    assert graph == build(CASES[name])
    assert b"".join(write_graph(graph)) == data


def test_order_of_adding_never_shows() -> None:
    case = CASES["hostile"]
    shuffled = {name: rows[::-1] for name, rows in case.items()}
    assert b"".join(write_graph(build(shuffled))) == b"".join(write_graph(build(case)))


def test_many_pages_are_written_as_one() -> None:
    graph = GraphBuilder()
    for index in range(9000):
        graph.node(("n", str(index)), f"number {index}", index, weight=index / 8)
        graph.edge(("e", str(index)), ("n", str(index)), ("n", str(index * 7 % 9000)), index)
    document = json.loads(b"".join(write_graph(graph.finish())))
    (_, inner), (_, weights) = document[1]["graphJSON"], document[1]["weightsJSON"]
    addresses = [tuple(parts) for parts in inner["sortedNodeAddresses"]]
    assert addresses == sorted(("n", str(index)) for index in range(9000))
    assert [edge["address"] for edge in inner["edges"]] == [["e", name] for _, name in addresses]
    for edge in inner["edges"]:
        index = int(edge["address"][1])
        assert addresses[edge["srcIndex"]] == ("n", str(index))
        assert addresses[edge["dstIndex"]] == ("n", str(index * 7 % 9000))
    assert {node["description"] for node in inner["nodes"]} == {f"number {index}" for index in range(9000)}
    assert weights["nodeWeights"]["N\0n\x008999\0"] == 8999 / 8
    assert len(weights["nodeWeights"]) == 9000


@pytest.mark.parametrize("packing", ["gzip", "zlib"])
def test_packed_twice_it_is_the_same(packing: Any) -> None:
    graph = build(CASES["hostile"])
    packed = b"".join(pack(write_graph(graph), packing))
    assert packed == b"".join(pack(write_graph(graph), packing))
    unpack_it = gzip.decompress if packing == "gzip" else zlib.decompress
    assert unpack_it(packed) == b"".join(write_graph(graph))
    assert read_graph([packed]) == graph
    assert read_graph(packed[at : at + 1] for at in range(len(packed))) == graph


@pytest.mark.parametrize(
    "wrong",
    [
        lambda graph: graph.node(("a\0b",), "x"),
        lambda graph: graph.node(("a", "\ud800"), "x"),
        lambda graph: graph.edge(("e\0",), ("a",), ("b",), 1),
        lambda graph: graph.edge(("e",), ("a\0b",), ("b",), 1),
        lambda graph: graph.edge(("e",), ("a",), ("é\0",), 1),
        lambda graph: graph.edge(("e",), ("a",), ("b",), float("nan")),
        lambda graph: graph.edge(("e",), ("a",), ("b",), float("inf")),
        lambda graph: graph.node(("a",), "x", 2**54),
        lambda graph: graph.node(("a",), "x", 1, weight=-1),
        lambda graph: graph.node_weight(("a",), float("nan")),
        lambda graph: graph.edge_weight(("a",), 1, float("inf")),
        lambda graph: graph.participant(("a\0",), "x"),
    ],
)
def test_what_no_graph_can_hold_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(WrongGraph):
        wrong(GraphBuilder())


def test_numbers_are_javascripts() -> None:
    # Each as `JSON.stringify` of node 20 has it.
    assert [number(value) for value in (0.0, -0.0, 1e21, 1e20, -1.5, 1e-6, 1e-7, -1e-7, 0.1 + 0.2, 5e-324)] == [
        *("0", "0", "1e+21", "100000000000000000000", "-1.5", "0.000001", "1e-7", "-1e-7"),
        *("0.30000000000000004", "5e-324"),
    ]


MEMBER = NodeType("Member", "Members", ("s", "MEMBER"), 0, "Somebody")
WROTE = EdgeType("wrote", "was written by", ("s", "WROTE"), EdgeWeight(0.25, 1), "Somebody wrote it")
DECLARATION = Declaration("Some“thing", ("s",), ("s",), (MEMBER,), (WROTE,), (MEMBER,), weight_keys=("k",))


def test_a_declaration_is_sourcecreds_and_comes_back() -> None:
    written = write_declaration(DECLARATION)
    member = (
        '{"defaultWeight":0,"description":"Somebody","name":"Member",'
        '"pluralName":"Members","prefix":"N\\u0000s\\u0000MEMBER\\u0000"}'
    )
    assert written.decode() == (
        '{"edgePrefix":"E\\u0000s\\u0000","edgeTypes":[{"backwardName":"was written by",'
        '"defaultWeight":{"backwards":1,"forwards":0.25},"description":"Somebody wrote it","forwardName":"wrote",'
        '"prefix":"E\\u0000s\\u0000WROTE\\u0000"}],"keys":{"operatorKeys":[],"shareKeys":[],"weightKeys":["k"]},'
        f'"name":"Some“thing","nodePrefix":"N\\u0000s\\u0000","nodeTypes":[{member}],"userTypes":[{member}]}}'
    )
    assert read_declaration(written) == DECLARATION
    assert read_declaration(gzip.compress(written)) == DECLARATION


def test_a_declaration_has_one_type_for_a_prefix() -> None:
    with pytest.raises(WrongGraph, match="two types of one prefix"):
        Declaration("x", (), (), (MEMBER, NodeType("Other", "Others", MEMBER.prefix, 1, "")), (), ())


def test_identities_are_written_by_address_and_come_back() -> None:
    proposals = [
        IdentityProposal("b-c", "discord", "BOT", ("s", "2"), "discord/<b>"),
        IdentityProposal("a", "discord", "USER", ("s", "1"), ""),
    ]
    written = write_identities(proposals)
    assert written.decode() == (
        '[{"alias":{"address":"N\\u0000s\\u00001\\u0000","description":""},"name":"a","pluginName":"discord",'
        '"type":"USER"},{"alias":{"address":"N\\u0000s\\u00002\\u0000","description":"discord/<b>"},"name":"b-c",'
        '"pluginName":"discord","type":"BOT"}]'
    )
    assert read_identities(written) == proposals[::-1]
    assert read_identities(zlib.compress(written)) == proposals[::-1]
