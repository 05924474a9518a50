"""The messages of votes: posted once, found again after a lost answer, drawn anew."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from metagov_sdk import Rejected
from plugins.discord.api import UNKNOWN_CHANNEL, UNKNOWN_MESSAGE, Refused

if TYPE_CHECKING:
    from plugins.discord.plugin import Discord

NONCE_LENGTH = 25
"""Characters. Source: docs.discord.com/developers/resources/message#create-message."""
PAGE = 100
LOOK_BACK = timedelta(days=1)
MOST_PAGES = 20
_EPOCH_MS = 1_420_070_400_000


def nonce_of(key: str) -> str:
    """A message's nonce: Discord makes one message for it, however often it is asked to within a few minutes."""
    return hashlib.sha256(key.encode()).hexdigest()[:NONCE_LENGTH]


def made_at(snowflake: str) -> datetime:
    """When an id was given out. Source: docs.discord.com/developers/reference#snowflakes."""
    return datetime.fromtimestamp(((int(snowflake) >> 22) + _EPOCH_MS) / 1000, UTC)


async def post_message(discord: Discord, channel: str, body: dict[str, JsonValue], key: str) -> dict[str, Any]:
    """Post a message once for each `key`; Discord's message. Keys of different channels never meet."""
    nonce: dict[str, JsonValue] = {
        "nonce": nonce_of(f"{discord.config.guild_id}/{channel}/{key}"),
        "enforce_nonce": True,
    }
    message: dict[str, Any] = await discord.ask("POST", f"channels/{channel}/messages", json={**body, **nonce})
    return message


async def edit_message(discord: Discord, channel: str, message: str, body: dict[str, JsonValue]) -> None:
    """Put `body` in the place of a message; one that somebody has deleted stays deleted."""
    try:
        await discord.ask("PATCH", f"channels/{channel}/messages/{message}", json=body)
    except Refused as error:
        if error.code not in (UNKNOWN_MESSAGE, UNKNOWN_CHANNEL):
            raise
        discord.log.warning("a vote's message has been deleted", channel=channel, message=message)


async def find_message(
    discord: Discord, channel: str, matches: Callable[[dict[str, Any]], bool]
) -> dict[str, Any] | None:
    """The bot's own message that matches, newest first; None when there is none of the last day.

    Raises Rejected when so much was posted that it would take too long to look: nothing is posted a second time on a
    guess.
    """
    bot = await discord.bot_id()
    before: dict[str, str] = {}
    for _ in range(MOST_PAGES):
        query = {"limit": str(PAGE), **before}
        page = await discord.ask("GET", f"channels/{channel}/messages", query=query) or []
        for message in page:
            if message["author"]["id"] == bot and matches(message):
                found: dict[str, Any] = message
                return found
        if len(page) < PAGE or made_at(page[-1]["id"]) < discord.now - LOOK_BACK:
            return None
        before = {"before": page[-1]["id"]}
    raise Rejected("the answer to its start was lost, and the channel holds too much since to tell whether it is there")
