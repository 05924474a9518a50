"""The mirror of a server. Discord tells of new messages over a socket only: reading its pages is what can be done here.

Source: docs.discord.com/developers/resources/message, …/channel, …/guild
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, cast
from urllib.parse import quote

from metagov_sdk import Child, DataProvider, Page, Place, Retry, detail, listing, log, lookup
from plugins.discord.api import UNKNOWN_CHANNEL, UNKNOWN_MESSAGE, Refused
from plugins.discord.plugin import Discord
from plugins.discord.records import (
    ChannelRecord,
    GuildRecord,
    MemberRecord,
    MentionRecord,
    MessageRecord,
    ReactionRecord,
    RoleRecord,
    ThreadRecord,
)

_WITH_MESSAGES = frozenset({0, 2, 5, 13})
"""Text, voice, announcement and stage channels. Threads have messages too."""
_WITH_THREADS = frozenset({0, 5, 15, 16})
"""Text, announcement, forum and media channels."""
_UNKNOWN_EMOJI = 10014
_PAGE, _MEMBERS = 100, 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class DiscordMirror(DataProvider[Discord]):
    """One server: roles, members, channels and threads, messages with their mentions and reactions.

    New messages are found by a channel's last message id. Edits, deletions and reactions to older messages are found
    when everything is read again.
    """

    every: ClassVar[timedelta] = timedelta(minutes=15)
    sweep_every: ClassVar[timedelta] = timedelta(days=1)

    @classmethod
    def names_of(cls, account: str) -> Sequence[str]:
        """Source: docs.discord.com/developers/reference#message-formatting"""
        return (f"<@{account}>", f"<@!{account}>")

    @listing(GuildRecord, RoleRecord)
    async def guild(self, place: Place) -> Page:
        """The server and its roles."""
        found = await self.plugin.ask("GET", self._guild)
        roles = found.get("roles") if isinstance(found, dict) else None
        return Page([GuildRecord.read(found), *(RoleRecord.read(each) for each in _list(roles))])

    @listing(MemberRecord)
    async def members(self, place: Place) -> Page:
        """Everybody, by id."""
        query = {"limit": str(_MEMBERS), "after": str(place.token or 0)}
        found = _list(await self.plugin.ask("GET", f"{self._guild}/members", query=query))
        rows = [MemberRecord.read(each) for each in found]
        return Page(rows, next=_last(rows) if len(found) == _MEMBERS else None)

    @listing(ChannelRecord)
    async def channels(self, place: Place) -> Page:
        """All channels, with those in which messages and threads are."""
        found = _list(await self.plugin.ask("GET", f"{self._guild}/channels"))
        rows = [ChannelRecord.read(each) for each in found]
        children = []
        for raw, row in zip(found, rows, strict=True):
            if row.type in _WITH_MESSAGES:
                children.append(_messages_of(raw, row))
            if row.type in _WITH_THREADS:
                children += [Child(walk, row.id, row) for walk in ("archived_threads", "private_threads")]
        return Page(rows, children=children)

    @listing(ThreadRecord, missing="look")
    async def active_threads(self, place: Place) -> Page:
        """Threads that are not archived. One that has been is looked up before it counts as deleted."""
        return _threads(await self.plugin.ask("GET", f"{self._guild}/threads/active"))

    @log(
        ThreadRecord,
        parent="channels",
        position=lambda row: _microseconds(row.archived_at),
        newest_first=True,
        missing="look",
    )
    async def archived_threads(self, place: Place) -> Page:
        """A channel's archived threads, the last archived first."""
        return await self._archived(place, "public")

    @listing(ThreadRecord, parent="channels", missing="look", sweep_only=True)
    async def private_threads(self, place: Place) -> Page:
        """Archived private threads, where the bot may manage threads; elsewhere it is not to know of them."""
        try:
            return await self._archived(place, "private")
        except Refused as error:
            if error.status == 403:
                return Page()
            raise

    @log(MessageRecord, MentionRecord, parent="channels", position=lambda row: int(row.id))
    async def messages(self, place: Place) -> Page:
        """A channel's or thread's messages, from the oldest on."""
        query = {"limit": str(_PAGE), "after": str(max(place.after or 0, 0))}
        try:
            found = _list(await self.plugin.ask("GET", f"channels/{place.partition}/messages", query=query))
        except Refused as error:
            if error.code == UNKNOWN_CHANNEL:
                return Page(gone=[(ChannelRecord, (place.partition,)), (ThreadRecord, (place.partition,))])
            raise
        return _read_messages(found, more=len(found) == _PAGE)

    @detail(ReactionRecord, parent="messages")
    async def reactions(self, place: Place) -> Page:
        """Who reacted to a message, one emoji after the other: `data` is the channel and the emojis."""
        channel, emojis = cast("tuple[str, list[str]]", place.data)
        index, after = cast("tuple[int, str]", place.token or (0, "0"))
        if index >= len(emojis):
            return Page()
        emoji = emojis[index]
        path = f"channels/{channel}/messages/{place.partition}/reactions/{quote(emoji, safe='')}"
        try:
            found = _list(await self.plugin.ask("GET", path, query={"limit": str(_PAGE), "after": after}))
        except Refused as error:
            if error.code in (UNKNOWN_MESSAGE, UNKNOWN_CHANNEL):
                return Page(gone=[(MessageRecord, (place.partition,))])
            if error.code != _UNKNOWN_EMOJI:
                raise
            found = []
        given = {"message_id": place.partition, "emoji": emoji, "channel_id": channel}
        users = [each.get("id") for each in found if isinstance(each, dict)]
        rows = [ReactionRecord.read({}, **given, user_id=user) for user in users]
        if len(found) == _PAGE and rows:
            return Page(rows, next=[index, rows[-1].user_id])
        return Page(rows, next=[index + 1, "0"] if index + 1 < len(emojis) else None)

    @lookup(ThreadRecord)
    async def thread(self, place: Place) -> Page:
        """A thread by its id."""
        try:
            raw = await self.plugin.ask("GET", f"channels/{place.partition}")
        except Refused as error:
            if error.status == 404:
                return Page(gone=[(ThreadRecord, (place.partition,))])
            raise
        row = ThreadRecord.read(raw)
        return Page([row], children=[_messages_of(raw, row)], under=("archived_threads", row.parent_id or ""))

    @lookup(MessageRecord)
    async def message(self, place: Place) -> Page:
        """A message by its channel's id and its own."""
        channel, _, message = place.partition.partition("/")
        try:
            raw = await self.plugin.ask("GET", f"channels/{channel}/messages/{message}")
        except Refused as error:
            if error.status == 404:
                return Page(gone=[(MessageRecord, (message,))])
            raise
        page = _read_messages([raw], more=False)
        return Page(page.rows, children=page.children, under=("messages", channel))

    @property
    def _guild(self) -> str:
        return f"guilds/{self.plugin.config.guild_id}"

    async def _archived(self, place: Place, kind: str) -> Page:
        query = {"limit": str(_PAGE), **({"before": str(place.token)} if place.token else {})}
        path = f"channels/{place.partition}/threads/archived/{kind}"
        found = await self.plugin.ask("GET", path, query=query)
        page = _threads(found)
        if not isinstance(found, dict) or found.get("has_more") is not True:
            return page
        times = [row.archived_at for row in page.rows if isinstance(row, ThreadRecord) and row.archived_at]
        if not times:
            raise Retry("Discord says there are more threads, and names no time to go on from")
        first, last = max(times), min(times)
        # Those of the same moment as the last are asked for again: `before` leaves them out.
        onward = last + timedelta(microseconds=1) if last < first else last
        return Page(page.rows, children=page.children, next=onward.isoformat())


def _threads(found: Any) -> Page:
    threads = _list(found.get("threads") if isinstance(found, dict) else None)
    rows = [ThreadRecord.read(each) for each in threads]
    return Page(rows, children=[_messages_of(raw, row) for raw, row in zip(threads, rows, strict=True)])


def _messages_of(raw: Any, row: ChannelRecord | ThreadRecord) -> Child:
    """The messages of a channel; there is nothing new while its last message is the same."""
    last = raw.get("last_message_id") if isinstance(raw, dict) else None
    return Child("messages", row.id, row, fingerprint=str(last or "none"))


def _read_messages(found: Sequence[Any], *, more: bool) -> Page:
    rows: list[MessageRecord] = []
    mentions: list[MentionRecord] = []
    children: list[Child] = []
    for raw in found:
        files = _field(raw, "attachments")
        row = MessageRecord.read(raw, files=[str(_get(each, "filename")) for each in files] or None)
        rows.append(row)
        for user in _field(raw, "mentions"):
            given = {"message_id": row.id, "channel_id": row.channel_id, "user_id": _get(user, "id")}
            mentions.append(MentionRecord.read({}, **given))
        counts = {_emoji(each): _get(each, "count") for each in _field(raw, "reactions")}
        # What has no reactions has nothing to read, and what had some before is emptied.
        fingerprint = " ".join(f"{emoji}={count}" for emoji, count in sorted(counts.items()))
        data: Any = [row.channel_id, sorted(counts)]
        children.append(Child("reactions", row.id, row, data=data, fingerprint=fingerprint))
    return Page([*rows, *mentions], next=more or None, children=children)


def _emoji(reaction: Any) -> str:
    emoji = _get(reaction, "emoji")
    name, number = _get(emoji, "name"), _get(emoji, "id")
    # An emoji that the server has deleted has no name; SourceCred says null, and any name with the id is found.
    return f"{'null' if name is None else name}:{number}" if number else str(name)


def _get(raw: Any, name: str) -> Any:
    return raw.get(name) if isinstance(raw, dict) else None


def _field(raw: Any, name: str) -> list[Any]:
    value = _get(raw, name)
    return value if isinstance(value, list) else []


def _list(found: Any) -> list[Any]:
    """Raises Retry for what is no list: something else than Discord answers."""
    if not isinstance(found, list):
        raise Retry("Discord answers something else than a list")
    return found


def _last(rows: Sequence[MemberRecord]) -> str:
    """The greatest id, to go on from. Raises Retry when no row has one."""
    ids = [int(row.id) for row in rows if row.key_values and row.id.isdigit()]
    if not ids:
        raise Retry("Discord's members have no ids")
    return str(max(ids))


def _microseconds(moment: datetime | None) -> int:
    if moment is None:
        raise ValueError("no time")
    return (moment - _EPOCH) // timedelta(microseconds=1)
