"""Discourse's graph: topics, posts, likes and references."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from metagov_sdk import Record
from metagov_sdk.graph import PublishedGraph
from metagov_sdk.testing import build_graph_of
from plugins.discourse import records
from plugins.discourse_graph import manifest
from plugins.discourse_graph.references import Reference, References
from tests.graphs.archived import FORUM_RECORDS, archive_of

SERVER = "https://forum.example.org"
ANN, BEA, SYSTEM = 3, 12, -1


class Forum:
    """A forum that is being made up: two topics, by Ann."""

    def __init__(self) -> None:
        self.rows: list[Record] = []
        self._posts = 100
        for id, name, trust in ((ANN, "Ann", 2), (BEA, "bea.b", 1), (SYSTEM, "system", 4)):
            self.rows.append(records.UserRecord.read({"id": id, "username": name, "trust_level": trust}))
        for id, title, category, tags in ((7, "A [title]", 4, ["gov"]), (10, "Other", 5, [])):
            topic = {"id": id, "title": title, "category_id": category, "tags": tags, "user_id": ANN}
            self.rows.append(records.TopicRecord.read({**topic, "created_at": "2024-01-02T03:04:05.678Z"}))

    def post(self, topic: int, number: int, user: int = ANN, raw: str = "text", **rest: Any) -> str:
        """Add a post; returns its id."""
        self._posts += 1
        post = {"id": self._posts, "topic_id": topic, "post_number": number, "user_id": user, "raw": raw, **rest}
        self.rows.append(records.PostRecord.read({**post, "created_at": f"2024-02-{number:02}T00:00:01.000Z"}))
        return str(self._posts)

    def like(self, post: str, topic: int, user: int) -> None:
        """Add a like."""
        self.rows.append(records.LikeRecord.read({"id": user}, post_id=int(post), topic_id=topic))

    async def build(self, **config: Any) -> PublishedGraph:
        """The graph."""
        archive = archive_of("discourse", FORUM_RECORDS, self.rows)
        return await build_graph_of(manifest, archive, config={"server_url": SERVER, **config})


def edges(built: PublishedGraph, *kind: str) -> set[tuple[str, str]]:
    prefix = ("sourcecred", "discourse", *kind)
    return {
        (edge.src[-1], edge.dst[-1]) for edge in built.graph.edges() if edge.address[: len(prefix)] == prefix
    }  # fmt: skip


async def test_posts_have_authors_topics_and_what_they_answer() -> None:
    forum = Forum()
    first, second = forum.post(7, 1), forum.post(7, 2, BEA)
    third = forum.post(7, 3, ANN, reply_to_post_number=2)
    orphan = forum.post(7, 5, 99, reply_to_post_number=4)
    built = await forum.build()
    assert edges(built, "authors", "post") == {("Ann", first), ("bea.b", second), ("Ann", third)}
    assert edges(built, "authors", "topic") == {("Ann", "7"), ("Ann", "10")}
    assert edges(built, "topicContainsPost") == {("7", post) for post in (first, second, third, orphan)}
    assert edges(built, "replyTo") == {(second, first), (third, second)}
    node = built.graph.node(("sourcecred", "discourse", "post", SERVER, second))
    assert node is not None
    assert (node.description, node.timestamp_ms) == (f"[#2 on A [title]]({SERVER}/t/7/2)", 1706832001000)


async def test_likes_weigh_by_trust_category_and_tags() -> None:
    forum = Forum()
    post, plain = forum.post(7, 1), forum.post(10, 1)
    for user in (ANN, BEA, 99):
        forum.like(post, 7, user)
    forum.like(plain, 10, BEA)
    weights = {"defaultCategoryWeight": 3, "categoryWeights": {"4": 2}, "tagWeights": {"gov": 0.5}}
    built = await forum.build(weights=weights)
    like = ("sourcecred", "discourse", "like", SERVER)
    assert dict(built.graph.node_weights()) == {
        (*like, "Ann", post): 1.0 * 2 * 0.5,
        (*like, "bea.b", post): 0.1 * 2 * 0.5,
        (*like, "bea.b", plain): 0.1 * 3 * 1,
    }
    assert edges(built, "likes") == {(post, post), (plain, plain)}
    has_liked = {address[-1]: weight.forwards for address, weight in built.graph.edge_weights()}
    assert has_liked == {post: 1.0 * 2 * 0.5 + 0.1 * 2 * 0.5, plain: 0.1 * 3 * 1}


async def test_references_lead_to_people_topics_and_posts() -> None:
    forum = Forum()
    target = forum.post(10, 4)
    post = forum.post(7, 1, ANN, f"@BEA.B, see {SERVER}/t/other/10 and [this](/t/other/10/4), @nobody, /t/x/999")
    quoting = forum.post(7, 2, BEA, '[quote="Ann, post:4, topic:10"]\nso?\n[/quote]')
    built = await forum.build()
    assert edges(built, "references", "user") == {(post, "bea.b")}
    assert edges(built, "references", "topic") == {(post, "10")}
    assert edges(built, "references", "post") == {(post, target), (quoting, target)}


async def test_people_are_proposed_and_the_forums_own_are_bots() -> None:
    built = await Forum().build()
    assert {(one.name, one.plugin_name, one.type, one.address[-1]) for one in built.identities} == {
        ("Ann", "discourse", "USER", "Ann"),
        ("bea-b", "discourse", "USER", "bea.b"),
        ("system", "discourse", "BOT", "system"),
    }


async def test_two_with_one_name_are_not_one() -> None:
    forum = Forum()
    forum.rows.append(records.UserRecord.read({"id": 50, "username": "ANN", "trust_level": 4}))
    post = forum.post(7, 1, BEA)
    forum.like(post, 7, ANN)
    forum.like(post, 7, 50)
    built = await forum.build()
    assert {address[-2] for address, _ in built.graph.node_weights()} == {"Ann"}


async def test_without_an_address_there_are_no_links() -> None:
    forum = Forum()
    post = forum.post(7, 1)
    built = await forum.build(server_url=None)
    node = built.graph.node(("sourcecred", "discourse", "post", "town", post))
    assert node is not None and node.description == "#1 on A [title]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`@ann` and\n```\n@ann\n```\n", set()),
        ("mail ann@example.org", set()),
        ("(@ann.)", {Reference(username="ann")}),
        (f"{SERVER}/t/a-topic/12?u=ann", {Reference(topic=12)}),
        (f"{SERVER}/t/12/3", {Reference(topic=12, post_number=3)}),
        (f"{SERVER}/t/2024-plans/12/3#heading", {Reference(topic=12, post_number=3)}),
        (f"{SERVER}/u/Ann/", {Reference(username="ann")}),
        (f"{SERVER}.evil.example/t/x/12", set()),
        ("https://elsewhere.example/t/x/12", set()),
        ("/t/x/12 at the start of it", {Reference(topic=12)}),
        ('[quote="Ann, post:3, topic:12, full:true"]', {Reference(topic=12, post_number=3)}),
    ],
)
def test_references_in_markdown(text: str, expected: set[Reference]) -> None:
    assert set(References(SERVER).of(text)) == expected


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({"server_url": "forum.example.org"}, "server_url"),
        ({"weights": {"categoryWeights": {"four": 1}}}, "weights/categoryWeights/four/[key]"),
        ({"weights": {"tagWeights": {"gov": -1}}}, "weights/tagWeights/gov"),
    ],
)
def test_refusals_name_the_place(config: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as caught:
        manifest.config.model_validate(config)
    assert ["/".join(map(str, error["loc"])) for error in caught.value.errors()] == [place]
