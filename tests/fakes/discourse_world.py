"""What a fake forum holds: people, categories, tags, topics, posts and who likes them; and how Discourse writes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

START = datetime(2024, 1, 1, tzinfo=UTC)
REGULAR, SMALL_ACTION, WHISPER = 1, 3, 4
LIKE = 2


def iso(moment: datetime) -> str:
    """As Rails writes times: milliseconds, and Z."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class User:
    """Somebody."""

    id: int
    username: str
    created_at: datetime
    admin: bool = False
    name: str | None = None

    def brief(self) -> dict[str, Any]:
        return {"id": self.id, "username": self.username, "name": self.name, "avatar_template": "/a/{size}.png"}

    def wire(self) -> dict[str, Any]:
        """As in the admin's list."""
        return self.brief() | {
            "active": True,
            "admin": self.admin,
            "moderator": False,
            "last_seen_at": None,
            "last_emailed_at": None,
            "created_at": iso(self.created_at),
            "last_seen_age": None,
            "last_emailed_age": None,
            "created_at_age": 12.5,
            "trust_level": 1,
            "manual_locked_trust_level": None,
            "title": None,
            "time_read": 7,
            "staged": False,
            "days_visited": 3,
            "posts_read_count": 9,
            "topics_entered": 2,
            "post_count": 1,
        }


@dataclass(slots=True)
class Category:
    """A category; `parent` is the one that it is in."""

    id: int
    name: str
    parent: int | None = None


@dataclass(slots=True)
class Post:
    """A post. `deleted`: by staff, who still see it by its id."""

    id: int
    topic_id: int
    number: int
    author: User
    raw: str
    created_at: datetime
    updated_at: datetime
    version: int = 1
    type: int = REGULAR
    hidden: bool = False
    deleted: bool = False
    user_deleted: bool = False
    reply_to: int | None = None
    likes: list[int] = field(default_factory=list)
    odd: dict[str, Any] = field(default_factory=dict)
    """What is written in the place of what should be."""

    def wire(self) -> dict[str, Any]:
        summary: list[dict[str, Any]] = [{"id": 3, "can_act": True}]
        if self.likes:
            summary.insert(0, {"id": LIKE, "count": len(self.likes), "can_act": True})
        return {
            "id": self.id,
            **{name: value for name, value in self.author.brief().items() if name != "id"},
            "user_id": self.author.id,
            "created_at": iso(self.created_at),
            "updated_at": iso(self.updated_at),
            "cooked": f"<p>{self.raw}</p>",
            "raw": self.raw,
            "post_number": self.number,
            "post_type": self.type,
            "topic_id": self.topic_id,
            "topic_slug": f"topic-{self.topic_id}",
            "reply_to_post_number": self.reply_to,
            "version": self.version,
            "actions_summary": summary,
            "hidden": self.hidden,
            "deleted_at": iso(self.updated_at) if self.deleted else None,
            "user_deleted": self.user_deleted,
            "edit_reason": None,
            "wiki": False,
            "reads": 3,
            "score": 0.6,
            "yours": False,
            **self.odd,
        }


@dataclass(slots=True)
class Topic:
    """A topic; `private` is a private message's, which takes ids too."""

    id: int
    title: str
    category_id: int
    author: User
    created_at: datetime
    tags: list[str] = field(default_factory=list)
    closed: bool = False
    visible: bool = True
    pinned: bool = False
    private: bool = False
    deleted: bool = False
    bumped_at: datetime = START

    def wire(self) -> dict[str, Any]:
        """As in a list of topics."""
        return {
            "id": self.id,
            "title": self.title,
            "fancy_title": self.title,
            "slug": f"topic-{self.id}",
            "posts_count": 4,
            "reply_count": 2,
            "highest_post_number": 4,
            "created_at": iso(self.created_at),
            "last_posted_at": iso(self.bumped_at),
            "bumped": True,
            "bumped_at": iso(self.bumped_at),
            "archetype": "private_message" if self.private else "regular",
            "pinned": self.pinned,
            "pinned_globally": self.pinned,
            "unpinned": None,
            "visible": self.visible,
            "closed": self.closed,
            "archived": False,
            "tags": [{"id": number, "name": name, "slug": name} for number, name in enumerate(self.tags, 1)],
            "views": 12,
            "like_count": 1,
            "category_id": self.category_id,
            "featured_link": None,
            "posters": [
                {"extras": None, "description": "Verfasser", "user_id": self.author.id, "primary_group_id": None},
                {"extras": "latest", "description": "Letzter", "user_id": self.author.id + 1},
            ],
        }


@dataclass(slots=True)
class World:
    """All of a forum. Ids count up, and are not used twice."""

    users: dict[int, User] = field(default_factory=dict)
    categories: dict[int, Category] = field(default_factory=dict)
    tags: dict[str, None] = field(default_factory=dict)
    topics: dict[int, Topic] = field(default_factory=dict)
    posts: dict[int, Post] = field(default_factory=dict)
    now: datetime = START
    _last: dict[str, int] = field(default_factory=dict)

    def next_id(self, kind: str, *, skip: int = 0) -> int:
        """The next id of a kind; `skip` leaves some out, as what was deleted does."""
        self._last[kind] = self._last.get(kind, 0) + 1 + skip
        return self._last[kind]

    def tick(self) -> datetime:
        """The next moment; no two are equal."""
        self.now += timedelta(seconds=7)
        return self.now

    def add_user(self, username: str, *, admin: bool = False) -> User:
        user = User(self.next_id("user"), username, self.tick(), admin)
        self.users[user.id] = user
        return user

    def add_category(self, name: str, parent: Category | None = None) -> Category:
        category = Category(self.next_id("category"), name, parent.id if parent else None)
        self.categories[category.id] = category
        return category

    def add_topic(self, author: User, category: Category, title: str, *, private: bool = False) -> Topic:
        """A topic with its first post."""
        topic = Topic(self.next_id("topic"), title, category.id, author, self.tick(), private=private)
        self.topics[topic.id] = topic
        self.add_post(topic, author, f"About {title}")
        return topic

    def add_post(self, topic: Topic, author: User, raw: str, *, skip: int = 0, type: int = REGULAR) -> Post:
        """A reply, or a notice of the forum's own; `skip` leaves out ids before it."""
        number = 1 + sum(post.topic_id == topic.id for post in self.posts.values())
        moment = self.tick()
        post = Post(self.next_id("post", skip=skip), topic.id, number, author, raw, moment, moment, type=type)
        self.posts[post.id] = post
        topic.bumped_at = moment
        return post

    def edit(self, post: Post, raw: str) -> None:
        post.raw, post.version, post.updated_at = raw, post.version + 1, self.tick()

    def shown_topics(self) -> list[Topic]:
        """Those that lists have."""
        return [topic for topic in self.topics.values() if not topic.private and not topic.deleted]

    def shown_posts(self) -> list[Post]:
        """Those that `/posts.json` has, by id. Source: app/models/latest_posts_query.rb."""
        shown = {topic.id for topic in self.shown_topics()}
        return [
            post
            for post in self.posts.values()
            if post.topic_id in shown and post.type == REGULAR and not post.hidden and not post.deleted
        ]
