"""The tables of the mirror. Shapes as docs.discord.com/developers/resources has them."""

from __future__ import annotations

from datetime import datetime

from pydantic import JsonValue

from metagov_sdk import Record, at


class GuildRecord(Record):
    """The server."""

    table = "guild"
    key = ("id",)
    # Roles are a table; the rest changes by itself, or is large and of no use to a community.
    ignored = ("roles", "emojis", "stickers", "approximate_member_count", "approximate_presence_count", "features")

    id: str
    name: str | None
    description: str | None
    owner_id: str | None


class RoleRecord(Record):
    """A role of the server; the one whose id is the server's own is everybody's."""

    table = "role"
    key = ("id",)
    ignored = ("tags",)

    id: str
    name: str | None
    position: int | None
    permissions: str | None
    managed: bool | None


class ChannelRecord(Record):
    """A channel or a category; threads have a table of their own."""

    table = "channel"
    key = ("id",)
    ignored = ("last_message_id", "last_pin_timestamp", "guild_id")

    id: str
    name: str | None
    type: int | None
    parent_id: str | None
    """The category it is in."""
    topic: str | None
    position: int | None
    nsfw: bool | None
    permission_overwrites: JsonValue


class ThreadRecord(Record):
    """A thread of a channel, archived or not."""

    table = "thread"
    key = ("id",)
    ignored = (
        *("last_message_id", "last_pin_timestamp", "guild_id"),
        *("message_count", "total_message_sent", "member_count", "member"),
    )
    people = ("owner_id",)

    id: str
    name: str | None
    type: int | None
    parent_id: str | None
    """The channel it is in."""
    owner_id: str | None
    archived: bool | None = at("thread_metadata", "archived")
    locked: bool | None = at("thread_metadata", "locked")
    archived_at: datetime | None = at("thread_metadata", "archive_timestamp")


class MemberRecord(Record):
    """A member of the server. One who has left is deleted."""

    table = "member"
    key = ("id",)
    ignored = ("user", "avatar", "banner", "communication_disabled_until", "permissions")
    people = ("id",)
    names = ("username", "global_name", "nick")

    id: str = at("user", "id")
    username: str | None = at("user", "username")
    global_name: str | None = at("user", "global_name")
    bot: bool | None = at("user", "bot")
    system: bool | None = at("user", "system")
    discriminator: str | None = at("user", "discriminator")
    """Four digits for bots, `0` for people since 2023."""
    nick: str | None
    roles: list[str] | None
    joined_at: datetime | None
    pending: bool | None


class MessageRecord(Record):
    """A message of a channel or thread, as it was when it was last read."""

    table = "message"
    key = ("id",)
    partition = "channel_id"
    time = "timestamp"
    # Mentions and reactions are tables; links to attachments and previews are signed anew each time they are read.
    ignored = (
        *("author", "member", "mentions", "reactions", "attachments", "embeds"),
        *("referenced_message", "thread", "guild_id", "resolved"),
    )
    people = ("author_id",)
    names = ("author_name",)

    id: str
    channel_id: str | None
    author_id: str | None = at("author", "id")
    author_name: str | None = at("author", "username")
    author_bot: bool | None = at("author", "bot")
    webhook_id: str | None
    type: int | None
    content: str | None
    timestamp: datetime | None
    edited_timestamp: datetime | None
    reply_to: str | None = at("message_reference", "message_id")
    pinned: bool | None
    files: list[str] | None
    """The names of its attachments."""


class MentionRecord(Record):
    """Somebody whom a message mentions."""

    table = "mention"
    key = ("message_id", "user_id")
    partition = "channel_id"
    people = ("user_id",)

    message_id: str
    user_id: str
    channel_id: str | None


class ReactionRecord(Record):
    """One person's reaction to a message."""

    table = "reaction"
    key = ("message_id", "emoji", "user_id")
    partition = "channel_id"
    people = ("user_id",)

    message_id: str
    emoji: str
    """The character, or `name:id` of one of the server's own."""
    user_id: str
    channel_id: str | None
