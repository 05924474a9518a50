"""What the rules read of an archive of Discord's tables."""

from __future__ import annotations

from datetime import datetime

from metagov_sdk.archive import Row


class Guild(Row, table="discord.guild"):
    """The server."""

    id: str


class Channel(Row, table="discord.channel"):
    """A channel."""

    id: str
    name: str | None


class Thread(Channel, table="discord.thread"):
    """A thread."""


class Member(Row, table="discord.member"):
    """A member."""

    id: str
    username: str | None
    nick: str | None
    bot: bool | None


class Message(Row, table="discord.message"):
    """A message; `reply_to` is set if it answers another."""

    id: str
    author_id: str | None
    webhook_id: str | None
    reply_to: str | None
    content: str | None
    timestamp: datetime | None


class Mention(Row, table="discord.mention"):
    """Somebody whom a message names, or whom an answer pings."""

    message_id: str
    user_id: str


class Reaction(Row, table="discord.reaction"):
    """Somebody's reaction to a message."""

    message_id: str
    user_id: str
