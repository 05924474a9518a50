"""The rules: what of a server counts, and how much.

They are those of SourceCred 0.11.2 (src/plugins/discord/createGraph.js, reactionWeights.js, mirror.js), and their
graphs are equal to its, but for the switches of the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from metagov_sdk.archive import ArchiveReader
from metagov_sdk.archive.plain import Beside, PlainRow, epoch_ms, plain_rows
from metagov_sdk.graph import Declaration, GraphBuilder, GraphRules, Key, PublishedGraph, WrongGraph, key_of
from metagov_sdk.graph.anchor import add_anchor
from metagov_sdk.graph.descriptions import cut, escape
from plugins.discord_graph.config import DiscordGraphConfig
from plugins.discord_graph.kinds import (
    ADDS_REACTION,
    AUTHORS,
    DECLARATION,
    MENTIONS,
    MESSAGE,
    PREFIX,
    PROPS,
    REACTION,
    REACTS_TO,
)
from plugins.discord_graph.people import Person, person, proposals
from plugins.discord_graph.rows import Channel, Guild, Member, Mention, Message, Reaction, Thread

_TEXT_CHANNEL = 0
_MESSAGE_UNITS = 30
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_MESSAGE, _REACTION = key_of(MESSAGE), key_of(REACTION)
_AUTHORS, _ADDS_REACTION, _REACTS_TO = key_of(AUTHORS), key_of(ADDS_REACTION), key_of(REACTS_TO)


@dataclass(frozen=True, slots=True)
class Place:
    """A channel, or a thread, that counts. `weight` is what its reactions are multiplied by."""

    id: str
    name: str
    weight: float
    is_props: bool


@dataclass(slots=True)
class _Message:
    """A message, by somebody, at some time (`at`: milliseconds since 1970). `keys`: of its channel and its id."""

    place: Place
    id: str
    author: str
    content: str
    at: int
    keys: tuple[Key, Key]


@dataclass(frozen=True, slots=True)
class _Emoji:
    """How addresses name it, how descriptions show it, and what reactions are multiplied by."""

    key: Key
    shown: str
    weight: float


class DiscordGraph(GraphRules[DiscordGraphConfig]):
    """Messages that others react to, who wrote them, whom they name, and who reacted: SourceCred's Discord rules."""

    plugin_name: ClassVar[str] = "discord"

    def declaration(self) -> Declaration:
        """SourceCred's own."""
        return DECLARATION

    async def build(self, archive: ArchiveReader, graph: GraphBuilder, inputs: Mapping[str, PublishedGraph]) -> None:
        """One channel after the other. Raises WrongGraph when the archive is of another server."""
        config = self.config
        await self._check_guild(archive)
        people: dict[str, Person] = {}
        async for members in plain_rows(archive, Member, deleted=config.deleted):
            for raw in members:
                people[raw["id"]] = person(raw, config.config.roleWeightConfig)
        drawing = _Drawing(graph, config, people)
        for place in await self._places(archive):
            await self._draw(archive, place, drawing)
        graph.settle_identities(list(proposals(people.values())))
        if config.anchor:
            add_anchor(
                graph,
                (*PREFIX, "SERVER", config.config.guildId),
                f"discord/server {escape(config.config.guildId)}",
                archive.tables(),
                first_ms=drawing.first_ms,
                mints=drawing.first_ms is not None,
            )

    async def _check_guild(self, archive: ArchiveReader) -> None:
        wanted = self.config.config.guildId
        if any(table.name == Guild.table for table in archive.tables()):
            async for guild in archive.rows(Guild):
                if guild.id != wanted:
                    raise WrongGraph(f"config.guildId is {wanted}, and the archive is of the server {guild.id}")

    async def _places(self, archive: ArchiveReader) -> Sequence[Place]:
        config, weights = self.config.config, self.config.config.channelWeightConfig
        props = set(config.propsChannels)
        found: dict[str, Place] = {}
        async for channel in archive.rows(Channel, deleted=self.config.deleted):
            if channel.type != _TEXT_CHANNEL or (channel.nsfw and not config.includeNsfwChannels):
                continue
            own = weights.weights.get(channel.id)
            weight = weights.weights.get(channel.parent_id or "", weights.defaultWeight) if own is None else own
            if weight:
                found[channel.id] = Place(channel.id, channel.name or "", weight, channel.id in props)
        if self.config.threads:
            async for thread in archive.rows(Thread, deleted=self.config.deleted):
                above = found.get(thread.parent_id or "")
                weight = weights.weights.get(thread.id, above.weight if above else 0)
                if above and weight:
                    is_props = above.is_props or thread.id in props
                    found[thread.id] = Place(thread.id, thread.name or "", weight, is_props)
        return list(found.values())

    async def _draw(self, archive: ArchiveReader, place: Place, drawing: _Drawing) -> None:
        deleted, since = self.config.deleted, self.config.config.begins_at
        reactions, mentions = (
            Beside(plain_rows(archive, row, partition=place.id, deleted=deleted), lambda raw: str(raw["message_id"]))
            for row in (Reaction, Mention)
        )
        first = None if since is None else (since - _EPOCH) // _MILLISECOND
        channel = key_of((place.id,))
        async for messages in plain_rows(archive, Message, partition=place.id, since=since, deleted=deleted):
            last = max((raw["id"] for raw in messages), default="")
            await reactions.read_to(last)
            await mentions.read_to(last)
            for raw in messages:
                found, named = reactions.take(raw["id"]), mentions.take(raw["id"])
                message = _read(raw, place, channel) if found else None
                if message is not None and (first is None or message.at >= first):
                    drawing.add(message, found, named)


def _read(raw: PlainRow, place: Place, channel: Key) -> _Message | None:
    """What somebody wrote at some time; None for what a webhook did. `channel`: the place's key."""
    id, author, timestamp = raw["id"], raw.get("author_id"), raw.get("timestamp")
    if author is None or timestamp is None or raw.get("webhook_id") is not None:
        return None
    return _Message(place, id, author, raw.get("content") or "", epoch_ms(timestamp), (channel, key_of((id,))))


class _Drawing:
    """The graph as far as it is built. Most of a build's time is spent here: addresses are put together of keys."""

    def __init__(self, graph: GraphBuilder, config: DiscordGraphConfig, people: Mapping[str, Person]) -> None:
        self.graph = graph
        self.config = config.config
        self.people = people
        self.first_ms: int | None = None
        """The time of the earliest message."""
        self._members: dict[str, int] = {}
        """The numbers of members' nodes."""
        self._links = f"https://discordapp.com/channels/{config.config.guildId}"
        self._emojis: dict[str, _Emoji] = {}

    def add(self, message: _Message, reactions: Iterable[PlainRow], mentions: Iterable[PlainRow]) -> None:
        """Draw a message with all that belongs to it, if it is worth anything."""
        reacted = self._weigh(message, reactions)
        # Not sum(), which rounds more finely than JavaScript's additions from Python 3.12 on.
        total = 0.0
        for *_, weight in reacted:
            total += weight
        if not total:
            return
        if self.first_ms is None or message.at < self.first_ms:
            self.first_ms = message.at
        number = self._message(message, total)
        if not self.config.simplifyGraph:
            for who, emoji, weight in reacted:
                if weight:
                    self._reaction(message, number, who, emoji, weight)
        for raw in mentions:
            if (named := self.people.get(raw["user_id"])) is not None:
                self._mention(message, number, named)

    def _weigh(self, message: _Message, reactions: Iterable[PlainRow]) -> Sequence[tuple[Person, _Emoji, float]]:
        """Who reacted how, and what it is worth. In SourceCred's order, so that sums are the same to the last bit."""
        people, place, author = self.people, message.place, message.author
        found = sorted((raw["user_id"], raw["emoji"]) for raw in reactions if raw["user_id"] in people)
        averaging = 1.0
        config = self.config.reactionWeightConfig
        if config.applyAveraging:
            total = 0.0
            for id in dict.fromkeys(id for id, _ in found):
                if id != author:
                    total += people[id].weight
            total += config.confidenceDampener
            averaging = 1 / total if total else 1.0
        reacted = []
        for id, name in found:
            who, emoji = people[id], self._emoji(name)
            worthless = id == author and not place.is_props
            weight = 0.0 if worthless else who.weight * place.weight * emoji.weight * averaging
            reacted.append((who, emoji, weight))
        return reacted

    def _message(self, message: _Message, total: float) -> int:
        graph, place, text = self.graph, message.place, escape(cut(message.content, _MESSAGE_UNITS))
        description = f'#{place.name} message ["{text}..."]({self._links}/{place.id}/{message.id})'
        weight = total if self.config.simplifyGraph else None
        number = graph.keyed_node((_MESSAGE, *message.keys), description, message.at, weight=weight)
        if (writer := self.people.get(message.author)) is not None:
            keys = (_AUTHORS, writer.kind_key, *message.keys)
            graph.keyed_edge(keys, self._member(writer), number, message.at)
        return number

    def _reaction(self, message: _Message, number: int, who: Person, emoji: _Emoji, weight: float) -> None:
        """`number`: of the message's node."""
        graph, at, (channel, id), name = self.graph, message.at, message.keys, emoji.key
        link = f"[{message.id}]({self._links}/{message.place.id}/{message.id})"
        description = f"Reacted `{emoji.shown}` to message {link}"
        reaction = graph.keyed_node((_REACTION, channel, name, who.key, id), description, at, weight=weight)
        graph.keyed_edge((_REACTS_TO, name, who.key, channel, id), reaction, number, at)
        graph.keyed_edge((_ADDS_REACTION, who.kind_key, name, channel, id), self._member(who), reaction, at)

    def _mention(self, message: _Message, number: int, named: Person) -> None:
        kind = PROPS if message.place.is_props else MENTIONS
        address = (*kind, message.place.id, message.author, message.id, named.kind, named.id)
        self.graph.edge(address, number, self._member(named), message.at)
        count = len(re.findall(f"<@!?{re.escape(named.id)}>", message.content))
        if count > 1:
            self.graph.edge_weight(address, count, 1)

    def _member(self, who: Person) -> int:
        number = self._members.get(who.id)
        if number is None:
            number = self._members[who.id] = self.graph.node(who.address, who.description)
        return number

    def _emoji(self, emoji: str) -> _Emoji:
        if (known := self._emojis.get(emoji)) is None:
            name, *rest = emoji.replace("\0", "\ufffd").split(":")
            id = rest[0] if rest else ""
            reference = f"{name}:{id}" if id else name
            weights = self.config.reactionWeightConfig
            weight = weights.weights.get(reference, weights.defaultWeight)
            known = self._emojis[emoji] = _Emoji(key_of((reference,)), f":{name}:" if id else name, weight)
        return known
