"""Asking a forum: its refusals in plain words, its limits, and windows of ids."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from metagov_sdk import Place, Rejected, Retry, Unauthorized, normalise_url
from metagov_sdk.testing import Binding, bind
from plugins.discourse import manifest
from plugins.discourse.api import Refused
from plugins.discourse.models import DiscourseConfig
from plugins.discourse.plugin import Discourse
from plugins.discourse.provider import DiscourseMirror
from plugins.discourse.records import PostRecord
from plugins.discourse.windows import Window, highest, id_of
from tests.fakes.discourse import FakeDiscourse, Fault


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("https://Forum.Example.org/", "https://forum.example.org"),
        ("https://example.org:443/forum/", "https://example.org/forum"),
        ("http://[::1]:3000", "http://[::1]:3000"),
    ],
)
def test_an_address_has_one_spelling(given: str, wanted: str) -> None:
    assert normalise_url(given) == wanted


@pytest.mark.parametrize(
    "address", ["forum.example.org", "ftp://a.example", "https://u:p@a.example", "https://a.example/?x", "https://a b"]
)
def test_what_is_no_forums_address_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match="should"):
        DiscourseConfig.model_validate({"server_url": address, "api_key": "k"})


@pytest.mark.parametrize("name", ["a b", "a\r\nX: y", "", "ä"])
def test_a_user_name_that_is_no_headers_value_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        DiscourseConfig.model_validate({"server_url": "https://a.example", "api_key": "k", "api_username": name})


async def test_the_key_goes_along_and_nowhere_else(forum: FakeDiscourse, plugin: Discourse) -> None:
    await plugin.ask("tags.json")
    (request,) = forum.requests
    assert (request.headers["api-key"], request.headers["api-username"]) == (forum.api_key, "system")
    assert forum.api_key not in request.path


async def test_a_forum_in_a_subfolder(forum: FakeDiscourse, binding: Binding) -> None:
    config = {**forum.config(), "server_url": forum.url + "/forum/"}
    bound = bind(manifest, config=config, transport=binding["transport"])
    assert isinstance(bound, Discourse)
    with pytest.raises(Refused):
        await bound.ask("tags.json")
    assert [each.path for each in forum.requests] == ["/forum/tags.json"]
    forum.requests.clear()


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (Fault("", 404), Refused, "may not know of it"),
        (Fault("", 422), Refused, "No"),
        (Fault("", 500), Retry, "500"),
        (Fault("", 502), Retry, "502"),
        (Fault("", 301), Refused, "set server_url"),
        (Fault("", 401), Unauthorized, "API key"),
        (Fault("", 429), Retry, "wait"),
    ],
)
async def test_refusals_in_plain_words(
    forum: FakeDiscourse, plugin: Discourse, fault: Fault, error: type[Exception], words: str
) -> None:
    forum.troubles.waiting.append(fault)
    with pytest.raises(error, match=words):
        await plugin.ask("tags.json")


@pytest.mark.parametrize(("told", "wanted"), [(7, 7.0), (None, 1.0)])
async def test_how_long_to_wait_is_in_the_header_or_the_body(
    forum: FakeDiscourse, plugin: Discourse, told: float | None, wanted: float
) -> None:
    forum.troubles.waiting.append(Fault("", 429, retry_after=told))
    with pytest.raises(Retry) as caught:
        await plugin.ask("tags.json")
    assert caught.value.after == wanted


async def test_a_void_key_and_a_closed_page_are_told_apart(forum: FakeDiscourse, plugin: Discourse) -> None:
    forum.troubles.waiting.append(Fault("tags", 403))
    with pytest.raises(Refused, match="may not see it"):
        await plugin.ask("tags.json")
    forum.api_key = "another"
    with pytest.raises(Unauthorized, match="make a new one"):
        await plugin.ask("tags.json")


async def test_a_page_that_is_no_json_is_asked_for_again(binding: Binding) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, text="<html>We are back soon"))
    bound = bind(manifest, config=binding["config"], transport=transport)
    assert isinstance(bound, Discourse)
    with pytest.raises(Retry, match="JSON"):
        await bound.ask("tags.json")


def test_the_limit_is_the_forums_and_stays_below_sixty_a_minute(plugin: Discourse) -> None:
    (limit,) = plugin.limits(httpx.Request("GET", "https://forum.example"))
    assert limit.rate + limit.burst == limit.per == 60
    assert plugin.limit_owner == plugin.config.server_url
    waits = plugin.learn(
        httpx.Request("GET", "https://forum.example"), httpx.Response(429, headers={"Retry-After": "12"})
    )
    assert [(wait.bucket, wait.seconds) for wait in waits] == [(limit.bucket, 12)]  # type: ignore[union-attr]


async def test_the_fakes_limit_is_one_for_all_that_ask(forum: FakeDiscourse, plugin: Discourse) -> None:
    forum.per_minute = 3
    for _ in range(3):
        await plugin.ask("tags.json")
    with pytest.raises(Retry):
        await plugin.ask("categories.json")


@pytest.mark.parametrize("size", [1, 7, 49, 100])
@pytest.mark.parametrize(("at", "top"), [(0, 1), (0, 100), (13, 14), (48, 500)])
def test_windows_hold_every_id_once(at: int, top: int, size: int) -> None:
    held: list[int] = []
    token: Any = Window(at, top, size).token
    while token is not None:
        window = Window.from_token(token)
        held += [number for number in range(1, top + 50) if window.holds({"id": number})]
        token = window.following()
    assert held == list(range(at + 1, top + 1))


@pytest.mark.parametrize("raw", [None, {}, {"id": None}, {"id": "7"}, {"id": True}, {"id": 0}, {"id": 2**40}, [7]])
def test_what_is_no_id(raw: Any) -> None:
    assert id_of(raw) is None
    assert Window(0, 10, 10).holds(raw), "what has no id is not lost"
    assert highest([raw, {"id": 4}]) == 4


async def test_where_private_messages_take_most_ids_windows_widen(
    forum: FakeDiscourse, provider: DiscourseMirror
) -> None:
    """And narrow again where more is than one answer holds, with nothing left out."""
    world = forum.world
    ada = world.add_user("ada")
    topic = world.add_topic(ada, world.add_category("Garden"), "Trees")
    for number in range(330):
        world.add_post(topic, ada, f"post {number}", skip=0 if number % 110 else 20_000)
    page = await provider.posts(Place(after=-1))
    found = [row.id for row in page.rows if isinstance(row, PostRecord)]
    while page.next is not None:
        page = await provider.posts(Place(after=-1, token=page.next))
        found += [row.id for row in page.rows if isinstance(row, PostRecord)]
    assert sorted(found) == list(world.posts)
    assert len(forum.requests) < 100, "60,000 ids would be 1,200 windows"


@pytest.mark.parametrize("walk", ["categories", "tags", "users", "topics", "posts"])
@pytest.mark.parametrize("answer", [None, [None], {}, {"latest_posts": {}, "topic_list": []}, 7])
async def test_another_answer_is_asked_for_again_or_read_as_it_is(binding: Binding, walk: str, answer: Any) -> None:
    """Never an empty page that says it was the last: that would take everything away."""
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=answer))
    bound = bind(manifest, config=binding["config"], transport=transport)
    assert isinstance(bound, Discourse)
    if walk == "users" and answer == [None]:
        return
    with pytest.raises((Retry, Rejected)):
        await getattr(DiscourseMirror(bound), walk)(Place(after=-1))
