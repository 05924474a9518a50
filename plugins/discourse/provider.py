"""The mirror of a forum: categories, tags, people, topics, posts and likes.

Sources: docs.discourse.org for the pages; `topic_ids` and the pages that it leaves out are named where they are asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, cast

from metagov_sdk import Child, DataProvider, Page, Place, Retry, detail, listing, log, lookup
from plugins.discourse.api import Refused
from plugins.discourse.plugin import Discourse
from plugins.discourse.records import (
    CategoryRecord,
    LikeRecord,
    PostRecord,
    TagRecord,
    TopicRecord,
    UserRecord,
)
from plugins.discourse.windows import Window, highest, id_of, start_of

_LIKE = 2
_CATEGORIES = 20
_POSTS = 50
_POST_WINDOW = _POSTS - 1
"""`before` is exclusive today and was inclusive once: 49 ids fit into one answer either way."""
_FEW = 10
"""Where a window holds less, the next is wider: most ids may be those of private messages."""
_WIDEST = 1 << 20
_TOPICS = 100
_SMALL = 30
"""Topics in an answer unless the forum is asked for more."""
_LIKES = 200
_USERS = 100
_USER_FIELDS = (
    "id",
    "username",
    "name",
    "title",
    "trust_level",
    "admin",
    "moderator",
    "active",
    "staged",
    "created_at",
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class DiscourseMirror(DataProvider[Discourse]):
    """One forum: its categories, tags, people, topics, posts and likes, as far as the key's user may see them.

    New topics, posts and people are found by their ids, a request or two each. Edits, deletions and likes are found
    when a webhook tells of them, and when everything is read again.
    """

    every: ClassVar[timedelta] = timedelta(minutes=15)
    sweep_every: ClassVar[timedelta] = timedelta(days=1)

    @listing(CategoryRecord)
    async def categories(self, place: Place) -> Page:
        """All categories, those within others too.

        A forum that loads them as people scroll gives twenty at a time and some of those within each: the rest is asked
        for by `page` and `parent_category_id`. Others give all at once. Source: app/models/category_list.rb.
        """
        parent, number, first, waiting = cast("list[Any]", place.token or [None, 1, None, []])
        query = {"include_subcategories": "true"}
        query |= {"page": str(number)} if number > 1 else {}
        query |= {"parent_category_id": str(parent)} if parent is not None else {}
        found = _list(_get(await self.plugin.ask("categories.json", query), "category_list"), "categories")
        if number > 1 and found and id_of(found[0]) == first:
            # An older forum, that knows of no pages.
            found = []
        listed = _nested(found)
        ids = {id_of(each) for each in listed}
        more = [whole for each in listed if (whole := id_of(each)) and whole != parent and _lacks(each, ids)]
        waiting = [*waiting, *more]
        page = [CategoryRecord.read(each) for each in listed]
        if len(found) >= _CATEGORIES:
            return Page(page, next=[parent, number + 1, id_of(found[0]), waiting])
        return Page(page, next=[waiting[0], 1, None, waiting[1:]] if waiting else None)

    @listing(TagRecord)
    async def tags(self, place: Place) -> Page:
        """All tags; a forum may list them by group."""
        found = await self.plugin.ask("tags.json")
        groups = _get(_get(found, "extras"), "tag_groups")
        everywhere = [found, *(groups if isinstance(groups, list) else ())]
        raw = [each for part in everywhere for each in _list(part, "tags")]
        return Page([TagRecord.read(each, name=_get(each, "name") or _get(each, "text")) for each in raw])

    @log(UserRecord, position=lambda row: _microseconds(row.created_at), newest_first=True, missing="look")
    async def users(self, place: Place) -> Page:
        """Everybody, the newest first.

        Each page but the first is read before the one that precedes it: whoever has moved up to that, because somebody
        was deleted, is found there.
        """
        number = int(str(place.token or 1))
        found = await self._users(number)
        more = len(found) >= _USERS
        if number > 1:
            found = [*await self._users(number - 1), *found]
        return Page([UserRecord.read(each) for each in found], next=number + 1 if more else None)

    @log(TopicRecord, position=lambda row: row.id, overlap=_TOPICS // 2, missing="look")
    async def topics(self, place: Place) -> Page:
        """Topics, by windows of ids. The list puts pinned ones first, unless it is asked for in order of creation."""
        if place.token is None:
            newest = highest(await self._topics({}))
            window = Window(start_of(place), newest or 0, _TOPICS)
            return Page(next=window.token if window.at < window.top else None)
        window = Window.from_token(place.token)
        ids = range(window.at + 1, window.last + 1)
        found = await self._topics({"topic_ids": ",".join(map(str, ids)), "per_page": str(_TOPICS)})
        if len(found) < len(ids) and len(found) == _SMALL < window.size:
            # A forum from before `per_page`: it may have left some out.
            return Page(next=Window(window.at, window.top, _SMALL).token)
        return Page(_topics(each for each in found if window.holds(each)), next=window.following())

    @log(PostRecord, position=lambda row: row.id, overlap=_POST_WINDOW - 10, missing="look")
    async def posts(self, place: Place) -> Page:
        """All topics' posts, by windows of ids; the newest fifty are enough where they reach back far enough."""
        if place.token is None:
            found = await self._posts(None)
            numbers = [number for each in found if (number := id_of(each)) is not None]
            top = max(numbers, default=0)
            window = Window(start_of(place), top, _POST_WINDOW)
            if top - _POST_WINDOW > window.at and min(numbers) > window.at + 1:
                return Page(next=window.token)
            return _read_posts(each for each in found if id_of(each) is None or (id_of(each) or 0) > window.at)
        window = Window.from_token(place.token)
        found = await self._posts(window.last + 1)
        lowest = min((number for each in found if (number := id_of(each)) is not None), default=window.last)
        if window.size > _POST_WINDOW and lowest > window.at:
            # More than one answer holds, or may: nothing that lies before the window is in it.
            return Page(next=Window(window.at, window.top, max(window.size // 4, _POST_WINDOW)).token)
        page = _read_posts(each for each in found if window.holds(each))
        size = min(window.size * 2, _WIDEST) if len(page.rows) < _FEW else _POST_WINDOW
        return Page(page.rows, children=page.children, next=window.following(size))

    @detail(LikeRecord, parent="posts")
    async def likes(self, place: Place) -> Page:
        """Who likes a post: `data` is its topic. Source: app/controllers/post_action_users_controller.rb."""
        (topic,) = cast("list[int | None]", place.data)
        number = int(str(place.token or 0))
        query = {
            "id": place.partition,
            "post_action_type_id": str(_LIKE),
            "page": str(number),
            "limit": str(_LIKES),
        }
        try:
            found = _list(await self.plugin.ask("post_action_users.json", query), "post_action_users")
        except Refused as error:
            if error.status != 404:
                raise
            return Page(gone=[(PostRecord, (int(place.partition),))])
        rows = [LikeRecord.read(each, post_id=int(place.partition), topic_id=topic) for each in found]
        return Page(rows, next=number + 1 if len(found) >= _LIKES else None)

    @lookup(PostRecord)
    async def post(self, place: Place) -> Page:
        """A post by its id, in the list that the walk reads: what that does not show is not there."""
        number = int(place.partition)
        page = _read_posts(each for each in await self._posts(number + 1) if id_of(each) == number)
        if not page.rows:
            return Page(gone=[(PostRecord, (number,))])
        return Page(page.rows, children=page.children, under=("posts", ""))

    @lookup(TopicRecord)
    async def topic(self, place: Place) -> Page:
        """A topic by its id, in the list that the walk reads."""
        number = int(place.partition)
        rows = _topics(each for each in await self._topics({"topic_ids": str(number)}) if id_of(each) == number)
        return Page(rows, under=("topics", "")) if rows else Page(gone=[(TopicRecord, (number,))])

    @lookup(UserRecord)
    async def user(self, place: Place) -> Page:
        """Somebody by their id."""
        number = int(place.partition)
        try:
            found = await self.plugin.ask(f"admin/users/{number}.json")
        except Refused as error:
            if error.status == 404:
                return Page(gone=[(UserRecord, (number,))])
            raise
        raw = {name: found[name] for name in _USER_FIELDS if name in found} if isinstance(found, dict) else found
        return Page([UserRecord.read(raw)], under=("users", ""))

    async def _users(self, number: int) -> list[Any]:
        """A page of the admin's list of people; pages are counted from 1."""
        found = await self.plugin.ask("admin/users/list/active.json", {"order": "created", "page": str(number)})
        if not isinstance(found, list):
            raise Retry("the forum answers something else than its people")
        return found

    async def _topics(self, query: dict[str, str]) -> list[Any]:
        """Source of `topic_ids`, which docs.discourse.org leaves out: `public_valid_options` in lib/topic_query.rb."""
        found = await self.plugin.ask("latest.json", {"order": "created", **query})
        return _list(_get(found, "topic_list"), "topics")

    async def _posts(self, before: int | None) -> list[Any]:
        """The newest fifty posts, of those with a lower id than `before` (or, in older forums, that one too)."""
        query = {} if before is None else {"before": str(before)}
        return _list(await self.plugin.ask("posts.json", query), "latest_posts")


def _topics(found: Any) -> list[TopicRecord]:
    return [TopicRecord.read(each, user_id=_first_poster(each), tags=_tag_names(each)) for each in found]


def _first_poster(topic: Any) -> Any:
    """Who began the topic is named first of its posters. Source: app/models/topic_posters_summary.rb."""
    posters = _get(topic, "posters")
    return _get(posters[0], "user_id") if isinstance(posters, list) and posters else None


def _tag_names(topic: Any) -> Any:
    """Tags are objects with names, and were their names once."""
    tags = _get(topic, "tags")
    if not isinstance(tags, list):
        return tags
    return [_get(each, "name") if isinstance(each, dict) else each for each in tags]


def _read_posts(found: Any) -> Page:
    rows: list[PostRecord] = []
    children: list[Child] = []
    for raw in found:
        row = PostRecord.read(raw)
        rows.append(row)
        likes = _likes(raw)
        children.append(Child("likes", str(row.id), row, data=[row.topic_id], fingerprint=str(likes) if likes else ""))
    return Page(rows, children=children)


def _likes(post: Any) -> int:
    """How many like it; a post that nobody likes says nothing of likes, or 0."""
    for each in _get(post, "actions_summary") or ():
        if _get(each, "id") == _LIKE and isinstance(count := _get(each, "count"), int):
            return count
    return 0


def _nested(categories: Sequence[Any]) -> list[Any]:
    """Categories with those that are within them."""
    return [each for top in categories for each in (top, *_nested(_get(top, "subcategory_list") or ()))]


def _lacks(category: Any, ids: set[int | None]) -> bool:
    """Whether categories are within it that are not among those listed."""
    within = _get(category, "subcategory_ids")
    return isinstance(within, list) and any(isinstance(each, int) and each not in ids for each in within)


def _get(raw: Any, name: str) -> Any:
    return raw.get(name) if isinstance(raw, dict) else None


def _list(raw: Any, name: str) -> list[Any]:
    """Raises Retry for what holds no such list: something else than Discourse answers."""
    value = _get(raw, name)
    if not isinstance(value, list):
        raise Retry(f"the forum answers something else than its {name.replace('_', ' ')}")
    return value


def _microseconds(moment: datetime | None) -> int:
    if moment is None:
        raise ValueError("no time")
    return (moment - _EPOCH) // timedelta(microseconds=1)
