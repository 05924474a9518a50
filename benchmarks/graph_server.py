"""A made-up Discord server of any size: as the source of an archive, and as the database of SourceCred's own mirror."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from app.archives.source import Part, TableInfo
from metagov_sdk import Record
from plugins.discord.records import (
    ChannelRecord,
    GuildRecord,
    MemberRecord,
    MentionRecord,
    MessageRecord,
    ReactionRecord,
)

GUILD = "100000000000000001"
EMOJIS = ("👍", "❤️", "🎉", "🙏", "🔥", "👀", "party:300000000000000001", "orchard:300000000000000002")
CONFIG: dict[str, Any] = {
    "guildId": GUILD,
    "reactionWeightConfig": {"defaultWeight": 1, "weights": {"🎉": 2, EMOJIS[7]: 4}, "applyAveraging": True},
    "propsChannels": ["200000000000000019"],
}
_CHANNELS = 20
_MEMBERS = 500
_BATCH = 2000
_START = datetime(2025, 1, 1, tzinfo=UTC)
_STEP = timedelta(minutes=1)
_DELETED = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}
_WORDS = (
    *("the", "orchard", "meets", "on", "sunday:", "bring", "a", "spade", "&", "something", "warm", "to", "drink,"),
    *("we", "prune", "apple", "<pear>", "and", "plum"),
)


class Server:
    """So many messages, in twenty channels in turn. To each of three in four there are two reactions, and one in four
    names somebody: with 100,000 messages 150,000 reactions and 25,000 mentions.
    """

    provider = "discord"
    community = "town"

    def __init__(self, messages: int) -> None:
        self.messages = messages

    async def tables(self) -> Sequence[TableInfo]:
        """The tables of the gateway's mirror."""
        kinds = (GuildRecord, ChannelRecord, MemberRecord, MessageRecord, MentionRecord, ReactionRecord)
        return [_table(kind) for kind in kinds]

    async def marks(self, table: TableInfo) -> Mapping[Part, str]:
        """Nobody knows."""
        return {}

    async def rows(
        self, table: TableInfo, without: Collection[Part]
    ) -> AsyncGenerator[Sequence[Mapping[str, Any]], None]:
        """All of a table's rows, in order."""
        rows = self.of(table.name)
        while batch := list(islice(rows, _BATCH)):
            yield batch

    def of(self, table: str) -> Iterator[dict[str, Any]]:
        """A table's rows, as the gateway's mirror has them."""
        if table == "discord.guild":
            yield {"id": GUILD, "name": "Orchard"}
        elif table == "discord.channel":
            for number in range(_CHANNELS):
                yield {"id": _channel(number), "name": f"channel-{number}", "type": 0, "position": number}
        elif table == "discord.member":
            for number in range(_MEMBERS):
                yield {
                    "id": _member(number),
                    "username": f"member {number}",
                    "discriminator": f"{number:04}",
                    "bot": number % 100 == 99,
                    "roles": [],
                }
        else:
            for channel in range(_CHANNELS):
                for number in range(channel, self.messages, _CHANNELS):
                    yield from sorted(self._of_message(table, number), key=_key)

    def _of_message(self, table: str, number: int) -> Iterator[dict[str, Any]]:
        id, channel = str(10**18 + number * 4096), _channel(number % _CHANNELS)
        author, turn = number * 7 % _MEMBERS, number // _CHANNELS
        if table == "discord.message":
            yield {
                "id": id,
                "channel_id": channel,
                "author_id": _member(author),
                "author_name": f"member {author}",
                "author_bot": False,
                "type": 0,
                "content": " ".join(_WORDS[number * step % len(_WORDS)] for step in range(1, 3 + number % 17)),
                "timestamp": _START + number * _STEP,
                "pinned": False,
                "files": [],
            }
        elif table == "discord.mention" and turn % 4 == 1:
            yield {"message_id": id, "user_id": _member(author + 11 + turn % 5), "channel_id": channel}
        elif table == "discord.reaction" and turn % 4:
            for which in (0, 1):
                yield {
                    "message_id": id,
                    "channel_id": channel,
                    "emoji": EMOJIS[(number + 3 * which) % len(EMOJIS)],
                    "user_id": _member(author + 1 + turn * (1 + which) % 97),
                }

    def fill(self, database: Path) -> None:
        """Put all of it into the empty database of SourceCred's own mirror.

        Source: src/plugins/discord/mirrorRepository.js of SourceCred 0.11.2.
        """
        connection = sqlite3.connect(database)
        with connection:
            for statement, table, columns in _STATEMENTS:
                connection.executemany(statement, (columns(row) for row in self.of(table)))
        connection.close()


_STATEMENTS: Sequence[tuple[str, str, Any]] = (
    (
        "INSERT INTO channels VALUES (?, 'GUILD_TEXT', ?, NULL)",
        "discord.channel",
        lambda row: (row["id"], row["name"]),
    ),
    (
        "INSERT INTO members VALUES (?, ?, ?, ?, NULL)",
        "discord.member",
        lambda row: (row["id"], row["username"], row["discriminator"], row["bot"]),
    ),
    (
        "INSERT INTO messages VALUES (?, ?, ?, 0, ?, ?)",
        "discord.message",
        lambda row: (
            row["id"],
            row["channel_id"],
            row["author_id"],
            int(row["timestamp"].timestamp() * 1000),
            row["content"],
        ),
    ),
    (
        "INSERT INTO message_reactions VALUES (?, ?, ?, ?)",
        "discord.reaction",
        lambda row: (row["channel_id"], row["message_id"], row["user_id"], row["emoji"]),
    ),
    (
        "INSERT INTO message_mentions VALUES (?, ?, ?, 1)",
        "discord.mention",
        lambda row: (row["channel_id"], row["message_id"], row["user_id"]),
    ),
)


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Of rows of one message, the order in which archives have them."""
    return row.get("emoji", ""), row.get("user_id", "")


def _channel(number: int) -> str:
    return str(200000000000000000 + number)


def _member(number: int) -> str:
    return str(400000000000000000 + number % _MEMBERS)


def _table(kind: type[Record]) -> TableInfo:
    schema = kind.model_json_schema()
    full = {**schema, "properties": {**schema["properties"], "deleted_at": _DELETED}}
    return TableInfo(f"discord.{kind.table}", full, kind.key, kind.partition, kind.time)
