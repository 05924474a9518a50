"""The validator can fail; and all that the plugin asks fits Discourse's published document."""

from __future__ import annotations

from pathlib import Path

import pytest

from metagov_sdk import Place
from metagov_sdk.provider import Page
from plugins.discourse.provider import DiscourseMirror
from tests.fakes.discourse import FakeDiscourse, Recorded
from tests.support import discourse_spec
from tests.support.discourse_spec import Spec, load_spec

KEY = {"api-key": "k", "api-username": "system"}


@pytest.fixture
def spec() -> Spec:
    return load_spec()


def sent(path: str, method: str = "GET", headers: dict[str, str] = KEY, body: bytes = b"", **query: str) -> Recorded:
    return Recorded(method, path, query, headers, body)


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        (sent("/nothing.json"), "no such operation"),
        (sent("/tags"), "no such operation"),
        (sent("/posts.json", method="POST"), "only reads"),
        (sent("/posts.json", before="x"), "before"),
        (sent("/posts.json", after="5"), "the query has no after"),
        (sent("/latest.json", order="newest"), "order"),
        (sent("/latest.json", per_page="101"), "per_page"),
        (sent("/latest.json", topic_ids="1,,2"), "topic_ids"),
        (sent("/categories.json", include_subcategories="yes"), "include_subcategories"),
        (sent("/directory_items.json", period="all"), "order is missing"),
        (sent("/directory_items.json", period="ever", order="post_count"), "period"),
        (sent("/admin/users/list/everybody.json"), "flag"),
        (sent("/admin/users/ada.json"), "id"),
        (sent("/post_action_users.json", id="1", post_action_type_id="3"), "post_action_type_id"),
        (sent("/post_action_users.json", post_action_type_id="2"), "id is missing"),
        (sent("/tags.json", headers={"api-key": "k"}), "Api-Username is missing"),
        (sent("/tags.json", body=b"{}"), "no body"),
    ],
)
def test_what_does_not_fit_is_found(spec: Spec, request_: Recorded, fault: str) -> None:
    (found, *_) = spec.check(request_)
    assert fault in found


def test_what_fits_is_let_be(spec: Spec) -> None:
    fitting = [
        sent("/tags.json"),
        sent("/posts.json", before="50"),
        sent("/latest.json", order="activity", per_page="30"),
        sent("/t/5.json"),
        sent("/directory_items.json", period="all", order="post_count", page="2"),
        sent("/admin/users/-1.json"),
    ]
    assert spec.faults(fitting) == []


def test_a_missing_document_skips_and_fails_where_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discourse_spec, "SPEC", Path("absent.json"))
    monkeypatch.delenv(discourse_spec.REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="not beside the repository"):
        load_spec()
    monkeypatch.setenv(discourse_spec.REQUIRED, "required")
    with pytest.raises(pytest.fail.Exception, match="required"):
        load_spec()


async def test_all_that_the_mirror_asks_fits(spec: Spec, forum: FakeDiscourse, provider: DiscourseMirror) -> None:
    """Every kind of request once; each other test of the plugin is held to the document when it ends."""
    world = forum.world
    people = [world.add_user(f"person{number}") for number in range(120)]
    category = world.add_category("Garden")
    for number in range(120):
        world.add_topic(people[number], category, f"topic {number}")
    last = next(reversed(world.posts.values()))
    last.likes = [user.id for user in people]

    async def read(walk: str, place: Place) -> list[Page]:
        page: Page = await getattr(provider, walk)(place)
        pages = [page]
        while page.next is not None:
            page = await getattr(provider, walk)(Place(place.partition, place.data, page.next, after=place.after))
            pages.append(page)
        return pages

    for walk in ("categories", "tags", "users", "topics", "posts"):
        await read(walk, Place(after=-1))
    await read("likes", Place(str(last.id), [last.topic_id]))
    for walk, number in (("post", last.id), ("topic", last.topic_id), ("user", people[0].id)):
        for place in (Place(str(number)), Place("99999")):
            await read(walk, place)
    lines = {each.path for each in forum.requests}
    assert len(lines) == 8
    assert [each.line for each in forum.requests if each.status not in (200, 404)] == []
    assert spec.faults(forum.requests) == []
