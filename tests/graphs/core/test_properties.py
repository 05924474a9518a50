"""Whatever comes, in whatever order: the same bytes, and they are read as what was written."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from metagov_sdk.graph import (
    Address,
    Declaration,
    EdgeType,
    EdgeWeight,
    GraphBuilder,
    GraphConflict,
    NodeType,
    UnreadableGraph,
    WeightedGraph,
    has_prefix,
    identity_name,
    merge_graphs,
    read_graph,
    write_graph,
)
from metagov_sdk.graph.addresses import address_of, key_of
from metagov_sdk.graph.identities import IdentityProposal, propose

# Few letters, so that addresses meet, and those whose orders differ between UTF-8, UTF-16 and code points.
parts = st.one_of(
    st.text(
        st.sampled_from(["a", "b", "\x01", '"', "\\", "\x7f", "é", "\ue000", "\ufb01", "\uffff", "👍", "\U0010ffff"]),
        max_size=3,
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6),
)
addresses = st.lists(parts, max_size=4).map(tuple)
times = st.one_of(st.integers(-(2**53), 2**53), st.floats(-(2**53), 2**53, allow_nan=False))
weights = st.floats(0, allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(), max_size=8)


@dataclass
class Content:
    """What a graph is made of."""

    nodes: dict[Address, tuple[str, float | None]] = field(default_factory=dict)
    edges: dict[Address, tuple[Address, Address, float]] = field(default_factory=dict)
    node_weights: dict[Address, float] = field(default_factory=dict)
    edge_weights: dict[Address, EdgeWeight] = field(default_factory=dict)

    def steps(self) -> list[Any]:
        """Calls of a builder that make it."""
        return [
            *(lambda graph, a=a, d=d, t=t: graph.node(a, d, t) for a, (d, t) in self.nodes.items()),
            *(lambda graph, a=a, s=s, d=d, t=t: graph.edge(a, s, d, t) for a, (s, d, t) in self.edges.items()),
            *(lambda graph, a=a, w=w: graph.node_weight(a, w) for a, w in self.node_weights.items()),
            *(
                lambda graph, a=a, w=w: graph.edge_weight(a, w.forwards, w.backwards)
                for a, w in self.edge_weights.items()
            ),
        ]

    def part(self, rng: random.Random) -> Content:
        """Some of it."""
        some = [{key: value for key, value in of.items() if rng.random() < 0.6} for of in vars(self).values()]
        return Content(*some)

    def build(self) -> WeightedGraph:
        """The graph."""
        return run(self.steps())


ends = st.tuples(addresses, addresses, times)
contents = st.builds(
    Content,
    st.dictionaries(addresses, st.tuples(texts, st.none() | times), max_size=6),
    st.dictionaries(addresses, ends, max_size=6),
    st.dictionaries(addresses, weights, max_size=5),
    st.dictionaries(addresses, st.builds(EdgeWeight, weights, weights), max_size=4),
)


def run(steps: list[Any]) -> WeightedGraph:
    graph = GraphBuilder()
    for step in steps:
        step(graph)
    return graph.finish()


def written(graph: WeightedGraph) -> bytes:
    return b"".join(write_graph(graph))


@given(contents, st.randoms(use_true_random=False))
def test_order_and_repetition_never_matter(content: Content, rng: random.Random) -> None:
    steps = content.steps()
    again = [*steps, *rng.sample(steps, len(steps) // 2)]
    rng.shuffle(again)
    assert run(again) == run(steps)
    assert written(run(again)) == written(run(steps))


@given(contents)
def test_what_was_written_is_read(content: Content) -> None:
    graph = content.build()
    data = written(graph)
    back = read_graph([data])
    assert back == graph
    assert written(back) == data
    assert {edge.address: (edge.src, edge.dst, edge.timestamp_ms) for edge in back.edges()} == content.edges
    assert dict(back.node_weights()) == content.node_weights
    assert dict(back.edge_weights()) == content.edge_weights
    assert {node.address: node.timestamp_ms for node in back.nodes()} == {a: t for a, (_, t) in content.nodes.items()}


@given(st.lists(addresses, unique=True))
def test_keys_sort_as_utf16_and_go_back(many: list[Address]) -> None:
    raw = {address: "".join(part + "\0" for part in address) for address in many}
    assert sorted(many, key=key_of) == sorted(many, key=lambda address: raw[address].encode("utf-16-be"))
    assert [address_of(key_of(address)) for address in many] == many


@given(contents, st.randoms(use_true_random=False))
def test_merging_is_union_in_any_order_and_grouping(content: Content, rng: random.Random) -> None:
    one, two, three = (content.part(rng).build() for _ in range(3))
    whole = content.build()
    assert merge_graphs({"a": one, "whole": whole, "b": two}) == whole
    assert merge_graphs({"a": one, "again": one}) == one
    together = merge_graphs({"a": one, "b": two, "c": three})
    assert merge_graphs({"c": three, "b": two, "a": one}) == together
    assert merge_graphs({"ab": merge_graphs({"a": one, "b": two}), "c": three}) == together
    assert merge_graphs({"a": one, "bc": merge_graphs({"b": two, "c": three})}) == together


@given(contents)
def test_any_difference_is_a_conflict_that_is_named(content: Content) -> None:
    assume(content.nodes or content.edges)
    graph = content.build()
    other = Content(
        {address: (text + "!", at) for address, (text, at) in content.nodes.items()},
        {address: (src, dst, at + 1 if at < 2**52 else at - 2048) for address, (src, dst, at) in content.edges.items()},
        {address: weight + 1 if weight < 2**52 else weight / 2 for address, weight in content.node_weights.items()},
    ).build()
    with pytest.raises(GraphConflict) as conflict:
        merge_graphs({"one": graph, "two": other})
    assert len(conflict.value.conflicts) == len(content.nodes) + len(content.edges) + len(content.node_weights)
    assert all("'two'" in each for each in conflict.value.conflicts)


@given(contents)
def test_weights_are_products_over_all_prefixes(content: Content) -> None:
    weighing = content.build().weigh()
    for address in [*content.nodes, *content.edges, ("a", "b", "c", "d", "e")]:
        product, forwards, backwards = 1.0, 1.0, 1.0
        for end in range(len(address) + 1):
            product *= content.node_weights.get(address[:end], 1.0)
            both = content.edge_weights.get(address[:end], EdgeWeight(1.0, 1.0))
            forwards, backwards = forwards * both.forwards, backwards * both.backwards
        assert weighing.node(address) == pytest.approx(product, nan_ok=True)
        edge = weighing.edge(address)
        assert (edge.forwards, edge.backwards) == pytest.approx((forwards, backwards), nan_ok=True)


@given(contents, st.lists(addresses, max_size=4))
def test_all_weights_at_once_are_those_one_by_one(content: Content, prefixes: list[Address]) -> None:
    kinds = [NodeType("a", "b", prefix, 0.1 + place, "") for place, prefix in enumerate(dict.fromkeys(prefixes))]
    edge_kinds = [
        EdgeType("a", "b", kind.prefix, EdgeWeight(kind.default_weight, 1 / (3 + place)), "")
        for place, kind in enumerate(kinds)
    ]
    graph = content.build()
    weighing = graph.weigh(Declaration("made up", (), (), kinds, edge_kinds, ()))
    by_address = dict(zip(map(address_of, graph.node_columns.keys), weighing.all_nodes(), strict=True))
    for node in graph.nodes():
        assert by_address[node.address] == pytest.approx(weighing.node(node.address), nan_ok=True)
    every = zip(graph.edges(), *weighing.all_edges(), strict=True)
    for edge, forwards, backwards in every:
        one = weighing.edge(edge.address)
        assert (forwards, backwards) == pytest.approx((one.forwards, one.backwards), nan_ok=True)


@given(contents, addresses)
def test_the_keys_under_a_prefix_stand_together(content: Content, prefix: Address) -> None:
    keys = content.build().node_columns.keys
    found = keys.under(key_of(prefix))
    assert [has_prefix(address_of(key), prefix) for key in keys] == [place in found for place in range(len(keys))]


@given(contents)
def test_addresses_can_be_put_together_of_keys(content: Content) -> None:
    content = Content(content.nodes, content.edges)
    graph = GraphBuilder()
    numbers = {
        address: graph.keyed_node([key_of((part,)) for part in address], text, at)
        for address, (text, at) in content.nodes.items()
    }
    assume(all(src in numbers and dst in numbers for src, dst, _ in content.edges.values()))
    for address, (src, dst, at) in content.edges.items():
        graph.keyed_edge((key_of(address[:1]), key_of(address[1:])), numbers[src], numbers[dst], at)
    assert graph.finish() == content.build()


@given(contents)
def test_neighbours_are_the_edges_at_a_node(content: Content) -> None:
    graph = content.build()
    for address in [*content.nodes, ("nobody", "at", "all", "there", "is")]:
        at = {edge.address for edge, _ in graph.neighbours(address)}
        assert at == {edge for edge, (src, dst, _) in content.edges.items() if address in (src, dst)}
        for edge, node in graph.neighbours(address):
            other = edge.dst if edge.src == address else edge.src
            assert (node and node.address) == (other if other in content.nodes else None)


@given(st.lists(st.text(st.characters(), max_size=250), max_size=40), st.randoms(use_true_random=False))
def test_names_are_valid_distinct_and_the_same_in_any_order(names: list[str], rng: random.Random) -> None:
    wanted = [IdentityProposal(name, "discord", "USER", ("u", str(index)), "") for index, name in enumerate(names)]
    proposed = propose(wanted, [])
    shuffled = rng.sample(wanted, len(wanted))
    assert propose(shuffled, []) == proposed
    assert len({each.name.lower() for each in proposed}) == len(names)
    for each in proposed:
        assert 1 <= len(each.name) <= 30
        assert len(f"{each.name}-{each.plugin_name}-99") <= 42
        assert each.name.isascii()
        assert each.name.replace("-", "").isalnum()
    # What is a valid name already, and nobody else's, is left as it is.
    for each, name in zip(sorted(proposed, key=lambda one: int(one.address[1])), names, strict=True):
        if name == identity_name(name, "discord", each.address) and sum(name.lower() == n.lower() for n in names) == 1:
            taken = [identity_name(n, "discord", ("u", str(i))).lower() for i, n in enumerate(names)]
            assert taken.count(name.lower()) > 1 or each.name == name


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
@given(content=contents, rng=st.randoms(use_true_random=False))
def test_what_does_not_fit_at_once_is_merged(rows: int, content: Content, rng: random.Random) -> None:
    steps = content.steps()
    again = [*steps, *steps]
    rng.shuffle(again)
    whole = run(steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metagov_sdk.graph.nodes.RUN", rows)
        patch.setattr("metagov_sdk.graph.edges.RUN", rows)
        assert run(again) == whole
        assert read_graph([written(whole)]) == whole
        assert merge_graphs({"one": whole, "two": content.part(rng).build()}) == whole


def test_many_runs_of_many_pages_are_merged() -> None:
    rng = random.Random(5)
    edges = {("e", str(rng.randrange(10**6))): (("n", str(rng.randrange(9999))), ("n", "1"), i) for i in range(30_000)}
    content = Content(edges=edges)  # type: ignore[arg-type]
    whole = content.build()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metagov_sdk.graph.nodes.RUN", 4999)
        patch.setattr("metagov_sdk.graph.edges.RUN", 7001)
        assert content.build() == whole
    assert {edge.address: (edge.src, edge.dst, edge.timestamp_ms) for edge in whole.edges()} == edges


def test_of_very_many_conflicts_the_first_are_named() -> None:
    graphs = {}
    for name, at in (("one", 1), ("two", 2)):
        graph = GraphBuilder()
        for index in range(5000):
            graph.node(("n", f"{index:05}"), name)
            graph.edge(("e", f"{index:05}"), ("n", "00000"), ("n", "00001"), at)
        graphs[name] = graph.finish()
    with pytest.raises(GraphConflict, match="and 9,995 more") as conflict:
        merge_graphs(graphs)
    assert conflict.value.total == 10_000
    assert conflict.value.conflicts[0].startswith("the edge e/00000 is there twice: ")
    assert len(conflict.value.conflicts) == 1000


def test_an_address_twice_is_seen_however_far_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metagov_sdk.graph.nodes.RUN", 1)
    graph = GraphBuilder()
    for index in range(5):
        graph.node((str(index),), "")
    twice = written(graph.finish()).replace(b'["4"]', b'["1"]')
    with pytest.raises(UnreadableGraph, match="the address 1 is there twice"):
        read_graph([twice])
