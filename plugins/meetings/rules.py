"""The rules: a message of a meeting channel that names people is a meeting which they attended."""

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
from metagov_sdk.graph.discord import (
    Mention,
    Message,
    Place,
    find_places,
    named_by,
    propose_members,
    read_messages,
)
from plugins.meetings.plugin import MeetingsConfig

PREFIX = ("metagov", "meetings")
MEETING, ATTENDS = ((*PREFIX, kind) for kind in ("MEETING", "ATTENDS"))

DECLARATION = Declaration(
    name="Meetings",
    node_prefix=PREFIX,
    edge_prefix=PREFIX,
    node_types=(NodeType("Meeting", "Meetings", MEETING, 1, "A message that names who was at a meeting"),),
    edge_types=(
        EdgeType(
            "attends",
            "is attended by",
            ATTENDS,
            EdgeWeight(1 / 16, 1),
            "Connects somebody to a meeting that they attended",
        ),
    ),
    user_types=(),
)


class MeetingsGraph(GraphRules[MeetingsConfig]):
    """Who attended which meeting, from the notes in a channel. A meeting weighs as much as people were there."""

    plugin_name: ClassVar[str] = "meetings"

    def declaration(self) -> Declaration:
        """Meetings, and who attended them."""
        return DECLARATION

    async def build(self, archive: ArchiveReader, graph: GraphBuilder, inputs: Mapping[str, PublishedGraph]) -> None:
        """One channel after the other."""
        people, first_ms = await propose_members(archive, graph), None
        for place in await find_places(archive, self.config.meeting_channels):
            async for message, (mentions,) in read_messages(archive, Message, place, Mention):
                attended = [people[each] for each in named_by(message, mentions) if each in people]
                if attended and message.get("timestamp") is not None:
                    at = epoch_ms(message["timestamp"])
                    _draw(graph, place, message, attended, at)
                    first_ms = at if first_ms is None else min(first_ms, at)
        add_anchor(
            graph, (*PREFIX, "START"), "Meetings", archive.tables(), first_ms=first_ms, mints=first_ms is not None
        )


def _draw(graph: GraphBuilder, place: Place, message: PlainRow, attended: Sequence[Address], at: int) -> None:
    here = place.id, message["id"]
    address = (*MEETING, *here)
    graph.node(address, f"Meeting of {len(attended)} in {place.quote(message)}", at, weight=len(attended))
    for person in attended:
        graph.edge((*ATTENDS, *here, *person[-2:]), person, address, at)
