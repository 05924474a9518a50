"""The rules: a message of a meeting channel that names people is a meeting which they attended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from metagov_sdk.archive import ArchiveReader
from metagov_sdk.archive.plain import Beside, PlainRow, plain_rows
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
from metagov_sdk.graph.descriptions import cut, escape
from plugins.meetings.plugin import MeetingsConfig
from plugins.meetings.rows import Channel, Guild, Member, Mention, Message, Thread

PREFIX = ("metagov", "meetings")
MEETING, ATTENDS = ((*PREFIX, kind) for kind in ("MEETING", "ATTENDS"))
MEMBER = ("sourcecred", "discord", "MEMBER")
"""Members have the addresses that SourceCred's Discord plugin gives them, so that everybody is one participant of an
instance that has its graph, too. They are no nodes of this graph, as no two may describe a node differently."""
_TEXT_UNITS = 30
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

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


@dataclass(frozen=True, slots=True)
class _Person:
    kind: str
    """"user" or "bot"."""
    address: Address


@dataclass(frozen=True, slots=True)
class _Channel:
    id: str
    name: str
    link: str
    """Where its messages are, or nothing."""


class MeetingsGraph(GraphRules[MeetingsConfig]):
    """Who attended which meeting, from the notes in a channel. A meeting weighs as much as people were there."""

    plugin_name: ClassVar[str] = "meetings"

    def declaration(self) -> Declaration:
        """Meetings, and who attended them."""
        return DECLARATION

    async def build(self, archive: ArchiveReader, graph: GraphBuilder, inputs: Mapping[str, PublishedGraph]) -> None:
        """One channel after the other."""
        people, first_ms = await _people(archive, graph), None
        for id in dict.fromkeys(self.config.meeting_channels):
            channel = await _channel(archive, id)
            mentions = Beside(plain_rows(archive, Mention, partition=id), lambda raw: str(raw["message_id"]))
            async for messages in plain_rows(archive, Message, partition=id):
                await mentions.read_to(max((raw["id"] for raw in messages), default=""))
                for raw in messages:
                    attended = [people[each] for each in _named(raw, mentions.take(raw["id"])) if each in people]
                    if attended and raw.get("timestamp") is not None:
                        at = (datetime.fromisoformat(raw["timestamp"]) - _EPOCH) // _MILLISECOND
                        _draw(graph, channel, raw, attended, at)
                        first_ms = at if first_ms is None else min(first_ms, at)
        add_anchor(
            graph, (*PREFIX, "START"), "Meetings", archive.tables(), first_ms=first_ms, mints=first_ms is not None
        )


def _named(message: PlainRow, mentions: Sequence[PlainRow]) -> Sequence[str]:
    """Whom a message names, but for whom an answer pings without naming them."""
    text, answers = message.get("content") or "", message.get("reply_to") is not None
    ids = [raw["user_id"] for raw in mentions]
    return [id for id in ids if not answers or f"<@{id}>" in text or f"<@!{id}>" in text]


def _draw(graph: GraphBuilder, channel: _Channel, message: PlainRow, attended: Sequence[_Person], at: int) -> None:
    id, text = message["id"], f'"{escape(cut(message.get("content") or "", _TEXT_UNITS))}..."'
    linked = f"[{text}]({channel.link}/{id})" if channel.link else text
    address = (*MEETING, channel.id, id)
    description = f"Meeting of {len(attended)} in #{escape(channel.name)} {linked}"
    graph.node(address, description, at, weight=len(attended))
    for person in attended:
        graph.edge((*ATTENDS, channel.id, id, *person.address[-2:]), person.address, address, at)


async def _people(archive: ArchiveReader, graph: GraphBuilder) -> Mapping[str, _Person]:
    """All members, each of them proposed as a participant."""
    found = {}
    async for members in plain_rows(archive, Member):
        for raw in members:
            kind = "bot" if raw.get("bot") or raw.get("system") else "user"
            name = raw.get("nick") or raw.get("username") or ""
            person = found[raw["id"]] = _Person(kind, (*MEMBER, kind, raw["id"]))
            graph.participant(person.address, name, "BOT" if kind == "bot" else "USER", f"discord/{escape(name)}")
    return found


async def _channel(archive: ArchiveReader, id: str) -> _Channel:
    name = id
    tables: tuple[type[Channel], ...] = (Channel, Thread)
    for row in tables:
        async for channel in archive.rows(row):
            if channel.id == id:
                name = channel.name or id
    async for guild in archive.rows(Guild):
        return _Channel(id, name, f"https://discord.com/channels/{guild.id}/{id}")
    return _Channel(id, name, "")
