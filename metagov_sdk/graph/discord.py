"""Archives of Discord, for rule sets about some of a server's channels: who is there, and what was said in a channel.

    people = await propose_members(archive, graph)
    for place in await find_places(archive, ids):
        async for message, (mentions,) in read_messages(archive, Message, place, Mention):
            graph.node((*MEETING, place.id, message["id"]), place.quote(message), epoch_ms(message["timestamp"]))

A rule set that reads more of the tables declares its own rows, as these are declared here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from metagov_sdk.archive import ArchiveReader, Row
from metagov_sdk.archive.plain import Beside, PlainRow, plain_rows
from metagov_sdk.graph.addresses import Address
from metagov_sdk.graph.builder import GraphBuilder
from metagov_sdk.graph.descriptions import cut, escape

MEMBER = ("sourcecred", "discord", "MEMBER")
"""Members have the addresses that SourceCred's Discord plugin gives them, so that everybody is one participant of an
instance that has its graph, too. A graph beside it has no nodes for them, as no two may describe a node differently."""
_QUOTED_UNITS = 30


class Guild(Row, table="discord.guild"):
    """The server."""

    id: str


class Channel(Row, table="discord.channel"):
    """A channel."""

    id: str
    name: str | None


class Thread(Channel, table="discord.thread"):
    """A thread."""


class Member(Row, table="discord.member"):
    """A member. Archives of today also have `system`; older ones have not."""

    id: str
    username: str | None
    nick: str | None
    bot: bool | None


class Message(Row, table="discord.message"):
    """A message; `reply_to` is set if it answers another."""

    id: str
    reply_to: str | None
    content: str | None
    timestamp: datetime | None


class Mention(Row, table="discord.mention"):
    """Somebody whom a message names, or whom an answer pings."""

    message_id: str
    user_id: str


@dataclass(frozen=True, slots=True)
class Place:
    """A channel or a thread. `link`: where its messages are, or nothing."""

    id: str
    name: str
    link: str

    def quote(self, message: PlainRow) -> str:
        """Where a message stands and how it begins, linked to it: `#talk ["Hello..."](https://…)`, for descriptions."""
        text = f'"{escape(cut(message.get("content") or "", _QUOTED_UNITS))}..."'
        linked = f"[{text}]({self.link}/{message['id']})" if self.link else text
        return f"#{escape(self.name)} {linked}"


async def propose_members(archive: ArchiveReader, graph: GraphBuilder) -> Mapping[str, Address]:
    """Propose every member as a participant. Returns their addresses by id; these end with "user" or "bot", and the id.

    Raises UnknownTable, MissingFields, WrongValue, and CorruptArchive in its kinds.
    """
    found = {}
    async for members in plain_rows(archive, Member):
        for raw in members:
            kind = "bot" if raw.get("bot") or raw.get("system") else "user"
            name = raw.get("nick") or raw.get("username") or ""
            address = found[raw["id"]] = (*MEMBER, kind, raw["id"])
            graph.participant(address, name, "BOT" if kind == "bot" else "USER", f"discord/{escape(name)}")
    return found


async def find_places(archive: ArchiveReader, ids: Iterable[str]) -> Sequence[Place]:
    """Channels or threads by their ids, each once, in that order. One that the archive has no name for has its id.

    Raises UnknownTable, MissingFields, WrongValue, and CorruptArchive in its kinds.
    """
    names = {id: id for id in ids}
    tables: tuple[type[Channel], ...] = (Channel, Thread)
    for row in tables:
        async for channel in archive.rows(row):
            if channel.id in names:
                names[channel.id] = channel.name or channel.id
    server = ""
    async for guild in archive.rows(Guild):
        server = f"https://discord.com/channels/{guild.id}"
    return [Place(id, name, f"{server}/{id}" if server else "") for id, name in names.items()]


async def read_messages(
    archive: ArchiveReader, row: type[Message], place: Place, *beside: type[Row]
) -> AsyncIterator[tuple[PlainRow, Sequence[Sequence[PlainRow]]]]:
    """A channel's messages in order, each with the rows of the tables `beside` whose `message_id` is its.

    row: `Message`, or one with more fields. Raises UnknownTable, MissingFields, WrongValue, and CorruptArchive in its
    kinds.
    """
    others = [Beside(plain_rows(archive, each, partition=place.id), _message_id) for each in beside]
    async for messages in plain_rows(archive, row, partition=place.id):
        last = max((raw["id"] for raw in messages), default="")
        for other in others:
            await other.read_to(last)
        for raw in messages:
            yield raw, [other.take(raw["id"]) for other in others]


def named_by(message: PlainRow, mentions: Sequence[PlainRow]) -> Sequence[str]:
    """The ids of whom a message names, but for whom an answer pings without naming them."""
    text, answers = message.get("content") or "", message.get("reply_to") is not None
    ids = [raw["user_id"] for raw in mentions]
    return [id for id in ids if not answers or f"<@{id}>" in text or f"<@!{id}>" in text]


def _message_id(raw: PlainRow) -> str:
    return str(raw["message_id"])
