"""What the rules read of an archive of Discourse's tables."""

from __future__ import annotations

from datetime import datetime

from pydantic import JsonValue

from metagov_sdk.archive import Row


class User(Row, table="discourse.user"):
    """Somebody with an account."""

    id: int
    username: str | None
    trust_level: int | None


class Topic(Row, table="discourse.topic"):
    """A topic."""

    id: int
    title: str | None
    category_id: int | None
    user_id: int | None
    tags: JsonValue
    created_at: datetime | None


class Post(Row, table="discourse.post"):
    """A post; `post_number` counts within the topic from 1 on."""

    id: int
    topic_id: int
    post_number: int | None
    reply_to_post_number: int | None
    user_id: int | None
    raw: str | None
    created_at: datetime | None


class Like(Row, table="discourse.like"):
    """Somebody likes a post of a topic."""

    post_id: int
    user_id: int
    topic_id: int
