"""Discourse's mirror against the fake: equal to the forum, whatever happens there and to the run."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from app.gateway import Gateway
from app.worker import Drains
from plugins.discourse.plugin import Discourse
from tests.conftest import Driver
from tests.fakes.discourse import FakeDiscourse, Fault, Recorded
from tests.mirrors.conftest import Mirrored
from tests.mirrors.forum import Forum, build_forum, mirrored, truth
from tests.mirrors.town import differences

HOOK = "/api/hooks/town/discourse"


@pytest.fixture(scope="session")
async def discourse_server() -> AsyncIterator[FakeDiscourse]:
    async with FakeDiscourse() as fake:
        yield fake


@pytest.fixture
def fake(discourse_server: FakeDiscourse) -> Iterator[FakeDiscourse]:
    discourse_server.reset()
    yield discourse_server
    discourse_server.reset()


@pytest.fixture(autouse=True)
def _no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin asks as fast as it can: what is tested is not its pace."""
    monkeypatch.setattr(Discourse, "limits", lambda self, request: ())


@dataclass(slots=True)
class ForumMirror(Mirrored):
    """The mirror of a forum."""

    async def differs(self, forum: Forum) -> list[str]:
        """In what the tables differ from the forum."""
        wanted = truth(forum.world)
        async with self.gateway.db.pool.acquire() as connection:
            return differences(await mirrored(connection, self.instance, wanted), wanted)


@pytest.fixture
async def mirror(gateway: Gateway, driver: Driver, fake: FakeDiscourse) -> ForumMirror:
    """The fake's forum, enabled."""
    made = ForumMirror(gateway, driver, "discourse")
    await made.enable(fake.config())
    return made


def table(stands: dict[str, Any], name: str) -> dict[str, Any]:
    return dict(next(each for each in stands["tables"] if each["name"] == f"discourse.{name}"))


async def test_a_first_run_holds_everything(mirror: ForumMirror, fake: FakeDiscourse) -> None:
    forum = build_forum(fake, topics=140, posts=700, people=120)
    stands = await mirror.sync()
    assert await mirror.differs(forum) == []
    assert stands["state"] == "idle"
    assert table(stands, "post")["rows"] == len(forum.world.shown_posts())
    assert all(each["complete_through"] and each["error"] is None for each in stands["tables"])


async def test_an_empty_forum_is_mirrored(mirror: ForumMirror, fake: FakeDiscourse) -> None:
    assert (await mirror.sync())["state"] == "idle"
    assert len(fake.requests) == 5


async def test_an_unchanged_forum_costs_seven_requests_at_most(mirror: ForumMirror, fake: FakeDiscourse) -> None:
    forum = build_forum(fake, topics=150, posts=600, people=150)
    await mirror.sync()
    fake.requests.clear()
    await mirror.sync()
    assert len(fake.requests) <= 7
    assert await mirror.differs(forum) == []


async def test_what_is_new_is_found_without_a_sweep(mirror: ForumMirror, fake: FakeDiscourse) -> None:
    forum = build_forum(fake, topics=20, posts=200)
    await mirror.sync()
    author = forum.world.add_user("newcomer")
    for number in range(130):
        forum.say(forum.any_topic()).likes = [author.id][: number % 2]
    forum.world.add_topic(author, forum.world.categories[1], "news")
    forum.world.add_category("new")
    forum.world.tags["new"] = None
    fake.requests.clear()
    await mirror.sync()
    assert await mirror.differs(forum) == []
    assert sum("post_action_users" not in each.path for each in fake.requests) <= 14


async def test_edits_deletions_and_likes_are_found_by_a_sweep(mirror: ForumMirror, fake: FakeDiscourse) -> None:
    forum = build_forum(fake, topics=30, posts=260, likes=0.3)
    await mirror.sync()
    forum.happen(150)
    stands = await mirror.sync(sweep=True)
    assert await mirror.differs(forum) == []
    assert stands["state"] == "idle"


async def test_a_hidden_post_and_a_deleted_topic_come_back(mirror: ForumMirror, fake: FakeDiscourse) -> None:
    forum = build_forum(fake, topics=5, posts=60, likes=0.5)
    post, topic = forum.any_post(), forum.any_topic()
    await mirror.sync()
    post.hidden = topic.deleted = True
    await mirror.sync(sweep=True)
    assert (await mirror.rows("post"))[str(post.id)]["deleted_at"] is not None
    assert await mirror.differs(forum) == []
    post.hidden = topic.deleted = False
    await mirror.sync(sweep=True)
    assert await mirror.differs(forum) == []


@pytest.mark.parametrize("older", [False, True])
async def test_forums_of_other_years_are_read_too(mirror: ForumMirror, fake: FakeDiscourse, older: bool) -> None:
    """`before` was inclusive, pages of topics had a size of their own; and most ids are private messages'."""
    fake.before_is_inclusive, fake.knows_per_page = older, not older
    forum = build_forum(fake, topics=130, posts=300)
    forum.world.add_post(forum.any_topic(), forum.world.users[1], "much later", skip=40_000)
    for _ in range(60):
        forum.say(forum.any_topic())
    stands = await mirror.sync()
    assert stands["state"] == "idle"
    assert await mirror.differs(forum) == []
    assert sum("/posts.json" in each.path for each in fake.requests) < 60


@pytest.mark.parametrize(("lazy", "older"), [(False, False), (True, False), (False, True)])
async def test_many_categories(mirror: ForumMirror, fake: FakeDiscourse, lazy: bool, older: bool) -> None:
    """Forums give all at once, or twenty at a time with five of those within each."""
    fake.lazy_categories, fake.knows_per_page = lazy, not older
    world = fake.world
    tops = [world.add_category(f"top {number}") for number in range(40)]
    for top, within in ((tops[1], 26), (tops[39], 7), (tops[5], 5)):
        inner = [world.add_category(f"{top.name}, {number}", top) for number in range(within)]
        world.add_category("innermost", inner[-1])
    forum = build_forum(fake, topics=5, posts=20)
    for _ in range(2):
        assert (await mirror.sync(sweep=True))["state"] == "idle"
        assert await mirror.differs(forum) == []
    assert sum("categories" in each.path for each in fake.requests) <= 2 * (12 if lazy else 2)


KINDS = {
    "categories": r"/categories\.json",
    "tags": r"/tags\.json",
    "topics": r"/latest\.json",
    "posts": r"/posts\.json",
    "likes": r"/post_action_users\.json",
    "users": r"/admin/users/list/",
    "user": r"/admin/users/\d",
}
PLACES = (1, 2, 3, 5, 8, 13, 21)
"""Requests at which a run is cut off, whichever they are; besides, at the first and the second of every kind."""


def kind_of(request: Recorded) -> str:
    return next(name for name, pattern in KINDS.items() if re.search(pattern, request.path))


async def cut_off(mirror: ForumMirror, forum: Forum, at: tuple[str, int]) -> bool:
    """Work until the `at[1]`-th request of the kind `at[0]` is under way, and no further. Whether there was one."""
    there = asyncio.Event()
    heard: Counter[str] = Counter()

    def watch(recorded: Recorded) -> None:
        kind = kind_of(recorded)
        heard.update([kind, "any"])
        if heard["any"] % 5 == 0:
            forum.happen(1)
        if at in ((kind, heard[kind]), ("any", heard["any"])):
            there.set()

    forum.fake.watch = watch
    working = asyncio.create_task(mirror.drain())
    reached = asyncio.create_task(there.wait())
    await asyncio.wait({working, reached}, return_when=asyncio.FIRST_COMPLETED)
    cut = there.is_set()
    if not cut:
        working.result()
    for task in (working, reached):
        task.cancel()
    await asyncio.gather(working, reached, return_exceptions=True)
    forum.fake.watch = None
    await mirror.hurry()
    return cut


@pytest.mark.slow
@pytest.mark.parametrize("sweep", [False, True])
async def test_cut_off_at_every_kind_of_request(mirror: ForumMirror, fake: FakeDiscourse, sweep: bool) -> None:
    forum = build_forum(fake, topics=20, posts=160, likes=0.2)
    await mirror.sync()
    wanted = [(kind, number) for kind in KINDS for number in (1, 2)] + [("any", place) for place in PLACES]
    missed = []
    for kind, number in wanted:
        await mirror.work()
        # A sweep finds that somebody is gone, and looks them up; any run reads the likes of new posts.
        leaving = forum.world.add_user("leaving")
        await mirror.sync()
        forum.happen(2)
        forum.world.users.pop(leaving.id, None)
        for _ in range(2):
            forum.say(forum.any_topic()).likes = [1]
        await mirror.ask(sweep=sweep)
        if not await cut_off(mirror, forum, (kind, number)):
            missed.append((kind, number))
    await mirror.work()
    stands = await mirror.sync(sweep=True)
    assert stands["state"] == "idle"
    assert await mirror.differs(forum) == []
    assert {kind for kind, number in missed if number == 1} == (set() if sweep else {"user"})


@pytest.mark.parametrize("sweep", [False, True])
async def test_refused_failed_and_dropped_at_random(mirror: ForumMirror, fake: FakeDiscourse, sweep: bool) -> None:
    forum = build_forum(fake, topics=40, posts=400, likes=0.2)
    fake.troubles.share = 0.1
    fake.watch = lambda recorded: forum.happen(1) if len(fake.requests) % 6 == 0 else None
    for _ in range(2):
        await mirror.sync(sweep=sweep)
    assert {each.status for each in fake.requests} >= {0, 200, 429, 500}
    fake.troubles.share, fake.watch = 0.0, None
    stands = await mirror.sync(sweep=True)
    assert stands["state"] == "idle"
    assert await mirror.differs(forum) == []


async def test_what_is_deleted_between_two_pages_hides_nothing(mirror: ForumMirror, fake: FakeDiscourse) -> None:
    """Lists move up by one when something is deleted; a first run, not a sweep after it, has to hold the rest."""
    forum = build_forum(fake, topics=260, posts=520, people=250)
    world = forum.world
    spare = [user for user in world.users.values() if user.username.startswith("reader")]

    def watch(recorded: Recorded) -> None:
        if kind_of(recorded) == "users" and spare:
            world.users.pop(spare.pop().id)
        elif kind_of(recorded) == "topics":
            world.shown_topics()[-1].deleted = True
        elif kind_of(recorded) == "posts":
            world.shown_posts()[-1].deleted = True

    fake.watch = watch
    await mirror.sync()
    wanted = truth(world)
    async with mirror.gateway.db.pool.acquire() as connection:
        found = await mirrored(connection, mirror.instance, wanted)
    for name in ("user", "topic", "post"):
        assert wanted[name].keys() <= found[name].keys(), name


async def test_a_part_that_is_refused_fails_the_run_and_stops_no_other(
    mirror: ForumMirror, fake: FakeDiscourse
) -> None:
    """The key is an ordinary user's: people are not listed for it."""
    forum = build_forum(fake, topics=10, posts=80)
    fake.admin_key = False
    stands = await mirror.sync()
    assert stands["state"] == "failed"
    assert "may not know of it" in table(stands, "user")["error"]
    assert table(stands, "user")["complete_through"] is None
    assert table(stands, "post")["rows"] == len(forum.world.shown_posts())
    assert table(stands, "post")["complete_through"] is not None
    fake.admin_key = True
    assert (await mirror.sync())["state"] == "idle"
    assert await mirror.differs(forum) == []


async def test_a_void_key_takes_nothing_away(mirror: ForumMirror, fake: FakeDiscourse, driver: Driver) -> None:
    forum = build_forum(fake, topics=5, posts=60)
    await mirror.sync()
    fake.api_key = "another"
    await mirror.ask(sweep=True)
    await mirror.drain()
    (plugin,) = (await driver.get("community/town")).json()["plugins"]
    assert plugin["status"] == "needs_auth"
    assert await mirror.differs(forum) == []


async def test_a_page_that_is_closed_is_not_a_void_key(mirror: ForumMirror, fake: FakeDiscourse) -> None:
    forum = build_forum(fake, topics=5, posts=60)
    fake.troubles.waiting.append(Fault(r"/tags\.json", 403))
    stands = await mirror.sync()
    assert stands["state"] == "failed"
    assert "may not see it" in table(stands, "tag")["error"]
    await mirror.sync()
    assert await mirror.differs(forum) == []


async def test_bad_input_is_kept_and_flagged(mirror: ForumMirror, fake: FakeDiscourse) -> None:
    forum = build_forum(fake, topics=5, posts=60)
    posts = [post for post in forum.world.shown_posts() if post.number > 1][:7]
    oddities: list[dict[str, Any]] = [
        {"raw": None},
        {"raw": "x" * 1_200_000},
        {"raw": 7, "version": "two", "unheard_of": {"deep": [1]}},
        {"created_at": "2099-01-01T00:00:00.000Z"},
        {"actions_summary": "none", "user_id": {}},
        {"raw": "a\0b\ud800"},
        {"id": None, "raw": "of no id"},
    ]
    for post, odd in zip(posts, oddities, strict=True):
        post.odd = odd
    stands = await mirror.sync()
    assert stands["state"] == "idle"
    rows = await mirror.rows("post")
    assert len(rows) == len(forum.world.shown_posts()) - 1
    flags = [json.loads(rows[str(post.id)]["mirror_flags"] or "[]") for post in posts[:6]]
    assert flags[0] == []
    assert flags[1] == ["huge:raw"]
    assert set(flags[2]) == {"type:raw", "type:version"}
    assert flags[3] == ["future:created_at"]
    assert flags[4] == ["type:user_id"]
    assert flags[5] == ["text:raw", "text:extra"]
    assert json.loads(rows[str(posts[2].id)]["extra"]) == {"unheard_of": {"deep": [1]}, "raw": 7, "version": "two"}
    kept = await mirror.gateway.db.pool.fetchval("SELECT body::text FROM mirror_oddities")
    assert "of no id" in kept
    assert (await mirror.sync(sweep=True))["state"] == "idle"


@pytest.mark.parametrize("page", ["/posts.json", "/latest.json", "/categories.json", "/tags.json"])
@pytest.mark.parametrize("strange", [None, [], {"latest_posts": "x", "topic_list": {"topics": 5}}, "text"])
async def test_another_answer_than_discourses_never_empties_a_table(
    mirror: ForumMirror, fake: FakeDiscourse, page: str, strange: Any
) -> None:
    forum = build_forum(fake, topics=5, posts=60)
    await mirror.sync()
    fake.strange[page] = strange
    await mirror.ask(sweep=True)
    await mirror.drain()
    assert await mirror.differs(forum) == []
    assert (await mirror.status())["state"] != "idle"


async def test_a_webhook_marks_what_is_read_again(
    mirror: ForumMirror, fake: FakeDiscourse, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    forum = build_forum(fake, topics=5, posts=60)
    await mirror.sync()
    world = forum.world
    edited, liked, deleted = [post for post in world.shown_posts() if post.number > 1 and not post.likes][:3]
    world.edit(edited, "edited")
    liked.likes = [1, 2]
    deleted.deleted = True
    topic = next(topic for topic in world.shown_topics() if topic.id != deleted.topic_id)
    topic.title = "renamed"
    newcomer = world.add_user("newcomer")
    fresh = forum.say(topic)
    told = [
        ("post_edited", "post", edited.wire()),
        ("post_liked", "like", {"post": liked.wire(), "user": world.users[1].brief()}),
        ("post_destroyed", "post", deleted.wire()),
        ("topic_edited", "topic", topic.wire()),
        ("user_created", "user", newcomer.wire()),
        ("post_created", "post", fresh.wire()),
    ]
    for event, kind, found in told:
        body, headers = fake.webhook(event, kind, found)
        assert (await anonymous.post(HOOK, content=body, headers=headers)).status_code == 202
    fake.requests.clear()
    await drains.until_idle()
    await mirror.work()
    assert await mirror.differs(forum) == []
    assert len(fake.requests) == 7
    assert (await mirror.rows("post"))[str(deleted.id)]["deleted_at"] is not None
