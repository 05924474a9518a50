"""What the fake Discord holds: guilds with their channels, members, roles, commands; messages, reactions, poll votes.

Shapes as Discord's OpenAPI document has them. All people are invented. Lists are kept in the order of their ids, and
found by bisection, so that a guild of hundreds of channels with tens of thousands of messages is paged in no time.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH_MS = 1_420_070_400_000
"""The first second of 2015, from which snowflakes count. Source: docs.discord.com/developers/reference#snowflakes."""

TEXT, ANNOUNCEMENT_THREAD, PUBLIC_THREAD, PRIVATE_THREAD, DM = 0, 10, 11, 12, 1
SEEN_BY_ALL, SEEN_BY_ONE = 0, 64


def snowflake_at(moment: datetime) -> int:
    """The lowest id of a moment."""
    return (int(moment.timestamp() * 1000) - EPOCH_MS) << 22


def moment_of(snowflake: int) -> datetime:
    """When an id was given out."""
    return datetime.fromtimestamp(((snowflake >> 22) + EPOCH_MS) / 1000, UTC)


class Snowflakes:
    """Ids that rise, even within one millisecond."""

    def __init__(self) -> None:
        self._last = 0
        self._earlier = 0

    def next(self, at: datetime | None = None) -> int:
        """The next id: now, or at another time (for histories)."""
        if at is not None:
            self._earlier += 1
            return snowflake_at(at) + (self._earlier & 0x3FFFFF)
        self._last = max(self._last + 1, snowflake_at(datetime.now(UTC)))
        return self._last


@dataclass(slots=True)
class User:
    """A person, or a bot."""

    id: int
    username: str
    global_name: str | None = None
    bot: bool = False

    def wire(self) -> dict[str, Any]:
        return {
            "id": str(self.id),
            "username": self.username,
            "discriminator": "0",
            "global_name": self.global_name,
            "avatar": None,
            "public_flags": 0,
            "flags": 0,
            **({"bot": True} if self.bot else {}),
        }


@dataclass(slots=True)
class Member:
    """A user in a guild."""

    user: User
    nick: str | None = None
    roles: list[int] = field(default_factory=list)
    joined_at: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def wire(self) -> dict[str, Any]:
        return {
            "user": self.user.wire(),
            "nick": self.nick,
            "avatar": None,
            "banner": None,
            "roles": [str(role) for role in self.roles],
            "joined_at": self.joined_at.isoformat(),
            "premium_since": None,
            "communication_disabled_until": None,
            "pending": False,
            "deaf": False,
            "mute": False,
            "flags": 0,
        }


@dataclass(slots=True)
class Poll:
    """A native poll and who voted for which of its answers."""

    question: str
    answers: list[str]
    expiry: datetime
    multiple: bool = False
    finalized: bool = False
    votes: dict[int, list[int]] = field(default_factory=dict)
    """Voters' ids by answer, from 1, each list in the order of ids."""

    def vote(self, user: int, *answers: int) -> None:
        """What a member does in the app: choose again, or take the vote back with no answer."""
        for voters in self.votes.values():
            if user in voters:
                voters.remove(user)
        for answer in answers:
            voters = self.votes.setdefault(answer, [])
            voters.insert(bisect_left(voters, user), user)

    def wire(self) -> dict[str, Any]:
        counts = [
            {"id": answer, "count": len(voters), "me_voted": False} for answer, voters in self.votes.items() if voters
        ]
        return {
            "question": {"text": self.question},
            "answers": [
                {"answer_id": number, "poll_media": {"text": text}} for number, text in enumerate(self.answers, 1)
            ],
            "expiry": self.expiry.isoformat(),
            "allow_multiselect": self.multiple,
            "layout_type": 1,
            "results": {"answer_counts": counts, "is_finalized": self.finalized},
        }


@dataclass(slots=True)
class Message:
    """A message; `flags` 64 are seen by one person only."""

    id: int
    channel_id: int
    author: User
    content: str = ""
    embeds: list[dict[str, Any]] = field(default_factory=list)
    components: list[dict[str, Any]] = field(default_factory=list)
    allowed_mentions: dict[str, Any] | None = None
    flags: int = 0
    poll: Poll | None = None
    nonce: str | int | None = None
    edits: int = 0
    edited_at: datetime | None = None
    reference: dict[str, Any] | None = None
    snapshots: list[dict[str, Any]] = field(default_factory=list)
    reactions: dict[str, list[int]] = field(default_factory=dict)

    @property
    def custom_ids(self) -> list[str]:
        """Of its buttons and selects, in order."""
        return [
            item["custom_id"] for row in self.components for item in row.get("components", ()) if "custom_id" in item
        ]

    def react(self, emoji: str, user: int) -> None:
        """What a member does in the app."""
        users = self.reactions.setdefault(emoji, [])
        at = bisect_left(users, user)
        if at == len(users) or users[at] != user:
            users.insert(at, user)

    def wire(self) -> dict[str, Any]:
        whole: dict[str, Any] = {
            "id": str(self.id),
            "type": 0,
            "channel_id": str(self.channel_id),
            "author": self.author.wire(),
            "content": self.content,
            "timestamp": moment_of(self.id).isoformat(),
            "edited_timestamp": self.edited_at.isoformat() if self.edited_at else None,
            "tts": False,
            "mention_everyone": False,
            "mentions": [],
            "mention_roles": [],
            "attachments": [],
            "embeds": self.embeds,
            "components": self.components,
            "pinned": False,
            "flags": self.flags,
        }
        if self.poll:
            whole["poll"] = self.poll.wire()
        if self.reference:
            whole["message_reference"] = self.reference
            whole["message_snapshots"] = self.snapshots
        if self.reactions:
            whole["reactions"] = [
                {"emoji": emoji_wire(emoji), "count": len(users), "me": False}
                for emoji, users in self.reactions.items()
            ]
        return whole


def emoji_wire(emoji: str) -> dict[str, Any]:
    """An emoji by its name in paths: the character, or `name:id` of a guild's own."""
    name, _, number = emoji.partition(":")
    return {"id": number or None, "name": name}


@dataclass(slots=True)
class Channel:
    """A channel or thread, with its messages by id."""

    id: int
    guild_id: int | None
    name: str
    type: int = TEXT
    parent_id: int | None = None
    archived: bool = False
    archived_at: datetime = datetime(2026, 6, 1, tzinfo=UTC)
    messages: dict[int, Message] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)

    @property
    def is_thread(self) -> bool:
        return self.type in (ANNOUNCEMENT_THREAD, PUBLIC_THREAD, PRIVATE_THREAD)

    def add(self, message: Message) -> None:
        """Put a message where its id belongs."""
        self.messages[message.id] = message
        if not self.order or message.id > self.order[-1]:
            self.order.append(message.id)
        else:
            self.order.insert(bisect_left(self.order, message.id), message.id)

    def remove(self, message: int) -> None:
        del self.messages[message]
        self.order.pop(bisect_left(self.order, message))

    def page(self, limit: int, *, before: int | None, after: int | None) -> list[Message]:
        """A page as Discord gives it: newest first, next to `before` or `after`."""
        if after is not None:
            start = bisect_right(self.order, after)
            ids = self.order[start : start + limit]
        else:
            end = len(self.order) if before is None else bisect_left(self.order, before)
            ids = self.order[max(0, end - limit) : end]
        return [self.messages[each] for each in reversed(ids)]

    def wire(self) -> dict[str, Any]:
        whole: dict[str, Any] = {
            "id": str(self.id),
            "type": self.type,
            "name": self.name,
            "flags": 0,
            "last_message_id": str(self.order[-1]) if self.order else None,
            "parent_id": str(self.parent_id) if self.parent_id else None,
        }
        if self.guild_id is not None:
            whole |= {"guild_id": str(self.guild_id)}
        if self.is_thread:
            return whole | {
                "owner_id": str(self.id),
                "message_count": len(self.order),
                "member_count": 1,
                "thread_metadata": {
                    "archived": self.archived,
                    "archive_timestamp": self.archived_at.isoformat(),
                    "auto_archive_duration": 1440,
                    "locked": False,
                    "create_timestamp": moment_of(self.id).isoformat(),
                },
            }
        return whole | {"position": 0, "permission_overwrites": [], "nsfw": False, "rate_limit_per_user": 0}


@dataclass(slots=True)
class Guild:
    """A server; `present`: the bot is in it."""

    id: int
    name: str
    owner: User
    present: bool = True
    channels: dict[int, Channel] = field(default_factory=dict)
    members: dict[int, Member] = field(default_factory=dict)
    roles: dict[int, str] = field(default_factory=dict)
    commands: dict[int, dict[str, Any]] = field(default_factory=dict)

    def threads(self, *, archived: bool, parent: int | None = None) -> Iterator[Channel]:
        """Its threads, newest archived first."""
        found = [
            channel
            for channel in self.channels.values()
            if channel.is_thread and channel.archived is archived and parent in (None, channel.parent_id)
        ]
        yield from sorted(found, key=lambda thread: thread.archived_at, reverse=True)

    def page_members(self, limit: int, after: int) -> list[Member]:
        """Members by id."""
        return [self.members[each] for each in sorted(self.members) if each > after][:limit]

    def wire_roles(self) -> list[dict[str, Any]]:
        return [
            {
                "id": str(role),
                "name": name,
                "description": None,
                "permissions": "0",
                "position": position,
                "color": 0,
                "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
                "hoist": False,
                "managed": False,
                "mentionable": False,
                "icon": None,
                "unicode_emoji": None,
                "flags": 0,
            }
            for position, (role, name) in enumerate(self.roles.items())
        ]

    def wire(self) -> dict[str, Any]:
        return {
            "id": str(self.id),
            "name": self.name,
            "icon": None,
            "description": None,
            "owner_id": str(self.owner.id),
            "region": "deprecated",
            "preferred_locale": "en-US",
            "features": [],
            "roles": self.wire_roles(),
            "emojis": [],
            "stickers": [],
            "approximate_member_count": len(self.members),
        }


def hours_from_now(hours: int) -> datetime:
    """When a poll of so many hours ends."""
    return datetime.now(UTC) + timedelta(hours=hours)
