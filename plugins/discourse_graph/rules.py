"""The rules: what of a forum counts, and how much. They are those of SourceCred 0.11.2's Discourse plugin.

Two things its API tells are not in the archive: when somebody liked a post (the post's time stands for it), and the
HTML of posts (references are found in their Markdown).
Source: src/plugins/discourse/createGraph.js, nodesAndEdges.js, weights.js, createIdentities.js.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

from metagov_sdk.archive import ArchiveReader
from metagov_sdk.archive.plain import Beside, PlainRow, epoch_ms, plain_rows
from metagov_sdk.graph import Address, Declaration, GraphBuilder, GraphRules, PublishedGraph
from metagov_sdk.graph.anchor import add_anchor
from plugins.discourse_graph.kinds import (
    AUTHORS_POST,
    AUTHORS_TOPIC,
    CONTAINS,
    CREATES_LIKE,
    DECLARATION,
    HAS_LIKED,
    LIKE,
    LIKES,
    POST,
    PREFIX,
    REFERS_POST,
    REFERS_TOPIC,
    REFERS_USER,
    REPLIES,
    TOPIC,
    USER,
)
from plugins.discourse_graph.plugin import DiscourseGraphConfig, DiscourseWeights
from plugins.discourse_graph.references import Reference, References
from plugins.discourse_graph.rows import Like, Post, Topic, User

_TRUST = {0: 0.0, 1: 0.1, 2: 1.0, 3: 1.25, 4: 1.5}
"""What a like is worth by the forum's trust in who likes."""
_BOTS = frozenset({"system", "discobot"})


@dataclass(frozen=True, slots=True)
class _Person:
    name: str
    address: Address
    weight: float


@dataclass(frozen=True, slots=True)
class _Topic:
    title: str
    category: float
    tags: float


class DiscourseGraph(GraphRules[DiscourseGraphConfig]):
    """Topics and posts, who wrote and who liked them, and what they refer to: SourceCred's Discourse rules."""

    plugin_name: ClassVar[str] = "discourse"

    def declaration(self) -> Declaration:
        """SourceCred's own."""
        return DECLARATION

    async def build(self, archive: ArchiveReader, graph: GraphBuilder, inputs: Mapping[str, PublishedGraph]) -> None:
        """One topic after the other; posts are read once more if some refer to those of other topics."""
        server = (self.config.server_url or archive.community).rstrip("/")
        drawing = _Drawing(graph, server, self.config)
        async for users in plain_rows(archive, User):
            for raw in users:
                drawing.add_user(raw)
        async for topics in plain_rows(archive, Topic):
            for raw in topics:
                drawing.add_topic(raw)
        likes = Beside(plain_rows(archive, Like), lambda raw: str(raw["topic_id"]))
        async for posts in _by_topic(archive):
            topic = str(posts[0]["topic_id"])
            await likes.read_to(topic)
            drawing.add_posts(posts, likes.take(topic))
        if drawing.sought:
            async for posts in plain_rows(archive, Post):
                for raw in posts:
                    drawing.find(raw)
        add_anchor(
            graph, (*PREFIX, "START"), "Discourse", archive.tables(), first_ms=drawing.first_ms, mints=drawing.mints
        )


class _Drawing:
    """The graph as far as it is built."""

    def __init__(self, graph: GraphBuilder, server: str, config: DiscourseGraphConfig) -> None:
        self.graph = graph
        self.server = server
        self.weights = config.weights
        self.first_ms: int | None = None
        self.mints = False
        self.sought: dict[tuple[int, int], list[tuple[str, int]]] = {}
        """Posts that others refer to, by topic and number: the id and the time of those others."""
        self._has_links = config.server_url is not None
        self._references = References(config.server_url)
        self._people: dict[int, _Person] = {}
        self._names: dict[str, _Person] = {}
        self._topics: dict[int, _Topic] = {}

    def add_user(self, raw: PlainRow) -> None:
        """Draw somebody."""
        name = (raw.get("username") or "").replace("\0", "\ufffd")
        # Of two with one name the one is out of date: somebody has taken it who came later.
        if not name or name.lower() in self._names:
            return
        person = _Person(name, (*USER, self.server, name), _TRUST.get(raw.get("trust_level") or 0, 0.0))
        self._people[raw["id"]] = self._names[name.lower()] = person
        description = f"discourse/{self._link(f'@{name}', f'/u/{name}/')}"
        self.graph.node(person.address, description)
        self.graph.participant(person.address, name, "BOT" if name in _BOTS else "USER", description)

    def add_topic(self, raw: PlainRow) -> None:
        """Draw a topic and who began it."""
        if raw.get("created_at") is None:
            return
        id, at, title = str(raw["id"]), self._time(raw), raw.get("title") or ""
        self._topics[raw["id"]] = _Topic(title, *_weights(raw, self.weights))
        address = (*TOPIC, self.server, id)
        self.graph.node(address, self._link(title, f"/t/{id}"), at)
        if (author := self._people.get(raw.get("user_id", 0))) is not None:
            self.graph.edge((*AUTHORS_TOPIC, self.server, author.name, id), author.address, address, at)

    def add_posts(self, posts: Sequence[PlainRow], likes: Sequence[PlainRow]) -> None:
        """Draw the posts of one topic, with their likes."""
        topic = posts[0]["topic_id"]
        numbered = {raw["post_number"]: str(raw["id"]) for raw in posts if raw.get("post_number") is not None}
        liked: dict[int, list[_Person]] = {}
        for raw in likes:
            if (person := self._people.get(raw["user_id"])) is not None:
                liked.setdefault(raw["post_id"], []).append(person)
        for raw in posts:
            if raw.get("created_at") is not None:
                self._post(raw, topic, numbered)
                if raw["id"] in liked:
                    self._likes(raw, topic, liked[raw["id"]])

    def find(self, raw: PlainRow) -> None:
        """Draw the references to a post, if there are any."""
        if raw.get("created_at") is None:
            return
        id = str(raw["id"])
        for other, at in self.sought.get((raw["topic_id"], raw.get("post_number") or 0), ()):
            edge = (*REFERS_POST, self.server, other, id)
            self.graph.edge(edge, (*POST, self.server, other), (*POST, self.server, id), at)

    def _post(self, raw: PlainRow, topic: int, numbered: Mapping[int, str]) -> None:
        graph, server, id, at = self.graph, self.server, str(raw["id"]), self._time(raw)
        address = (*POST, server, id)
        graph.node(address, self._description(raw, topic), at)
        graph.edge((*CONTAINS, server, str(topic), id), (*TOPIC, server, str(topic)), address, at)
        if (author := self._people.get(raw.get("user_id", 0))) is not None:
            graph.edge((*AUTHORS_POST, server, author.name, id), author.address, address, at)
        answered = raw.get("reply_to_post_number") or (1 if (raw.get("post_number") or 0) > 1 else None)
        if answered is not None and answered in numbered:
            above = numbered[answered]
            graph.edge((*REPLIES, server, id, above), address, (*POST, server, above), at)
        for reference in self._references.of(raw.get("raw") or ""):
            self._refer(address, id, reference, at)

    def _refer(self, address: Address, id: str, reference: Reference, at: int) -> None:
        server = self.server
        if reference.username is not None:
            if (named := self._names.get(reference.username)) is not None:
                self.graph.edge((*REFERS_USER, server, id, named.name), address, named.address, at)
        elif reference.post_number is not None and reference.topic is not None:
            self.sought.setdefault((reference.topic, reference.post_number), []).append((id, at))
        elif reference.topic in self._topics:
            topic = str(reference.topic)
            self.graph.edge((*REFERS_TOPIC, server, id, topic), address, (*TOPIC, server, topic), at)

    def _likes(self, raw: PlainRow, topic: int, people: Sequence[_Person]) -> None:
        graph, server, id, at = self.graph, self.server, str(raw["id"]), self._time(raw)
        post, description = (*POST, server, id), self._description(raw, topic)
        above = self._topics.get(topic, _Topic("", 1.0, 1.0))
        total = 0.0
        for person in people:
            weight = person.weight * above.category * above.tags
            total += weight
            like = (*LIKE, server, person.name, id)
            graph.node(like, f"\u2764\ufe0f by {person.name} on {description}", at, weight=weight)
            graph.edge((*CREATES_LIKE, server, person.name, id), person.address, like, at)
            graph.edge((*LIKES, server, person.name, id), like, post, at)
        if total:
            self.mints = True
            edge = (*HAS_LIKED, server, str(topic), id)
            graph.edge(edge, (*TOPIC, server, str(topic)), post, at)
            graph.edge_weight(edge, total, 0)

    def _description(self, raw: PlainRow, topic: int) -> str:
        number = raw.get("post_number")
        title = self._topics[topic].title if topic in self._topics else "[unknown topic]"
        return self._link(f"#{number} on {title}", f"/t/{topic}/{number}")

    def _link(self, text: str, path: str) -> str:
        return f"[{text}]({self.server}{path})" if self._has_links else text

    def _time(self, raw: PlainRow) -> int:
        at = epoch_ms(raw["created_at"])
        self.first_ms = at if self.first_ms is None else min(self.first_ms, at)
        return at


def _weights(raw: PlainRow, weights: DiscourseWeights) -> tuple[float, float]:
    """A topic's: of its category, and of its tags."""
    category = raw.get("category_id")
    of_category = 1.0
    if category is not None:
        of_category = weights.categoryWeights.get(str(category), weights.defaultCategoryWeight)
    of_tags = 1.0
    for tag in raw.get("tags") or ():
        of_tags *= weights.tagWeights.get(tag, weights.defaultTagWeight) if isinstance(tag, str) else 1.0
    return of_category, of_tags


async def _by_topic(archive: ArchiveReader) -> AsyncIterator[Sequence[PlainRow]]:
    """Posts, all of a topic at a time."""
    open: list[PlainRow] = []
    async for batch in plain_rows(archive, Post):
        for topic, rows in groupby(batch, key=lambda raw: raw["topic_id"]):
            if open and open[0]["topic_id"] != topic:
                yield open
                open = []
            open += rows
    if open:
        yield open
