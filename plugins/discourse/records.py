"""The tables of the mirror. Shapes as docs.discourse.org has them, in the lists that the walks read."""

from __future__ import annotations

from datetime import datetime

from metagov_sdk import Record, at


class CategoryRecord(Record):
    """A category, or one within another."""

    table = "category"
    key = ("id",)
    # Counts, what the key's own user may do, and how pages look.
    ignored = (
        *("topic_count", "post_count", "topics_day", "topics_week", "topics_month", "topics_year", "topics_all_time"),
        *("notification_level", "can_edit", "permission", "has_children", "subcategory_ids", "subcategory_list"),
        *("subcategory_count", "topics", "featured_users", "uploaded_logo", "uploaded_logo_dark"),
        *("uploaded_background", "uploaded_background_dark", "topic_template", "description_excerpt", "description"),
    )

    id: int
    name: str | None
    slug: str | None
    parent_category_id: int | None
    """The category it is in."""
    description_text: str | None
    position: int | None
    read_restricted: bool | None


class TagRecord(Record):
    """A tag, by its name: one that is renamed is another."""

    table = "tag"
    key = ("name",)
    ignored = ("id", "text", "count", "pm_count", "topic_count", "pm_only", "staff", "slug")

    name: str
    description: str | None
    target_tag: str | None
    """The tag that it is a synonym of."""


class UserRecord(Record):
    """Somebody with an account, as the list of the admin pages has it, without addresses."""

    table = "user"
    key = ("id",)
    time = "created_at"
    ignored = (
        *("avatar_template", "email", "secondary_emails", "last_seen_at", "last_emailed_at", "last_seen_age"),
        *("last_emailed_age", "created_at_age", "time_read", "days_visited", "posts_read_count", "topics_entered"),
        *("post_count", "topic_count", "flair_url", "flair_color", "flair_bg_color", "flair_name", "ip_address"),
        *("registration_ip_address", "can_be_deleted", "silence_reason", "associated_accounts"),
    )
    people = ("id",)
    names = ("username", "name")

    id: int
    username: str | None
    name: str | None
    title: str | None
    trust_level: int | None
    admin: bool | None
    moderator: bool | None
    active: bool | None
    staged: bool | None
    created_at: datetime | None


class TopicRecord(Record):
    """A topic that is no private message."""

    table = "topic"
    key = ("id",)
    time = "created_at"
    # Counts and times that posts tell, what the key's own user has read, and how pages look.
    ignored = (
        *("posts_count", "reply_count", "highest_post_number", "views", "like_count", "op_like_count", "liked"),
        *("last_posted_at", "bumped", "bumped_at", "last_poster_username", "posters", "has_summary", "fancy_title"),
        *("unseen", "last_read_post_number", "unread", "unread_posts", "new_posts", "notification_level", "bookmarked"),
        *("pinned", "unpinned", "image_url", "thumbnails", "excerpt", "tags_descriptions", "participant_groups"),
    )
    people = ("user_id",)

    id: int
    title: str | None
    slug: str | None
    category_id: int | None
    user_id: int | None
    """Who began it."""
    tags: list[str] | None
    created_at: datetime | None
    archetype: str | None
    visible: bool | None
    closed: bool | None
    archived: bool | None
    pinned_globally: bool | None
    featured_link: str | None


class PostRecord(Record):
    """A post of a topic, as its author wrote it (Markdown). Whispers and the forum's own notices are not among them.

    What was deleted is marked `deleted_at`; so is what is hidden or went with its topic, until it is back.
    """

    table = "post"
    key = ("id",)
    partition = "topic_id"
    time = "created_at"
    # `cooked` is made of `raw`, with addresses that change; people are a table, and likes are.
    ignored = (
        *("cooked", "excerpt", "truncated", "actions_summary", "reply_count", "quote_count", "incoming_link_count"),
        *("reads", "readers_count", "score", "posts_count", "link_counts", "read", "yours", "bookmarked", "post_url"),
        *("username", "name", "display_username", "avatar_template", "user_title", "title_is_group", "trust_level"),
        *("moderator", "admin", "staff", "primary_group_name", "flair_name", "flair_url", "flair_bg_color"),
        *("flair_color", "flair_group_id", "badges_granted", "user_custom_fields", "reply_to_user", "mentioned_users"),
        *("topic_slug", "topic_title", "topic_html_title", "category_id", "can_edit", "can_delete", "can_recover"),
        *("can_see_hidden_post", "can_wiki", "can_view_edit_history", "hidden", "deleted_at", "reviewable_id"),
        *("reviewable_score_count", "reviewable_score_pending_count", "draft_sequence", "user_status"),
    )
    people = ("user_id",)

    id: int
    topic_id: int | None
    post_number: int | None
    post_type: int | None
    reply_to_post_number: int | None
    user_id: int | None
    raw: str | None
    created_at: datetime | None
    updated_at: datetime | None
    version: int | None
    """1 as first written, and one more for each edit that people see."""
    wiki: bool | None
    user_deleted: bool | None
    """Whether its author has withdrawn it: it is deleted a day later."""
    edit_reason: str | None


class LikeRecord(Record):
    """Somebody likes a post."""

    table = "like"
    key = ("post_id", "user_id")
    partition = "topic_id"
    ignored = ("username", "name", "avatar_template", "post_url", "username_lower", "unknown")
    people = ("user_id",)

    post_id: int
    user_id: int = at("id")
    topic_id: int | None
