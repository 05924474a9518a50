"""A forum on loopback: the pages of Discourse that are read with an API key, and its signed webhooks.

    async with FakeDiscourse() as forum:
        ada = forum.world.add_user("ada")
        …  {"server_url": forum.url, "api_key": forum.api_key, "webhook_secret": forum.secret} …

Shaped after the published OpenAPI document and, where that is silent, after discourse/discourse. What it holds is in
`discourse_world`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import random
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from aiohttp import web

from tests.fakes.discourse_world import LIKE, Category, World, iso

POSTS_IN_LIST = 50
TOPICS_IN_LIST, MOST_TOPICS = 30, 100
USERS_IN_LIST = 100
CATEGORIES_IN_LIST, SUBCATEGORIES_IN_LIST = 20, 5
LIKES_IN_LIST = 200
DIRECTORY_PAGE, DIRECTORY_PAGES = 50, 10


@dataclass(slots=True)
class Recorded:
    """A request as it came in; `path` still percent-encoded."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    status: int = 0

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(slots=True)
class Fault:
    """What goes wrong with the next `times` requests whose line matches. `drop`: the connection closes instead."""

    match: str
    status: int = 0
    times: int = 1
    drop: bool = False
    retry_after: float | None = 0.02


class Refused(Exception):
    """An answer of Discourse's that is an error."""

    def __init__(self, status: int, kind: str, words: str, **extras: Any) -> None:
        super().__init__(words)
        self.status = status
        self.body = {"errors": [words], "error_type": kind, **({"extras": extras} if extras else {})}


NOT_FOUND = (404, "not_found", "The requested URL or resource could not be found.")
NO_ACCESS = (403, "invalid_access", "You are not permitted to view the requested resource.")
BAD_KEY = (403, "invalid_access", NO_ACCESS[2] + " The API username or key is invalid.")


@dataclass(slots=True)
class Troubles:
    """Faults in waiting, and the share of requests that fail by chance: 429, 500 and a dropped connection in turn."""

    waiting: list[Fault] = field(default_factory=list)
    share: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(5))

    def next(self, line: str) -> Fault | None:
        """The fault that hits this request."""
        for fault in self.waiting:
            if fault.times > 0 and re.search(fault.match, line):
                fault.times -= 1
                return fault
        if self.share and self.chance.random() < self.share:
            kind = self.chance.choice((429, 500, 0))
            return Fault("", kind, drop=not kind)
        return None


class FakeDiscourse:
    """One forum. Tests read and change all of it."""

    def __init__(self) -> None:
        self.secret = "the secret of the webhook"
        self.url = ""
        self._runner: web.AppRunner | None = None
        self._event_ids = 0
        self.reset()

    def reset(self) -> None:
        """An empty forum, of which nothing has been asked."""
        self.world = World()
        self.requests: list[Recorded] = []
        self.troubles = Troubles()
        self.watch: Callable[[Recorded], None] | None = None
        self.api_key = "key-of-the-forum"
        self.admin_key = True
        self.per_minute: int | None = None
        self.before_is_inclusive = False
        self.knows_per_page = True
        self.lazy_categories = False
        self.strange: dict[str, Any] = {}
        self._recent: deque[float] = deque()

    def config(self) -> dict[str, Any]:
        """The plugin's config for this forum."""
        return {"server_url": self.url, "api_key": self.api_key, "webhook_secret": self.secret}

    def webhook(self, event: str, kind: str, found: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
        """A webhook's body and headers; each sending has an id of its own."""
        return self._signed(event, kind, json.dumps({kind: found}).encode())

    def ping(self) -> tuple[bytes, dict[str, str]]:
        """What the admin page's button sends."""
        return self._signed("", "ping", b'{"ping":"OK"}')

    def _signed(self, event: str, kind: str, body: bytes) -> tuple[bytes, dict[str, str]]:
        self._event_ids += 1
        headers = {
            "Content-Type": "application/json",
            "X-Discourse-Instance": self.url,
            "X-Discourse-Event-Id": str(self._event_ids),
            "X-Discourse-Event-Type": kind,
            "X-Discourse-Event-Signature": "sha256=" + hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest(),
        }
        return body, headers | ({"X-Discourse-Event": event} if event else {})

    # The server.

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        query = {name: ",".join(request.query.getall(name)) for name in request.query}
        recorded = Recorded(request.method, request.rel_url.raw_path, query, headers, await request.read())
        self.requests.append(recorded)
        if self.watch is not None:
            self.watch(recorded)
            await asyncio.sleep(0)
        fault = self.troubles.next(recorded.line)
        if fault is not None and fault.drop:
            assert request.transport is not None
            request.transport.close()
            return web.Response(status=500)
        answer = self._failed(fault) if fault is not None else self._answer(recorded)
        recorded.status = answer.status
        return answer

    def _failed(self, fault: Fault) -> web.Response:
        if fault.status == 429:
            return self._limited(fault.retry_after)
        if fault.status >= 500:
            return web.Response(status=fault.status, text="<html>Oops</html>", content_type="text/html")
        status, kind, words = {403: NO_ACCESS, 404: NOT_FOUND}.get(fault.status, (fault.status, "invalid", "No."))
        return web.json_response(Refused(status, kind, words).body, status=status)

    def _limited(self, seconds: float | None) -> web.Response:
        error = Refused(429, "rate_limit", "You have performed this action too many times.", wait_seconds=seconds or 1)
        told = {} if seconds is None else {"Retry-After": str(seconds)}
        return web.json_response(error.body, status=429, headers=told)

    def _answer(self, recorded: Recorded) -> web.Response:
        try:
            self._check(recorded)
            for pattern, read in _ROUTES:
                if found := re.fullmatch(pattern, recorded.path):
                    body = read(self, recorded.query, *found.groups())
                    return web.json_response(self.strange.get(recorded.path, body))
            raise Refused(*NOT_FOUND)
        except Refused as error:
            if error.status == 429:
                return self._limited(1)
            return web.json_response(error.body, status=error.status)

    def _check(self, recorded: Recorded) -> None:
        """The key, and the limit that all admin keys share."""
        if recorded.method != "GET":
            raise Refused(*NOT_FOUND)
        if recorded.headers.get("api-key") != self.api_key or not recorded.headers.get("api-username"):
            raise Refused(*BAD_KEY)
        if self.per_minute is not None:
            now = time.monotonic()
            while self._recent and self._recent[0] <= now - 60:
                self._recent.popleft()
            if len(self._recent) >= self.per_minute:
                raise Refused(429, "rate_limit", "")
            self._recent.append(now)

    def _categories(self, query: dict[str, str]) -> dict[str, Any]:
        """All at once, or as people scroll. Source: app/models/category_list.rb."""
        nested = query.get("include_subcategories") == "true"

        def wire(category: Category) -> dict[str, Any]:
            below = [each for each in self.world.categories.values() if each.parent == category.id]
            named = {} if category.parent is None else {"parent_category_id": category.parent}
            listed = {"subcategory_list": [wire(each) for each in below]} if nested and below else {}
            return {
                "id": category.id,
                "name": category.name,
                "slug": category.name.lower(),
                "position": category.id,
                "read_restricted": False,
                "topic_count": 3,
                "subcategory_ids": [each.id for each in below],
                **named,
                **listed,
            }

        parent = int(query["parent_category_id"]) if "parent_category_id" in query else None
        number = max(int(query.get("page", 1)), 1)
        found = [each for each in self.world.categories.values() if each.parent == parent]
        if self.lazy_categories:
            nested = False
            found = found[(number - 1) * CATEGORIES_IN_LIST : number * CATEGORIES_IN_LIST]
            for top in found[:] if parent is None else ():
                within = [each for each in self.world.categories.values() if each.parent == top.id]
                found += within[:SUBCATEGORIES_IN_LIST]
        elif number > 1 and self.knows_per_page:
            found = []
        listed = [wire(each) for each in found]
        return {"category_list": {"can_create_category": True, "can_create_topic": True, "categories": listed}}

    def _tags(self, query: dict[str, str]) -> dict[str, Any]:
        wire = [
            {"id": number, "text": name, "name": name, "count": 1, "pm_count": 0, "target_tag": None}
            for number, name in enumerate(self.world.tags, 1)
        ]
        # A forum that lists tags by group: the last of them is in one.
        grouped = [{"id": 1, "name": "Group", "tags": wire[2:]}] if len(wire) > 2 else []
        return {"tags": wire[:2], "extras": {"tag_groups": grouped}}

    def _latest(self, query: dict[str, str]) -> dict[str, Any]:
        """Pinned ones come first, but in an order that is asked for. Source: lib/topic_query.rb."""
        topics = self.world.shown_topics()
        if "topic_ids" in query:
            wanted = {int(each) for each in query["topic_ids"].split(",")}
            topics = [topic for topic in topics if topic.id in wanted]
        order = query.get("order", "activity")
        by = (lambda topic: topic.created_at) if order == "created" else (lambda topic: topic.bumped_at)
        topics.sort(key=by, reverse=query.get("ascending") != "true")
        if order in ("activity", "default"):
            topics.sort(key=lambda topic: not topic.pinned)
        size = TOPICS_IN_LIST
        if self.knows_per_page:
            size = max(1, min(int(query.get("per_page", TOPICS_IN_LIST)), MOST_TOPICS))
        start = int(query.get("page", 0)) * size
        page = [topic.wire() for topic in topics[start : start + size]]
        return {"users": [], "topic_list": {"per_page": size, "topics": page}}

    def _topic(self, query: dict[str, str], number: str) -> dict[str, Any]:
        """Staff see what was deleted, with `deleted_at`."""
        topic = self.world.topics.get(int(number))
        if topic is None or (topic.deleted and not self.admin_key):
            raise Refused(*NOT_FOUND)
        posts = [post for post in self.world.posts.values() if post.topic_id == topic.id]
        stream = [post for post in posts if not post.deleted or post.number == 1]
        view = {name: value for name, value in topic.wire().items() if name not in ("posters", "bumped", "bumped_at")}
        return view | {
            "user_id": topic.author.id,
            "deleted_at": iso(topic.bumped_at) if topic.deleted else None,
            "post_stream": {"posts": [post.wire() for post in stream[:20]], "stream": [post.id for post in stream]},
        }

    def _topic_posts(self, query: dict[str, str], number: str) -> dict[str, Any]:
        wanted = {int(each) for each in query.get("post_ids[]", "").split(",") if each}
        found = [post for post in self.world.posts.values() if post.topic_id == int(number) and post.id in wanted]
        return {"post_stream": {"posts": [post.wire() for post in found]}, "id": int(number)}

    def _posts(self, query: dict[str, str]) -> dict[str, Any]:
        """The newest fifty below `before`. Source: app/models/latest_posts_query.rb."""
        posts = sorted(self.world.shown_posts(), key=lambda post: -post.id)
        before = int(query.get("before", 0))
        if before > 0:
            posts = [post for post in posts if post.id < before + self.before_is_inclusive]
        return {"latest_posts": [post.wire() for post in posts[:POSTS_IN_LIST]]}

    def _post(self, query: dict[str, str], number: str) -> dict[str, Any]:
        post = self.world.posts.get(int(number))
        if post is None or (post.deleted and not self.admin_key):
            raise Refused(*NOT_FOUND)
        return post.wire()

    def _post_likes(self, query: dict[str, str]) -> dict[str, Any]:
        """Source: app/controllers/post_action_users_controller.rb; the order is that of the likes."""
        post = self.world.posts.get(int(query["id"]))
        if post is None or (post.deleted and not self.admin_key):
            raise Refused(*NOT_FOUND)
        if query["post_action_type_id"] != str(LIKE):
            raise Refused(*NO_ACCESS)
        size = min(int(query.get("limit", LIKES_IN_LIST)), LIKES_IN_LIST)
        start = int(query.get("page", 0)) * size
        users = [
            self.world.users[each].brief() for each in post.likes[start : start + size] if each in self.world.users
        ]
        told = {"total_rows_post_action_users": len(post.likes)} if len(post.likes) > size else {}
        return {"post_action_users": users, **told}

    def _users(self, query: dict[str, str]) -> list[dict[str, Any]]:
        """Pages are counted from 1. Source: lib/admin_user_index_query.rb."""
        if not self.admin_key:
            raise Refused(*NOT_FOUND)
        users = sorted(self.world.users.values(), key=_created, reverse="asc" not in query)
        start = max(int(query.get("page", 0)) - 1, 0) * USERS_IN_LIST
        return [user.wire() for user in users[start : start + USERS_IN_LIST]]

    def _user(self, query: dict[str, str], number: str) -> dict[str, Any]:
        user = self.world.users.get(int(number))
        if user is None or not self.admin_key:
            raise Refused(*NOT_FOUND)
        return user.wire() | {"ip_address": "192.0.2.1", "can_be_deleted": False}

    def _directory(self, query: dict[str, str]) -> dict[str, Any]:
        """Ends after its eleventh page. Source: app/controllers/directory_items_controller.rb."""
        if "period" not in query:
            raise Refused(400, "invalid_parameters", "period is required")
        page = min(int(query.get("page", 0)), DIRECTORY_PAGES)
        users = list(self.world.users.values())
        found = users[page * DIRECTORY_PAGE : (page + 1) * DIRECTORY_PAGE]
        items = [{"id": user.id, "likes_received": 0, "user": user.brief()} for user in found]
        return {"directory_items": items, "meta": {"total_rows_directory_items": len(users)}}


def _created(user: Any) -> datetime:
    moment: datetime = user.created_at
    return moment


_ROUTES: tuple[tuple[str, Callable[..., Any]], ...] = (
    (r"/categories\.json", FakeDiscourse._categories),
    (r"/tags\.json", FakeDiscourse._tags),
    (r"/latest\.json", FakeDiscourse._latest),
    (r"/t/(\d+)\.json", FakeDiscourse._topic),
    (r"/t/(\d+)/posts\.json", FakeDiscourse._topic_posts),
    (r"/posts\.json", FakeDiscourse._posts),
    (r"/posts/(\d+)\.json", FakeDiscourse._post),
    (r"/post_action_users\.json", FakeDiscourse._post_likes),
    (r"/admin/users/list/active\.json", FakeDiscourse._users),
    (r"/admin/users/(-?\d+)\.json", FakeDiscourse._user),
    (r"/directory_items\.json", FakeDiscourse._directory),
)
