"""Rule sets: how a manifest lists them, how they are run, and what becomes of inputs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from metagov_sdk import Config, Manifest, ManifestError, Plugin
from metagov_sdk.archive import ArchiveReader, MissingFields, Row
from metagov_sdk.graph import (
    Declaration,
    EdgeType,
    EdgeWeight,
    GraphBuilder,
    GraphConfig,
    GraphConflict,
    GraphRules,
    IdentityProposal,
    NodeType,
    PublishedGraph,
    WrongGraph,
)
from metagov_sdk.testing import ArchiveInMemory, ContractError, build_graph_of


class Post(Row, table="forum.post"):
    """A post."""

    id: str
    author: str


class ForumConfig(GraphConfig):
    """Which forum."""

    source: str = "forum"


class Forum(Plugin[ForumConfig]):
    """Who wrote what."""

    name = "forum-graph"


PREFIX = ("forum",)
PERSON = NodeType("Person", "People", (*PREFIX, "PERSON"), 0, "Somebody")
POST = NodeType("Post", "Posts", (*PREFIX, "POST"), 1, "What was posted")
WROTE = EdgeType("wrote", "was written by", (*PREFIX, "WROTE"), EdgeWeight(0.5, 1), "Somebody wrote it")


class ForumGraph(GraphRules[ForumConfig]):
    """People and their posts."""

    plugin_name = "forum"

    def declaration(self) -> Declaration:
        return Declaration("Forum", PREFIX, PREFIX, (PERSON, POST), (WROTE,), (PERSON,))

    async def build(self, archive: ArchiveReader, graph: GraphBuilder, inputs: Mapping[str, PublishedGraph]) -> None:
        async for post in archive.rows(Post):
            person, written = (*PERSON.prefix, post.author), (*POST.prefix, post.id)
            graph.node(person, post.author)
            graph.participant(person, post.author)
            graph.node(written, f"Post {post.id}", 1_600_000_000_000)
            graph.edge((*WROTE.prefix, post.author, post.id), person, written, 1_600_000_000_000)


MANIFEST = Manifest(Forum, graph=ForumGraph)
POSTS = {"forum.post": [{"id": str(index), "author": f"name {index % 3}"} for index in range(7)]}


async def test_rules_make_a_graph_of_an_archive() -> None:
    built = await build_graph_of(MANIFEST, POSTS)
    assert (built.graph.node_count, built.graph.edge_count) == (10, 7)
    assert built.declaration == ForumGraph(ForumConfig()).declaration()
    assert [(each.name, each.plugin_name, each.address[-1]) for each in built.identities] == [
        ("name-0", "forum", "name 0"),
        ("name-1", "forum", "name 1"),
        ("name-2", "forum", "name 2"),
    ]
    weigh = built.graph.weigh(built.declaration)
    assert weigh.node(("forum", "PERSON", "name 0")) == 0
    assert weigh.edge(("forum", "WROTE", "name 0", "0")) == EdgeWeight(0.5, 1)


async def test_a_table_that_lacks_a_field_is_named() -> None:
    with pytest.raises(MissingFields, match=r"forum\.post has no author"):
        await build_graph_of(MANIFEST, ArchiveInMemory({"forum.post": [{"id": "1"}]}))


async def test_a_config_that_is_wrong_is_refused_where_it_is() -> None:
    with pytest.raises(ValidationError) as refused:
        await build_graph_of(MANIFEST, POSTS, config={"inputs": [{"name": "Not a name"}]})
    assert refused.value.errors()[0]["loc"] == ("inputs", 0, "name")


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"name": "x"}, ()),
        ({"name": "x", "plugin": "props", "graph_url": "https://example.org/graph"}, ()),
        ({"name": "x", "plugin": "props", "declaration_url": "https://example.org/d"}, ()),
    ],
)
async def test_an_input_is_a_plugins_or_a_urls(given: dict[str, Any], place: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as refused:
        ForumConfig.model_validate({"inputs": [given]})
    assert refused.value.errors()[0]["loc"] == ("inputs", 0, *place)


def test_two_inputs_have_two_names() -> None:
    one = {"name": "x", "plugin": "props"}
    with pytest.raises(ValidationError, match="two inputs"):
        ForumConfig.model_validate({"inputs": [one, one]})


async def test_rules_that_are_not_pure_are_caught() -> None:
    counter = itertools.count()

    class Impure(ForumGraph):
        """Counts."""

        async def build(self, archive: Any, graph: GraphBuilder, inputs: Any) -> None:
            graph.node(("forum", "POST", "x"), f"made {next(counter)} times")

    with pytest.raises(ContractError, match=r"graph\.json is another the second time"):
        await build_graph_of(Manifest(Forum, graph=Impure), POSTS)


def other_graph(weight: float = 2) -> PublishedGraph:
    builder = GraphBuilder("elsewhere")
    builder.node(("elsewhere", "a"), "A", None, weight=weight)
    builder.edge(("elsewhere", "e"), ("elsewhere", "a"), ("forum", "POST", "1"), 5)
    kind = NodeType("Thing", "Things", ("elsewhere", "THING"), 3, "")
    declaration = Declaration("Elsewhere", ("elsewhere",), ("elsewhere",), (kind,), (), ())
    proposals = [IdentityProposal("name-1", "elsewhere", "USER", ("elsewhere", "a"), "")]
    return PublishedGraph(builder.finish(), declaration, proposals)


INPUT = {"name": "other", "plugin": "other-graph"}


async def test_an_input_is_merged_with_its_types_and_people() -> None:
    config = {"inputs": [INPUT]}
    built = await build_graph_of(MANIFEST, POSTS, config=config, inputs={"other": other_graph()})
    assert built.graph.node(("elsewhere", "a")) is not None
    assert [edge.address for edge, _ in built.graph.neighbours(("elsewhere", "a"))] == [("elsewhere", "e")]
    assert list(built.graph.node_weights()) == [(("elsewhere", "a"), 2)]
    assert built.declaration is not None
    assert [kind.name for kind in built.declaration.node_types] == ["Person", "Post", "Thing"]
    assert built.declaration.node_prefix == PREFIX
    assert [each.name for each in built.identities] == ["name-1-2", "name-0", "name-1", "name-2"]


async def test_an_input_that_is_only_read_is_not_merged() -> None:
    class Counts(ForumGraph):
        """Says how large its input is."""

        inputs: ClassVar[tuple[str, ...]] = ("other",)

        async def build(self, archive: Any, graph: GraphBuilder, inputs: Mapping[str, PublishedGraph]) -> None:
            graph.node(("forum", "POST", "count"), f"{inputs['other'].graph.node_count} nodes there")

    manifest = Manifest(Forum, graph=Counts)
    given = {"other": other_graph()}
    built = await build_graph_of(manifest, POSTS, config={"inputs": [{**INPUT, "merge": False}]}, inputs=given)
    assert [node.description for node in built.graph.nodes()] == ["1 nodes there"]
    assert built.identities == []
    with pytest.raises(WrongGraph, match="there is no input 'other'"):
        await build_graph_of(manifest, POSTS)


async def test_conflicts_with_an_input_are_named() -> None:
    builder = GraphBuilder()
    builder.node(("forum", "POST", "1"), "Another description")
    builder.node(("forum", "POST", "2"), "Post 2", 7)
    builder.edge(("forum", "WROTE", "name 0", "0"), ("forum", "x\n"), ("forum", "y"), 1)
    with pytest.raises(GraphConflict) as conflict:
        await build_graph_of(
            MANIFEST, POSTS, config={"inputs": [INPUT]}, inputs={"other": PublishedGraph(builder.finish())}
        )
    said = "'other' says another than the rest"
    assert conflict.value.conflicts == (
        "the edge forum/WROTE/name 0/0 is there twice: 'other' has it from forum/x\\n to forum/y at 1 "
        "and from forum/PERSON/name 0 to forum/POST/0 at 1600000000000",
        f"the node forum/POST/1 has two descriptions: {said}",
        f"the node forum/POST/2 has two times: {said}",
    )


async def test_a_weight_that_repeats_a_type_is_named() -> None:
    class Weighs(ForumGraph):
        """Sets weights that the declaration has."""

        async def build(self, archive: Any, graph: GraphBuilder, inputs: Any) -> None:
            graph.node_weight(POST.prefix, 1)
            graph.edge_weight(WROTE.prefix, 1, 1)

    with pytest.raises(GraphConflict) as conflict:
        await build_graph_of(Manifest(Forum, graph=Weighs), POSTS)
    assert conflict.value.conflicts == (
        "the weight of forum/POST is set by the graph and by the declaration's node type 'Post'",
        "the weight of forum/WROTE is set by the graph and by the declaration's edge type 'wrote'",
    )


async def test_types_that_differ_are_a_conflict() -> None:
    kind = NodeType("Post", "Posts", POST.prefix, 8, "What was posted")
    declaration = Declaration("Elsewhere", ("elsewhere",), ("elsewhere",), (kind,), (), ())
    given = PublishedGraph(GraphBuilder().finish(), declaration)
    with pytest.raises(GraphConflict, match="the type at forum/POST is declared in two ways"):
        await build_graph_of(MANIFEST, POSTS, config={"inputs": [INPUT]}, inputs={"other": given})


class PlainConfig(Config):
    """No graph's."""


class PlainPlugin(Plugin[PlainConfig]):
    """No graph."""

    name = "plain"


class Undescribed(ForumGraph):
    plugin_name = "forum"


class Untyped(GraphRules):  # type: ignore[type-arg]
    """Forgot its config."""

    plugin_name = "x"


class Nameless(GraphRules[ForumConfig]):
    """Forgot its name."""

    declaration, build = ForumGraph.declaration, ForumGraph.build


class Unfinished(GraphRules[ForumConfig]):
    """Forgot its rules."""

    plugin_name = "x"


@pytest.mark.parametrize(
    ("plugin", "rules", "reason"),
    [
        (Forum, Undescribed, "has no docstring"),
        (Forum, Untyped, "derive them from GraphRules"),
        (PlainPlugin, ForumGraph, "name one class"),
        (Forum, Nameless, 'say plugin_name = "'),
        (Forum, Unfinished, "define declaration"),
    ],
)
def test_a_manifest_refuses_rules_that_do_not_fit(plugin: Any, rules: Any, reason: str) -> None:
    with pytest.raises(ManifestError, match=reason):
        Manifest(plugin, graph=rules)


async def test_a_plugin_without_rules_has_no_graph() -> None:
    with pytest.raises(LookupError, match="has no graph rules"):
        await build_graph_of(Manifest(PlainPlugin), POSTS)
