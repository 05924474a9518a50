"""The rules: a message of a props channel that names somebody gives them props, weighted by who reacts to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from metagov_sdk.archive import ArchiveReader
from metagov_sdk.archive.plain import PlainRow, epoch_ms
from metagov_sdk.graph import (
    Address,
    Declaration,
    EdgeType,
    EdgeWeight,
    GraphBuilder,
    GraphRules,
    NodeType,
    PublishedGraph,
)
from metagov_sdk.graph.anchor import add_anchor
from metagov_sdk.graph.discord import Mention, Place, find_places, named_by, propose_members, read_messages
from plugins.props.addresses import GIVES, PREFIX, PROPS, RECEIVES
from plugins.props.plugin import PropsConfig
from plugins.props.rows import Message, Reaction

DECLARATION = Declaration(
    name="Props",
    node_prefix=PREFIX,
    edge_prefix=PREFIX,
    node_types=(NodeType("Props", "Props", PROPS, 1, "A message in which somebody gives props"),),
    edge_types=(
        EdgeType(
            "gives props",
            "are given by",
            GIVES,
            EdgeWeight(1 / 4, 1),
            "Connects somebody who gives props to the message",
        ),
        EdgeType(
            "are props to",
            "receives props",
            RECEIVES,
            # 19 of 20 parts go to those who receive: the same as in SourceCred's Discord plugin.
            EdgeWeight(19, 1 / 16),
            "Connects a message to somebody who receives props",
        ),
    ),
    user_types=(),
)


class PropsGraph(GraphRules[PropsConfig]):
    """Who gave props to whom, in which message, weighted by how many people reacted to it."""

    plugin_name: ClassVar[str] = "props"

    def declaration(self) -> Declaration:
        """Messages that are props, who gives them and who receives them."""
        return DECLARATION

    async def build(self, archive: ArchiveReader, graph: GraphBuilder, inputs: Mapping[str, PublishedGraph]) -> None:
        """One channel after the other."""
        drawing = _Drawing(graph, await propose_members(archive, graph))
        for place in await find_places(archive, self.config.props_channels):
            async for message, (reactions, mentions) in read_messages(archive, Message, place, Reaction, Mention):
                drawing.add(place, message, reactions, mentions)
        add_anchor(graph, (*PREFIX, "START"), "Props", archive.tables(), first_ms=drawing.first_ms, mints=drawing.mints)


class _Drawing:
    """The graph as far as it is built."""

    def __init__(self, graph: GraphBuilder, people: Mapping[str, Address]) -> None:
        self.graph = graph
        self.people = people
        self.first_ms: int | None = None
        self.mints = False

    def add(self, place: Place, message: PlainRow, reactions: Sequence[PlainRow], mentions: Sequence[PlainRow]) -> None:
        """Draw a message, if it gives props to somebody."""
        giver = self.people.get(message.get("author_id", ""))
        receivers = self._receivers(message, mentions)
        if giver is None or not receivers or message.get("timestamp") is None:
            return
        at = epoch_ms(message["timestamp"])
        # Not by those who are praised: nobody can make praise of themselves weigh more.
        weight = len({raw["user_id"] for raw in reactions} & self.people.keys() - set(receivers))
        here = place.id, message["id"]
        address = (*PROPS, *here)
        self.graph.node(address, f"Props in {place.quote(message)}", at, weight=weight)
        self.graph.edge((*GIVES, *here, *giver[-2:]), giver, address, at)
        for receiver in (self.people[each] for each in receivers):
            self.graph.edge((*RECEIVES, *here, *receiver[-2:]), address, receiver, at)
        self.first_ms = at if self.first_ms is None else min(self.first_ms, at)
        self.mints = self.mints or weight > 0

    def _receivers(self, message: PlainRow, mentions: Sequence[PlainRow]) -> list[str]:
        """The members whom a message names, but for its author and for whom an answer pings without naming them."""
        if message.get("webhook_id") is not None:
            return []
        author = message.get("author_id")
        return [id for id in named_by(message, mentions) if id in self.people and id != author]
