"""Webhooks: signatures, repetitions, the ping, events and the marks for the mirror."""

from __future__ import annotations

import json
from typing import Any

import pytest

from metagov_sdk import Dirty, HookRequest, Rejected
from metagov_sdk.testing import Binding, HookResult, hook_request, receive, sign_hmac_sha256
from plugins.discourse import manifest
from plugins.discourse.payloads import marks, read_notice
from tests.fakes.discourse import FakeDiscourse
from tests.fakes.discourse_world import Post

HEADER = "X-Discourse-Event-Signature"


@pytest.fixture
def post(forum: FakeDiscourse) -> Post:
    ada = forum.world.add_user("ada")
    topic = forum.world.add_topic(ada, forum.world.add_category("Garden"), "Trees")
    return forum.world.add_post(topic, ada, "an apple tree")


def sent(forum: FakeDiscourse, event: str, kind: str, found: dict[str, Any], **headers: str) -> HookRequest:
    body, named = forum.webhook(event, kind, found)
    return hook_request(body, {**named, **headers})


async def hear(request: HookRequest, binding: Binding, **more: Any) -> HookResult:
    return await receive(manifest, request, **binding, **more)


async def test_a_webhook_becomes_one_event_by_its_author(forum: FakeDiscourse, binding: Binding, post: Post) -> None:
    got = await hear(sent(forum, "post_created", "post", post.wire()), binding)
    assert got.reply.status == 202
    assert got.wire_events == [
        {
            "event_type": "post_created",
            "data": post.wire(),
            "initiator": {"user_id": str(post.author.id), "provider": "discourse", "is_metagov_bot": False},
        }
    ]
    assert [(link.platform_identifier, link.custom_data) for link in got.links] == [
        (str(post.author.id), {"username": "ada"})
    ]


@pytest.mark.parametrize(
    ("event", "kind", "found", "who"),
    [
        ("topic_created", "topic", {"id": 5, "user_id": 3, "created_by": {"id": 3, "username": "ada"}}, "3"),
        ("topic_created", "topic", {"id": 5, "details": {"created_by": {"id": 4, "username": "bob"}}}, "4"),
        ("user_created", "user", {"id": 7, "username": "cat"}, "7"),
        ("post_liked", "like", {"post": {"id": 9, "user_id": 3}, "user": {"id": 8, "username": "dan"}}, "8"),
        ("post_edited", "post", {"id": 9, "user_id": 3}, None),
        ("post_destroyed", "post", {"id": 9, "user_id": 3}, None),
        ("category_updated", "category", {"id": 2}, None),
        ("post_created", "post", {"id": 9, "user_id": "ada"}, None),
    ],
)
async def test_only_who_is_told_is_named(
    forum: FakeDiscourse, binding: Binding, event: str, kind: str, found: dict[str, Any], who: str | None
) -> None:
    """Who edits or deletes a post need not be its author."""
    got = await hear(sent(forum, event, kind, found), binding)
    (wire,) = got.wire_events
    assert wire["event_type"] == event
    assert (wire["initiator"] or {}).get("user_id") == who
    assert len(got.links) == (who is not None)


async def test_what_the_gateway_wrote_itself_is_marked(forum: FakeDiscourse, binding: Binding, post: Post) -> None:
    config = {**forum.config(), "api_username": "ADA"}
    got = await receive(manifest, sent(forum, "post_created", "post", post.wire()), config=config)
    assert got.wire_events[0]["initiator"]["is_metagov_bot"] is True


@pytest.mark.parametrize(
    ("event", "kind", "found", "wanted"),
    [
        ("post_edited", "post", {"id": 9}, [Dirty("post", ("9",))]),
        ("topic_destroyed", "topic", {"id": 5}, [Dirty("topic", ("5",))]),
        ("user_updated", "user", {"id": 7}, [Dirty("user", ("7",))]),
        ("post_liked", "like", {"post": {"id": 9}, "user": {"id": 8}}, [Dirty("post", ("9",))]),
        ("category_updated", "category", {"id": 2}, []),
        ("post_edited", "post", {"id": "9/../1"}, []),
        ("post_liked", "like", {"post": [9]}, []),
    ],
)
def test_what_has_changed_is_marked(
    forum: FakeDiscourse, event: str, kind: str, found: dict[str, Any], wanted: list[Dirty]
) -> None:
    assert list(marks(read_notice(sent(forum, event, kind, found)))) == wanted


async def test_a_retry_is_dropped_though_its_id_is_another(forum: FakeDiscourse, binding: Binding, post: Post) -> None:
    seen: set[str] = set()
    first = await hear(sent(forum, "post_edited", "post", post.wire()), binding, seen=seen)
    again = await hear(sent(forum, "post_edited", "post", post.wire()), binding, seen=seen)
    assert [len(each.events) for each in (first, again)] == [1, 0]
    assert again.reply.status == 200
    forum.world.edit(post, "a pear tree")
    assert (await hear(sent(forum, "post_edited", "post", post.wire()), binding, seen=seen)).events


async def test_what_else_happens_to_it_is_no_repetition(forum: FakeDiscourse, binding: Binding, post: Post) -> None:
    """Deleting leaves `updated_at` as it is; another forum has the same numbers."""
    seen: set[str] = set()
    requests = [
        sent(forum, "post_edited", "post", post.wire()),
        sent(forum, "post_destroyed", "post", post.wire()),
        sent(forum, "post_recovered", "post", post.wire()),
        sent(forum, "topic_edited", "topic", {"id": post.id, "title": "a"}),
        sent(forum, "topic_edited", "topic", {"id": post.id, "title": "b"}),
        sent(forum, "post_edited", "post", post.wire(), **{"X-Discourse-Instance": "https://other.example"}),
    ]
    got = [await hear(request, binding, seen=seen) for request in requests]
    assert [len(each.events) for each in got] == [1] * len(requests)
    assert len({each.key for each in got}) == len(requests)


async def test_the_ping_is_answered_and_is_no_event(forum: FakeDiscourse, binding: Binding) -> None:
    got = await hear(hook_request(*forum.ping()), binding)
    assert (got.reply.status, got.reply.body, got.handled, got.events) == (200, b"pong", False, [])


async def test_a_ping_that_is_not_signed_is_refused(forum: FakeDiscourse, binding: Binding) -> None:
    body, headers = forum.ping()
    assert (await hear(hook_request(body, {**headers, HEADER: "sha256=" + "0" * 64}), binding)).reply.status == 401


@pytest.mark.parametrize("secret", ["another secret of it", "", "the secret of the webhook "])
async def test_another_secret_is_refused(forum: FakeDiscourse, binding: Binding, secret: str) -> None:
    body = json.dumps({"post": {"id": 1}}).encode()
    headers = {"X-Discourse-Event": "post_created", **sign_hmac_sha256(secret, body, header=HEADER)}
    got = await hear(hook_request(body, headers), binding)
    assert (got.reply.status, got.verified, got.events) == (401, False, [])


async def test_a_changed_body_is_refused(forum: FakeDiscourse, binding: Binding, post: Post) -> None:
    request = sent(forum, "post_created", "post", post.wire())
    changed = HookRequest(request.body.replace(b"apple", b"plum!"), request.headers)
    assert (await hear(changed, binding)).reply.status == 401


async def test_githubs_header_is_not_read(forum: FakeDiscourse, binding: Binding) -> None:
    body = b'{"post":{"id":1}}'
    headers = {"X-Discourse-Event": "post_created", **sign_hmac_sha256(forum.secret, body)}
    assert (await hear(hook_request(body, headers), binding)).reply.status == 401


async def test_without_a_secret_nothing_is_believed(forum: FakeDiscourse, binding: Binding, post: Post) -> None:
    config = {**forum.config(), "webhook_secret": None}
    request = sent(forum, "post_created", "post", post.wire())
    got = await receive(manifest, request, config=config)
    assert got.reply.status == 401


@pytest.mark.parametrize(
    ("event", "body"),
    [
        ("", b'{"post":{"id":1}}'),
        ("Post Created", b'{"post":{"id":1}}'),
        ("post_created", b'{"post":[]}'),
        ("post_created", b"{}"),
        ("post_created", b"[1]"),
        ("post_created", b"\xff"),
    ],
)
async def test_what_cannot_be_read_is_refused(forum: FakeDiscourse, binding: Binding, event: str, body: bytes) -> None:
    headers = {"X-Discourse-Event": event, **sign_hmac_sha256(forum.secret, body, header=HEADER)}
    with pytest.raises(Rejected, match="the webhook"):
        await hear(hook_request(body, headers), binding)
