"""What the rules read of an archive of Discord's tables, beside what the SDK reads."""

from __future__ import annotations

from metagov_sdk.archive import Row
from metagov_sdk.graph import discord


class Message(discord.Message):
    """A message with whoever wrote it."""

    author_id: str | None
    webhook_id: str | None


class Reaction(Row, table="discord.reaction"):
    """Somebody's reaction to a message."""

    message_id: str
    user_id: str
