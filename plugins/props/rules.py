"""The rules: a message of a props channel that names somebody gives them props, weighted by who reacts to it."""

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
from plugins.props.addresses import GIVES, MEMBER, PREFIX, PROPS, RECEIVES
from plugins.props.plugin import PropsConfig
from plugins.props.rows import Channel, Guild, Member, Mention, Message, Reaction, Thread

_TEXT_UNITS = 30
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

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


class PropsGraph(GraphRules[PropsConfig]):
    """Who gave props to whom, in which message, weighted by how many people reacted to it."""

    plugin_name: ClassVar[str] = "props"

    def declaration(self) -> Declaration:
        """Messages that are props, who gives them and who receives them."""
        return DECLARATION

    async def build(self, archive: ArchiveReader, graph: GraphBuilder, inputs: Mapping[str, PublishedGraph]) -> None:
        """One channel after the other."""
        drawing = _Drawing(graph, await _people(archive, graph))
        for id in dict.fromkeys(self.config.props_channels):
            channel = await _channel(archive, id)
            reactions, mentions = (
                Beside(plain_rows(archive, row, partition=id), lambda raw: str(raw["message_id"]))
                for row in (Reaction, Mention)
            )
            async for messages in plain_rows(archive, Message, partition=id):
                last = max((raw["id"] for raw in messages), default="")
                await reactions.read_to(last)
                await mentions.read_to(last)
                for raw in messages:
                    drawing.add(channel, raw, reactions.take(raw["id"]), mentions.take(raw["id"]))
        add_anchor(graph, (*PREFIX, "START"), "Props", archive.tables(), first_ms=drawing.first_ms, mints=drawing.mints)


class _Drawing:
    """The graph as far as it is built."""

    def __init__(self, graph: GraphBuilder, people: Mapping[str, _Person]) -> None:
        self.graph = graph
        self.people = people
        self.first_ms: int | None = None
        self.mints = False

    def add(
        self, channel: _Channel, message: PlainRow, reactions: Sequence[PlainRow], mentions: Sequence[PlainRow]
    ) -> None:
        """Draw a message, if it gives props to somebody."""
        giver = self.people.get(message.get("author_id", ""))
        receivers = self._receivers(message, mentions)
        if giver is None or not receivers or message.get("timestamp") is None:
            return
        at = (datetime.fromisoformat(message["timestamp"]) - _EPOCH) // _MILLISECOND
        # Not by those who are praised: nobody can make praise of themselves weigh more.
        weight = len({raw["user_id"] for raw in reactions} & self.people.keys() - set(receivers))
        id, text = message["id"], f'"{escape(cut(message.get("content") or "", _TEXT_UNITS))}..."'
        linked = f"[{text}]({channel.link}/{id})" if channel.link else text
        address = (*PROPS, channel.id, id)
        self.graph.node(address, f"Props in #{escape(channel.name)} {linked}", at, weight=weight)
        self.graph.edge((*GIVES, channel.id, id, *giver.address[-2:]), giver.address, address, at)
        for receiver in (self.people[each] for each in receivers):
            self.graph.edge((*RECEIVES, channel.id, id, *receiver.address[-2:]), address, receiver.address, at)
        self.first_ms = at if self.first_ms is None else min(self.first_ms, at)
        self.mints = self.mints or weight > 0

    def _receivers(self, message: PlainRow, mentions: Sequence[PlainRow]) -> list[str]:
        """The members whom a message names, but for its author and for whom an answer pings without naming them."""
        if message.get("webhook_id") is not None:
            return []
        text, answers = message.get("content") or "", message.get("reply_to") is not None
        named = (raw["user_id"] for raw in mentions)
        return [
            id
            for id in named
            if id in self.people
            and id != message.get("author_id")
            and not (answers and f"<@{id}>" not in text and f"<@!{id}>" not in text)
        ]


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
