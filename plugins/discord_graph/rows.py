"""What the rules read of an archive of Discord's tables."""

from __future__ import annotations

from datetime import datetime

from pydantic import JsonValue

from metagov_sdk.archive import Row


class Guild(Row, table="discord.guild"):
    """The server."""

    id: str


class Channel(Row, table="discord.channel"):
    """A channel; type 0 is a text channel."""

    id: str
    name: str | None
    type: int | None
    parent_id: str | None
    nsfw: bool | None


class Thread(Row, table="discord.thread"):
    """A thread of the channel `parent_id`."""

    id: str
    name: str | None
    parent_id: str | None


class Member(Row, table="discord.member"):
    """A member. Archives of today also have `discriminator` and `system`; older ones have not."""

    id: str
    username: str | None
    nick: str | None
    bot: bool | None
    roles: JsonValue


class Message(Row, table="discord.message"):
    """A message of a channel or thread."""

    id: str
    author_id: str | None
    webhook_id: str | None
    content: str | None
    timestamp: datetime | None


class Reaction(Row, table="discord.reaction"):
    """Somebody's reaction to a message."""

    message_id: str
    user_id: str
    emoji: str


class Mention(Row, table="discord.mention"):
    """Somebody whom a message names, or whom an answer pings."""

    message_id: str
    user_id: str
