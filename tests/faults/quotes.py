"""A rule set over what was said on the votes plugin's platform: topics, and the posts that belong to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from metagov_sdk import GraphPlugin, Manifest
from metagov_sdk.archive import ArchiveReader, Row
from metagov_sdk.graph import (
    Declaration,
    EdgeType,
    EdgeWeight,
    GraphBuilder,
    GraphConfig,
    GraphRules,
    NodeType,
    PublishedGraph,
)

TOPIC, POST, ABOUT = (("quotes", kind) for kind in ("TOPIC", "POST", "ABOUT"))


class QuotesConfig(GraphConfig):
    """What is read."""

    source: str = "votes"


class PostRow(Row, table="votes.post"):
    """A post."""

    id: int
    topic: str | None


class QuotesGraph(GraphRules[QuotesConfig]):
    """Topics and posts."""

    plugin_name: ClassVar[str] = "quotes"

    def declaration(self) -> Declaration:
        """Two kinds of nodes, one of edges."""
        kinds = NodeType("Topic", "Topics", TOPIC, 0, ""), NodeType("Post", "Posts", POST, 1, "")
        about = EdgeType("is about", "is the topic of", ABOUT, EdgeWeight(1, 1), "")
        return Declaration("Quotes", ("quotes",), ("quotes",), kinds, (about,), ())

    async def build(self, archive: ArchiveReader, graph: GraphBuilder, inputs: Mapping[str, PublishedGraph]) -> None:
        """Draw them."""
        async for row in archive.rows(PostRow):
            post = graph.node((*POST, str(row.id)), f"post {row.id}", row.id)
            topic = graph.node((*TOPIC, row.topic or ""), f"topic {row.topic}")
            graph.edge((*ABOUT, str(row.id)), post, topic, row.id)


class Quotes(GraphPlugin[QuotesConfig]):
    """The graph of what was said."""

    name: ClassVar[str] = "quotes"


manifest = Manifest(Quotes, graph=QuotesGraph)
