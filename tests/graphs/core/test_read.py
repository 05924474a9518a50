"""Graphs that are not what they should be are refused, and the place is named."""

from __future__ import annotations

import copy
import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from metagov_sdk.graph import (
    LIMITS,
    Declaration,
    GraphTooLarge,
    NodeType,
    ReadLimits,
    UnreadableGraph,
    WrongPacking,
    edges,
    read_declaration,
    read_graph,
    read_identities,
    unpack,
    write_declaration,
)

WHOLE: list[Any] = [
    {"type": "sourcecred/weightedGraph", "version": "0.1.0"},
    {
        "graphJSON": [
            {"type": "sourcecred/graph", "version": "0.8.0"},
            {
                "edges": [
                    {"address": ["e", "1"], "dstIndex": 1, "srcIndex": 0, "timestampMs": 5},
                    {"address": ["e", "2"], "dstIndex": 2, "srcIndex": 0, "timestampMs": 6.5},
                ],
                "nodes": [
                    {"description": "first", "index": 0, "timestampMs": None},
                    {"description": "second", "index": 1, "timestampMs": 7},
                ],
                "sortedNodeAddresses": [["a"], ["a", "b"], ["c"]],
            },
        ],
        "weightsJSON": [
            {"type": "sourcecred/weights", "version": "0.2.0"},
            {"edgeWeights": {"E\0e\0": {"backwards": 1, "forwards": 2}}, "nodeWeights": {"N\0a\0": 2, "N\0x\0": 0.5}},
        ],
    },
]
GRAPH, WEIGHTS = WHOLE[1]["graphJSON"][1], WHOLE[1]["weightsJSON"][1]
IN_GRAPH, IN_WEIGHTS = "/1/graphJSON/1", "/1/weightsJSON/1"


def changed(change: Callable[[Any, Any, Any], object]) -> bytes:
    whole = copy.deepcopy(WHOLE)
    change(whole, whole[1]["graphJSON"][1], whole[1]["weightsJSON"][1])
    return json.dumps(whole).encode()


def test_it_is_read() -> None:
    graph = read_graph([json.dumps(WHOLE).encode()])
    assert [(node.address, node.description, node.timestamp_ms) for node in graph.nodes()] == [
        (("a",), "first", None),
        (("a", "b"), "second", 7),
    ]
    assert [(edge.address, edge.src, edge.dst, edge.timestamp_ms) for edge in graph.edges()] == [
        (("e", "1"), ("a",), ("a", "b"), 5),
        (("e", "2"), ("a",), ("c",), 6.5),
    ]
    assert list(graph.node_weights()) == [(("a",), 2), (("x",), 0.5)]
    assert graph.node(("c",)) is None


def test_members_may_come_in_any_order_with_others_between_and_spaces() -> None:
    def turn(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: turn(value[name]) for name in reversed([*value])} | {"other": [1, {"x": "]}"}]}
        return [turn(each) for each in value] if isinstance(value, list) else value

    whole = turn(WHOLE)
    for weights in (whole[1]["weightsJSON"][1]["nodeWeights"], whole[1]["weightsJSON"][1]["edgeWeights"]):
        del weights["other"]
    turned = json.dumps(whole, indent=3).encode()
    assert read_graph([turned]) == read_graph([json.dumps(WHOLE).encode()])
    assert read_graph(turned[at : at + 1] for at in range(len(turned))) == read_graph([turned])


def test_an_address_that_nothing_uses_is_forgotten() -> None:
    plain = read_graph([json.dumps(WHOLE).encode()])
    assert read_graph([changed(lambda _, graph, __: graph["sortedNodeAddresses"].append(["nobody"]))]) == plain


REFUSED: dict[str, tuple[Callable[[Any, Any, Any], object], str]] = {
    "no header": (lambda whole, _, __: whole.pop(0), "/0/type"),
    "another type": (lambda whole, _, __: whole[0].update(type="sourcecred/graph"), "/0/type"),
    "missing version": (lambda whole, _, __: whole[0].pop("version"), "/0/version"),
    "another version": (
        lambda whole, _, __: whole[1]["graphJSON"][0].update(version="0.7.0"),
        "/1/graphJSON/0/version",
    ),
    "missing graph": (lambda whole, _, __: whole[1].pop("graphJSON"), "/1/graphJSON"),
    "missing weights": (lambda whole, _, __: whole[1].pop("weightsJSON"), "/1/weightsJSON"),
    "something behind": (lambda whole, _, __: whole.append(1), "/2"),
    "missing edges": (lambda _, graph, __: graph.pop("edges"), f"{IN_GRAPH}/edges"),
    "edges that are no list": (lambda _, graph, __: graph.update(edges={}), f"{IN_GRAPH}/edges"),
    "an edge that is no object": (lambda _, graph, __: graph["edges"].insert(1, 7), f"{IN_GRAPH}/edges/1"),
    "an index past the end": (
        lambda _, graph, __: graph["edges"][1].update(dstIndex=3),
        f"{IN_GRAPH}/edges/1/dstIndex",
    ),
    "an index far out": (lambda _, graph, __: graph["edges"][1].update(srcIndex=2**40), f"{IN_GRAPH}/edges/1/srcIndex"),
    "a negative index": (lambda _, graph, __: graph["edges"][0].update(srcIndex=-1), f"{IN_GRAPH}/edges/0/srcIndex"),
    "half an index": (lambda _, graph, __: graph["nodes"][1].update(index=0.5), f"{IN_GRAPH}/nodes/1/index"),
    "an index that is true": (lambda _, graph, __: graph["nodes"][1].update(index=True), f"{IN_GRAPH}/nodes/1/index"),
    "no index": (lambda _, graph, __: graph["nodes"][1].pop("index"), f"{IN_GRAPH}/nodes/1/index"),
    "a node past the end": (lambda _, graph, __: graph["nodes"][1].update(index=9), f"{IN_GRAPH}/nodes/1/index"),
    "a node twice": (lambda _, graph, __: graph["nodes"][1].update(index=0), f"{IN_GRAPH}/nodes/1/index"),
    "an address twice": (
        lambda _, graph, __: graph["sortedNodeAddresses"].insert(2, ["a"]),
        f"{IN_GRAPH}/sortedNodeAddresses/2",
    ),
    "NUL in a part": (
        lambda _, graph, __: graph["sortedNodeAddresses"][1].append("x\0"),
        f"{IN_GRAPH}/sortedNodeAddresses/1/2",
    ),
    "NUL in an edge's part": (
        lambda _, graph, __: graph["edges"][0].update(address=["\0e"]),
        f"{IN_GRAPH}/edges/0/address/0",
    ),
    "half a character": (
        lambda _, graph, __: graph["edges"][0]["address"].append("\ud83d"),
        f"{IN_GRAPH}/edges/0/address",
    ),
    "a part that is a number": (
        lambda _, graph, __: graph["sortedNodeAddresses"][0].append(1),
        f"{IN_GRAPH}/sortedNodeAddresses/0/1",
    ),
    "no address": (lambda _, graph, __: graph["edges"][0].pop("address"), f"{IN_GRAPH}/edges/0/address"),
    "no description": (lambda _, graph, __: graph["nodes"][0].pop("description"), f"{IN_GRAPH}/nodes/0/description"),
    "no time": (lambda _, graph, __: graph["nodes"][0].pop("timestampMs"), f"{IN_GRAPH}/nodes/0/timestampMs"),
    "an edge of no time": (
        lambda _, graph, __: graph["edges"][0].update(timestampMs=None),
        f"{IN_GRAPH}/edges/0/timestampMs",
    ),
    "a time past all": (
        lambda _, graph, __: graph["edges"][0].update(timestampMs=10**400),
        f"{IN_GRAPH}/edges/0/timestampMs",
    ),
    "a time that is text": (
        lambda _, graph, __: graph["nodes"][1].update(timestampMs="7"),
        f"{IN_GRAPH}/nodes/1/timestampMs",
    ),
    "a weight that is text": (
        lambda _, __, weights: weights["nodeWeights"].update({"N\0a\0": "2"}),
        f"{IN_WEIGHTS}/nodeWeights/N\0a\0",
    ),
    "a negative weight": (
        lambda _, __, weights: weights["nodeWeights"].update({"N\0x\0": -1}),
        f"{IN_WEIGHTS}/nodeWeights/N\0x\0",
    ),
    "a weight past all": (
        lambda _, __, weights: weights["edgeWeights"]["E\0e\0"].update(forwards=10**400),
        f"{IN_WEIGHTS}/edgeWeights/E\0e\0/forwards",
    ),
    "half an edge's weight": (
        lambda _, __, weights: weights["edgeWeights"]["E\0e\0"].pop("backwards"),
        f"{IN_WEIGHTS}/edgeWeights/E\0e\0/backwards",
    ),
    "an edge's weight for nodes": (
        lambda _, __, weights: weights["nodeWeights"].update({"E\0a\0": 1}),
        f"{IN_WEIGHTS}/nodeWeights/E\0a\0",
    ),
    "a prefix that ends too soon": (
        lambda _, __, weights: weights["nodeWeights"].update({"N\0a/~": 1}),
        f"{IN_WEIGHTS}/nodeWeights/N\0a~1~0",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_and_the_place_named(name: str) -> None:
    change, pointer = REFUSED[name]
    with pytest.raises(UnreadableGraph) as refused:
        read_graph([changed(change)])
    assert refused.value.pointer == pointer
    assert refused.value.reason


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ("", ""),
        ("[", "/0"),
        ("{}", ""),
        ('[{"type":"sourcecred/weightedGraph","version":"0.1.0"},{"graphJSON":NaN', "/1/graphJSON"),
        ("[" * 100_000, "/0"),
        (json.dumps(WHOLE) + "x", ""),
        (json.dumps(WHOLE)[:-1], "/2"),
        (json.dumps(WHOLE).replace("6.5", "Infinity"), f"{IN_GRAPH}/edges/1"),
        (json.dumps(WHOLE).replace("6.5", "1e999"), f"{IN_GRAPH}/edges/1/timestampMs"),
        (json.dumps(WHOLE).replace("6.5", "1" * 5000), f"{IN_GRAPH}/edges/1"),
        (json.dumps(WHOLE).replace("6.5", "[" * 50_000 + "]" * 50_000), f"{IN_GRAPH}/edges/1"),
        (json.dumps(WHOLE).replace('"edges": [', '"edges": [], "edges": ['), f"{IN_GRAPH}/edges"),
        (
            json.dumps(WHOLE).replace('"N\\u0000x\\u0000": 0.5', '"N\\u0000a\\u0000": 0.5'),
            f"{IN_WEIGHTS}/nodeWeights/N\0a\0",
        ),
    ],
)
def test_what_is_hardly_json_is_refused(text: str, pointer: str) -> None:
    with pytest.raises(UnreadableGraph) as refused:
        read_graph([text.encode()])
    assert refused.value.pointer == pointer


def test_edges_of_one_address_may_be_the_same_and_not_differ() -> None:
    again = changed(lambda _, graph, __: graph["edges"].append(graph["edges"][0]))
    assert read_graph([again]).edge_count == 2
    other = changed(lambda _, graph, __: graph["edges"].append({**graph["edges"][0], "timestampMs": 9}))
    with pytest.raises(UnreadableGraph, match="the edge e/1 is there twice: from a to a/b at 5 and from a to a/b at 9"):
        read_graph([other])


def test_a_file_of_nothing_but_one_edge_is_refused_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metagov_sdk.graph.edges.RUN", 100)
    monkeypatch.setattr("metagov_sdk.graph.read._OFTEN", 50)

    def endless() -> Iterator[bytes]:
        yield json.dumps(WHOLE).partition('{"address": ["e", "1"]')[0].encode()
        for at in range(100_000):
            yield b'{"address":["e"],"dstIndex":0,"srcIndex":0,"timestampMs":%d},' % at
        pytest.fail("all of it was read")

    with pytest.raises(UnreadableGraph, match="the edge e is there twice") as refused:
        read_graph(endless())
    assert refused.value.pointer == f"{IN_GRAPH}/edges"


def test_a_weight_that_repeats_a_types_prefix_is_refused() -> None:
    kind = NodeType("Thing", "Things", ("a",), 1, "")
    declaration = Declaration("x", ("a",), ("e",), (kind,), (), ())
    with pytest.raises(UnreadableGraph) as refused:
        read_graph([json.dumps(WHOLE).encode()], declaration=declaration)
    assert refused.value.pointer == f"{IN_WEIGHTS}/nodeWeights/N\0a\0"
    assert "Thing" in refused.value.reason


def test_what_is_not_utf8_is_refused() -> None:
    with pytest.raises(UnreadableGraph, match="not UTF-8"):
        read_graph([json.dumps(WHOLE).encode().replace(b"first", b"fi\xffst")])


PACKED = gzip.compress(json.dumps(WHOLE).encode(), mtime=0)


@pytest.mark.parametrize(
    "data",
    [
        b"\x28\xb5\x2f\xfd\x00zstd",
        b"BZh91AY&SY",
        b"<html>",
        PACKED[:-1],
        PACKED[:20],
        PACKED[:-8] + bytes(8),
        PACKED + b"x",
        PACKED[:40] + b"\xff\xff\xff" + PACKED[43:],
        zlib.compress(json.dumps(WHOLE).encode())[:-2],
        b"\x1f\x8b",
    ],
    ids=[
        "zstd",
        "bzip2",
        "HTML",
        "no end",
        "a piece",
        "another check sum",
        "something behind",
        "damaged",
        "zlib with no end",
        "two bytes",
    ],
)
def test_wrong_packing_is_refused(data: bytes) -> None:
    with pytest.raises(WrongPacking):
        read_graph([data])


def zeros(mebibytes: int, wbits: int, counted: list[int]) -> Iterator[bytes]:
    """So many MiB of spaces, packed, as a hostile server would send them."""
    packer = zlib.compressobj(9, wbits=wbits)
    block = b" " * 2**20
    for _ in range(mebibytes):
        piece = packer.compress(block)
        counted[0] += len(piece)
        yield piece
    yield packer.flush()


@pytest.mark.parametrize("wbits", [15, 31])
def test_a_gigabyte_in_a_megabyte_is_refused_long_before(wbits: int) -> None:
    sent = [0]
    with pytest.raises(GraphTooLarge, match="200 times its size"):
        read_graph(zeros(1024, wbits, sent))
    assert 0 < sent[0] < 200_000


def test_the_bound_holds_for_one_large_piece_too() -> None:
    bomb = zlib.compress(bytes(64 * 2**20), 9)
    sizes: list[int] = []
    with pytest.raises(GraphTooLarge):
        sizes.extend(map(len, unpack([bomb], ReadLimits(unpacked=2**20, ratio=10**9))))
    assert max(sizes) <= 2**18
    assert sum(sizes) <= 2**20


@pytest.mark.parametrize(
    ("limits", "pointer"),
    [
        (ReadLimits(packed=300), ""),
        (ReadLimits(unpacked=300), ""),
        (ReadLimits(nodes=1), f"{IN_GRAPH}/nodes/1"),
        (ReadLimits(edges=1), f"{IN_GRAPH}/edges/1"),
    ],
)
def test_limits_hold(limits: ReadLimits, pointer: str) -> None:
    with pytest.raises(GraphTooLarge) as refused:
        read_graph([json.dumps(WHOLE).encode()], limits)
    assert refused.value.pointer == pointer


@pytest.mark.parametrize(("kind", "weight"), [("nodeWeights", "1"), ("edgeWeights", '{"forwards":1,"backwards":1}')])
def test_weights_cannot_be_endless(kind: str, weight: str) -> None:
    def endless() -> Iterator[bytes]:
        other = {"nodeWeights": "edgeWeights", "edgeWeights": "nodeWeights"}[kind]
        yield b'[{"type":"sourcecred/weightedGraph","version":"0.1.0"},{"weightsJSON":'
        yield f'[{{"type":"sourcecred/weights","version":"0.2.0"}},{{"{other}":{{}},"{kind}":{{'.encode()
        for number in range(1_000_000):
            yield f'"{kind[0].upper()}\\u0000{number}\\u0000":{weight},'.encode()
        pytest.fail("all of it was read")

    with pytest.raises(GraphTooLarge) as refused:
        read_graph(endless(), ReadLimits(nodes=100))
    assert refused.value.pointer == f"/1/weightsJSON/1/{kind}"


def test_an_index_far_out_is_refused_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    # As in a file of millions of edges, which are packed while they are read.
    monkeypatch.setattr(edges, "RUN", 1)
    whole = copy.deepcopy(WHOLE)
    content = {"weightsJSON": whole[1]["weightsJSON"], "graphJSON": whole[1]["graphJSON"]}
    content["graphJSON"][1]["edges"][0]["srcIndex"] = 2**32 - 1
    with pytest.raises(UnreadableGraph) as refused:
        read_graph([json.dumps([whole[0], content]).encode()])
    assert refused.value.pointer == f"{IN_GRAPH}/edges/0/srcIndex"
    assert "4294967295" in refused.value.reason


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1" * 5000])
def test_what_is_no_number_is_said_in_plain_words(number: str) -> None:
    with pytest.raises(UnreadableGraph, match="a number in it is NaN, infinite, or of thousands of digits"):
        read_graph([f'[{{"type":{number}}}]'.encode()])


def test_one_value_cannot_be_endless() -> None:
    def endless() -> Iterator[bytes]:
        yield b'[{"type":"'
        for _ in range(2**20):
            yield b"x" * 2**16
        pytest.fail("all of it was read")

    with pytest.raises(GraphTooLarge) as refused:
        read_graph(endless())
    assert refused.value.pointer == "/0"
    assert LIMITS.element < 2**22


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"name": 7}, "/name"),
        ({"nodePrefix": "E\0s\0"}, "/nodePrefix"),
        ({"nodeTypes": [{}]}, "/nodeTypes/0/name"),
        ({"keys": {"operatorKeys": [], "weightKeys": []}}, "/keys/shareKeys"),
    ],
)
def test_a_declaration_is_checked(change: dict[str, Any], pointer: str) -> None:
    whole = {
        "name": "x",
        "nodePrefix": "N\0s\0",
        "edgePrefix": "E\0s\0",
        "nodeTypes": [],
        "edgeTypes": [],
        "userTypes": [],
        "keys": {"operatorKeys": [], "weightKeys": [], "shareKeys": []},
    }
    assert read_declaration(json.dumps(whole).encode()).node_prefix == ("s",)
    with pytest.raises(UnreadableGraph) as refused:
        read_declaration(json.dumps(whole | change).encode())
    assert refused.value.pointer == pointer


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"name": "with space"}, "/0/name"),
        ({"name": "x\n"}, "/0/name"),
        ({"name": "x" * 43}, "/0/name"),
        ({"type": "ROBOT"}, "/0/type"),
        ({"alias": {"address": "N\0a", "description": ""}}, "/0/alias/address"),
    ],
)
def test_identities_are_checked(change: dict[str, Any], pointer: str) -> None:
    one = {"name": "x", "pluginName": "p", "type": "USER", "alias": {"address": "N\0a\0", "description": ""}}
    assert read_identities(json.dumps([one]).encode())[0].address == ("a",)
    with pytest.raises(UnreadableGraph) as refused:
        read_identities(json.dumps([one | change]).encode())
    assert refused.value.pointer == pointer


def test_a_million_mistakes_are_one() -> None:
    # All of them would take gigabytes.
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableGraph, match=r"^/0: "):
            read_identities(b"[" + b"1," * 300_000 + b"1]")
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_declaration_has_no_more_types_than_can_be_looked_through() -> None:
    kinds = [NodeType("x", "xs", ("s", str(number)), 1, "") for number in range(501)]
    written = write_declaration(Declaration("x", ("s",), ("s",), kinds, (), ()))
    with pytest.raises(UnreadableGraph) as refused:
        read_declaration(written)
    assert refused.value.pointer == "/nodeTypes"
