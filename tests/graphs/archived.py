"""Made-up servers and forums as archives, by way of the records of their mirrors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from metagov_sdk import Record
from metagov_sdk.testing import ArchiveInMemory
from plugins.discord import records as discord
from plugins.discord.provider import _read_messages
from plugins.discourse import records as discourse

GUILD_RECORDS: tuple[type[Record], ...] = (
    discord.GuildRecord,
    discord.ChannelRecord,
    discord.ThreadRecord,
    discord.MemberRecord,
    discord.MessageRecord,
    discord.MentionRecord,
    discord.ReactionRecord,
)
FORUM_RECORDS: tuple[type[Record], ...] = (
    discourse.UserRecord,
    discourse.TopicRecord,
    discourse.PostRecord,
    discourse.LikeRecord,
)


def server_archive(api: Mapping[str, Any], guild: str) -> ArchiveInMemory:
    """What the mirror keeps of a server whose API shows this."""
    return archive_of("discord", GUILD_RECORDS, records_of(api, guild))


def records_of(api: Mapping[str, Any], guild: str) -> list[Record]:
    """The records of a server whose API shows this."""
    found: list[Record] = [discord.GuildRecord.read({"id": guild, "name": "Town"})]
    found += map(discord.ChannelRecord.read, api["channels"])
    found += map(discord.ThreadRecord.read, api.get("threads", []))
    found += map(discord.MemberRecord.read, api["members"])
    found += _read_messages(api["messages"], more=False).rows
    for message in api["messages"]:
        for emoji, users in api["reactions"].get(message["id"], {}).items():
            given = {"message_id": message["id"], "channel_id": message["channel_id"], "emoji": emoji}
            found += [discord.ReactionRecord.read({}, **given, user_id=user) for user in users]
    return found


def archive_of(
    provider: str,
    records: Iterable[type[Record]],
    rows: Iterable[Record],
    deleted: Iterable[Mapping[str, Any]] = (),
) -> ArchiveInMemory:
    """Rows of a provider's tables. `deleted`: further ones, each with its `table`, that are not there any more."""
    records = tuple(records)
    tables: dict[str, list[Mapping[str, Any]]] = {f"{provider}.{record.table}": [] for record in records}
    for row in rows:
        tables[f"{provider}.{row.table}"].append(row.model_dump())
    for each in deleted:
        tables[f"{provider}.{each['table']}"].append({name: each[name] for name in each if name != "table"})
    moment = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}
    schemas = {}
    for record in records:
        schema = record.model_json_schema()
        schemas[f"{provider}.{record.table}"] = {
            **schema,
            "properties": {**schema["properties"], "deleted_at": moment},
        }
    return ArchiveInMemory(
        tables,
        schemas=schemas,
        keys={f"{provider}.{record.table}": record.key for record in records},
        partitions={f"{provider}.{record.table}": record.partition for record in records if record.partition},
        times={f"{provider}.{record.table}": record.time for record in records if record.time},
        provider=provider,
    )
