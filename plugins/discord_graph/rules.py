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
from metagov_sdk.archive.plain import Beside, PlainRow, plain_rows
from metagov_sdk.graph import Declaration, GraphBuilder, GraphRules, PublishedGraph, WrongGraph
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


@dataclass(frozen=True, slots=True)
class Place:
    """A channel, or a thread, that counts. `weight` is what its reactions are multiplied by."""

    id: str
    name: str
    weight: float
    is_props: bool


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
        async for messages in plain_rows(archive, Message, partition=place.id, since=since, deleted=deleted):
            last = max((raw["id"] for raw in messages), default="")
            await reactions.read_to(last)
            await mentions.read_to(last)
            for raw in messages:
                found, named = reactions.take(raw["id"]), mentions.take(raw["id"])
                if found and raw.get("webhook_id") is None:
                    drawing.add(place, raw, found, named, first)


class _Drawing:
    """The graph as far as it is built."""

    def __init__(self, graph: GraphBuilder, config: DiscordGraphConfig, people: Mapping[str, Person]) -> None:
        self.graph = graph
        self.config = config.config
        self.people = people
        self.first_ms: int | None = None
        """The time of the earliest message."""
        self._drawn: set[str] = set()
        self._links = f"https://discordapp.com/channels/{config.config.guildId}"
        self._emojis: dict[str, tuple[str, str]] = {}

    def add(
        self,
        place: Place,
        message: PlainRow,
        reactions: Iterable[PlainRow],
        mentions: Iterable[PlainRow],
        not_before: int | None,
    ) -> None:
        """Draw a message with all that belongs to it, if it is worth anything."""
        author, timestamp = message.get("author_id"), message.get("timestamp")
        if author is None or timestamp is None:
            return
        milliseconds = (datetime.fromisoformat(timestamp) - _EPOCH) // _MILLISECOND
        if not_before is not None and milliseconds < not_before:
            return
        reacted = self._weigh(place, author, reactions)
        # Not sum(), which rounds more finely than JavaScript's additions from Python 3.12 on.
        total = 0.0
        for *_, weight in reacted:
            total += weight
        if not total:
            return
        if self.first_ms is None or milliseconds < self.first_ms:
            self.first_ms = milliseconds
        self._message(place, message["id"], author, message.get("content") or "", milliseconds, total)
        if not self.config.simplifyGraph:
            for who, emoji, weight in reacted:
                if weight:
                    self._reaction(place, message["id"], who, emoji, milliseconds, weight)
        for raw in mentions:
            if (named := self.people.get(raw["user_id"])) is not None:
                self._mention(place, message, author, named, milliseconds)

    def _weigh(self, place: Place, author: str, reactions: Iterable[PlainRow]) -> Sequence[tuple[Person, str, float]]:
        """Who reacted how, and what it is worth. In SourceCred's order, so that sums are the same to the last bit."""
        people = self.people
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
        weights, default = config.weights, config.defaultWeight
        return [
            (
                who := people[id],
                emoji,
                0.0
                if id == author and not place.is_props
                else who.weight * place.weight * weights.get(self._emoji(emoji)[0], default) * averaging,
            )
            for id, emoji in found
        ]

    def _message(self, place: Place, id: str, author: str, content: str, milliseconds: int, total: float) -> None:
        address = (*MESSAGE, place.id, id)
        text = escape(cut(content, _MESSAGE_UNITS))
        description = f'#{place.name} message ["{text}..."]({self._links}/{place.id}/{id})'
        self.graph.node(address, description, milliseconds, weight=total if self.config.simplifyGraph else None)
        if (writer := self.people.get(author)) is not None:
            self._member(writer)
            edge = (*AUTHORS, writer.kind, author, place.id, id)
            self.graph.edge(edge, writer.address, address, milliseconds)

    def _reaction(self, place: Place, id: str, who: Person, emoji: str, milliseconds: int, weight: float) -> None:
        reference, shown = self._emoji(emoji)
        address = (*REACTION, place.id, reference, who.id, id)
        description = f"Reacted `{shown}` to message [{id}]({self._links}/{place.id}/{id})"
        graph = self.graph
        graph.node(address, description, milliseconds, weight=weight)
        self._member(who)
        message = (*MESSAGE, place.id, id)
        graph.edge((*REACTS_TO, reference, who.id, place.id, id), address, message, milliseconds)
        graph.edge((*ADDS_REACTION, who.kind, who.id, reference, place.id, id), who.address, address, milliseconds)

    def _mention(self, place: Place, message: PlainRow, author: str, named: Person, milliseconds: int) -> None:
        self._member(named)
        id = message["id"]
        edge = (*(PROPS if place.is_props else MENTIONS), place.id, author, id, named.kind, named.id)
        self.graph.edge(edge, (*MESSAGE, place.id, id), named.address, milliseconds)
        count = len(re.findall(f"<@!?{re.escape(named.id)}>", message.get("content") or ""))
        if count > 1:
            self.graph.edge_weight(edge, count, 1)

    def _member(self, who: Person) -> None:
        if who.id not in self._drawn:
            self._drawn.add(who.id)
            self.graph.node(who.address, who.description)

    def _emoji(self, emoji: str) -> tuple[str, str]:
        """How addresses and weights name it, and how descriptions show it."""
        if (known := self._emojis.get(emoji)) is None:
            name, *rest = emoji.replace("\0", "\ufffd").split(":")
            id = rest[0] if rest else ""
            known = self._emojis[emoji] = (f"{name}:{id}", f":{name}:") if id else (name, name)
        return known
