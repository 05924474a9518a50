"""A server on the fake Discord with a history, what happens to it, and what a mirror of it should hold."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from app.mirrors.columns import tables_of
from plugins.discord import manifest
from tests.fakes.discord import FakeDiscord
from tests.fakes.discord_world import PUBLIC_THREAD, Channel, Guild, Message, User, emoji_wire

_START = datetime(2024, 1, 1, tzinfo=UTC)
EMOJIS = ("👍", "🎉", "party:4242")
Rows = dict[str, dict[tuple[Any, ...], dict[str, Any]]]
"""table → key → the fields that are compared."""


@dataclass(slots=True)
class Said(Message):
    """A message that mentions people."""

    mentions: list[User] = field(default_factory=list)

    def wire(self) -> dict[str, Any]:
        return Message.wire(self) | {"mentions": [user.wire() for user in self.mentions]}


@dataclass(slots=True)
class Town:
    """A server, its people, and a hand that changes it at random, the same way each time."""

    fake: FakeDiscord
    guild: Guild
    people: list[User]
    chance: random.Random
    said: int = 0

    @property
    def channels(self) -> list[Channel]:
        return list(self.guild.channels.values())

    def say(self, channel: Channel, at: datetime | None = None) -> Said:
        """A message of somebody's, with a mention now and then and a reaction or two."""
        self.said += 1
        author = self.chance.choice(self.people)
        mentioned = self.chance.sample(self.people, 2) if self.chance.random() < 0.1 else []
        text = f"message {self.said}" + "".join(f" <@{user.id}>" for user in mentioned)
        message = Said(self.fake.ids.next(at), channel.id, author, text, mentions=mentioned)
        channel.add(message)
        return message

    def react(self, message: Message) -> None:
        for user in self.chance.sample(self.people, self.chance.randint(1, min(4, len(self.people)))):
            message.react(self.chance.choice(EMOJIS), user.id)

    def any_message(self) -> tuple[Channel, Message] | None:
        channel = self.chance.choice(self.channels)
        return (channel, channel.messages[self.chance.choice(channel.order)]) if channel.order else None

    def happen(self, count: int) -> None:
        """So many things happen: messages, edits, deletions, reactions that come and go, threads, people."""
        for _ in range(count):
            self._happen(self.chance.random())

    def _happen(self, what: float) -> None:
        found = self.any_message()
        if what < 0.4 or found is None:
            self.say(self.chance.choice(self.channels))
            return
        channel, message = found
        if what < 0.6:
            message.content += " (edited)"
            message.edited_at = datetime(2026, 6, 2, tzinfo=UTC)
        elif what < 0.7:
            channel.remove(message.id)
        elif what < 0.8:
            self.react(message)
        elif what < 0.88 and message.reactions:
            message.reactions.pop(self.chance.choice(sorted(message.reactions)))
        elif what < 0.91 and channel.is_thread:
            channel.archived = not channel.archived
        elif what < 0.93:
            channel.name += "-renamed"
        elif what < 0.95:
            person = self.fake.add_member(self.guild, f"newcomer{self.said}")
            self.people.append(person)
        elif what < 0.96 and len(self.people) > 5:
            self.guild.members.pop(self.people.pop(0).id, None)
        elif what < 0.97 and len(self.channels) > 3:
            self.remove_channel(channel)
        else:
            self.add_thread(channel)

    def add_thread(self, channel: Channel) -> Channel | None:
        if channel.is_thread:
            return None
        thread = self.fake.add_channel(self.guild, f"thread of {channel.name}", PUBLIC_THREAD, channel)
        thread.archived_at = _START + timedelta(days=900, seconds=len(self.channels))
        self.say(thread)
        return thread

    def remove_channel(self, channel: Channel) -> None:
        """With its threads."""
        for each in [*(thread for thread in self.channels if thread.parent_id == channel.id), channel]:
            self.guild.channels.pop(each.id, None)
            self.fake.channels.pop(each.id, None)


def build_town(
    fake: FakeDiscord, *, channels: int, messages: int, threads: int = 0, people: int = 12, reactions: float = 0.05
) -> Town:
    """A server with a history, the same for the same numbers but for its ids."""
    guild = fake.add_guild("Town")
    town = Town(fake, guild, [fake.add_member(guild, f"person{number}") for number in range(people)], random.Random(7))
    guild.roles[fake.ids.next()] = "baker"
    for number in range(channels - 1):
        fake.add_channel(guild, f"channel {number}")
    plain = list(town.channels)
    for number in range(threads):
        parent = plain[number % len(plain)]
        thread = fake.add_channel(guild, f"thread {number}", PUBLIC_THREAD, parent)
        thread.archived = number % 2 == 0
        thread.archived_at = _START + timedelta(days=800, seconds=number)
    everywhere = town.channels
    for number in range(messages):
        message = town.say(everywhere[number % len(everywhere)], _START + timedelta(minutes=number))
        if town.chance.random() < reactions:
            town.react(message)
    return town


def truth(town: Town) -> Rows:
    """What is on the platform now."""
    channels = town.channels
    rows: Rows = {
        "guild": {(str(town.guild.id),): {"name": town.guild.name}},
        "role": {(str(role),): {"name": name} for role, name in town.guild.roles.items()},
        "channel": {},
        "thread": {},
        "member": {(str(user),): {"nick": member.nick} for user, member in town.guild.members.items()},
        "message": {},
        "mention": {},
        "reaction": {},
    }
    for channel in channels:
        if channel.is_thread:
            rows["thread"][(str(channel.id),)] = {"name": channel.name, "archived": channel.archived}
        else:
            rows["channel"][(str(channel.id),)] = {"name": channel.name}
        for message in channel.messages.values():
            name = str(message.id)
            rows["message"][(name,)] = {
                "content": message.content,
                "author_id": str(message.author.id),
                "channel_id": str(channel.id),
            }
            for user in getattr(message, "mentions", ()):
                rows["mention"][(name, str(user.id))] = {"channel_id": str(channel.id)}
            for emoji, users in message.reactions.items():
                wire = emoji_wire(emoji)
                spelled = f"{wire['name']}:{wire['id']}" if wire["id"] else wire["name"]
                for each in users:
                    rows["reaction"][(name, spelled, str(each))] = {"channel_id": str(channel.id)}
    return rows


async def mirrored(connection: asyncpg.Connection[asyncpg.Record], instance: str, like: Rows) -> Rows:
    """What the tables hold of an instance that is not deleted, in the fields that `like` has."""
    assert manifest.provider is not None
    rows: Rows = {}
    for name, table in tables_of(manifest.provider).items():
        fields = sorted({field for row in like[name].values() for field in row})
        found = await connection.fetch(
            f"SELECT * FROM {table.sql} WHERE instance_id = $1 AND deleted_at IS NULL", instance
        )
        rows[name] = {
            tuple(row[each] for each in table.record.key): {field: row[field] for field in fields} for row in found
        }
    return rows


def differences(found: Rows, wanted: Rows) -> list[str]:
    """What is missing, too many or different, in words; empty when all is equal."""
    said = []
    for table, rows in wanted.items():
        there = found[table]
        said += [f"{table}: {key} is missing" for key in sorted(rows.keys() - there.keys())[:5]]
        said += [f"{table}: {key} is too many" for key in sorted(there.keys() - rows.keys())[:5]]
        both = rows.keys() & there.keys()
        said += [f"{table}: {key} is {there[key]}, not {rows[key]}" for key in both if there[key] != rows[key]][:5]
    return said
