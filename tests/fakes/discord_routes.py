"""The fake Discord's REST routes."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from aiohttp import web

from tests.fakes.discord_access import Access, number_of
from tests.fakes.discord_checks import Refused, check_command, check_message, checked_query
from tests.fakes.discord_world import (
    ANNOUNCEMENT_THREAD,
    PRIVATE_THREAD,
    PUBLIC_THREAD,
    SEEN_BY_ONE,
    Channel,
    Message,
    Poll,
    hours_from_now,
)

if TYPE_CHECKING:
    from tests.fakes.discord import Recorded


_MARK = re.compile(r"\{(\w+)\}")
_Call = Callable[..., Any]
_TABLE: list[tuple[str, re.Pattern[str], str]] = []


def _on(line: str) -> Callable[[_Call], _Call]:
    """Register a method for "METHOD /path/{name}"; the names become its arguments."""
    method, path = line.split(" ")
    pattern = re.compile(_MARK.sub(r"(?P<\1>[^/]+)", path))

    def register(function: _Call) -> _Call:
        _TABLE.append((method, pattern, function.__name__))
        return function

    return register


class Routes(Access):
    """Answers requests from what the fake holds."""

    def answer(self, request: web.Request, recorded: Recorded) -> web.Response:
        """The answer. Raises Refused."""
        for method, pattern, name in _TABLE:
            if method == recorded.method and (found := pattern.fullmatch(recorded.path)):
                values = {key: unquote(value) for key, value in found.groupdict().items()}
                answer = getattr(self, name)(request, recorded, **values)
                return answer if isinstance(answer, web.Response) else _json(answer)
        raise Refused(404, 0, "404: Not Found")

    # Guilds.

    @_on("GET /guilds/{guild}")
    def get_guild(self, request: web.Request, recorded: Recorded, guild: str) -> Any:
        return self._guild(recorded, guild).wire()

    @_on("GET /guilds/{guild}/channels")
    def get_channels(self, request: web.Request, recorded: Recorded, guild: str) -> Any:
        return [each.wire() for each in self._guild(recorded, guild).channels.values() if not each.is_thread]

    @_on("GET /guilds/{guild}/roles")
    def get_roles(self, request: web.Request, recorded: Recorded, guild: str) -> Any:
        return self._guild(recorded, guild).wire_roles()

    @_on("GET /guilds/{guild}/members")
    def get_members(self, request: web.Request, recorded: Recorded, guild: str) -> Any:
        query = checked_query(recorded.query, limit=(1, 1000, 1), after=0)
        return [each.wire() for each in self._guild(recorded, guild).page_members(query["limit"], query["after"] or 0)]

    @_on("GET /guilds/{guild}/members/{user}")
    def get_member(self, request: web.Request, recorded: Recorded, guild: str, user: str) -> Any:
        member = self._guild(recorded, guild).members.get(number_of(user))
        if member is None:
            raise Refused(404, 10007, "Unknown Member")
        return member.wire()

    @_on("PUT /guilds/{guild}/members/{user}/roles/{role}")
    def add_role(self, request: web.Request, recorded: Recorded, guild: str, user: str, role: str) -> Any:
        member = self._guild(recorded, guild).members.get(number_of(user))
        if member is None:
            raise Refused(404, 10007, "Unknown Member")
        member.roles.append(number_of(role))

    @_on("GET /guilds/{guild}/threads/active")
    def get_active_threads(self, request: web.Request, recorded: Recorded, guild: str) -> Any:
        threads = self._guild(recorded, guild).threads(archived=False)
        return {"threads": [each.wire() for each in threads], "members": [], "has_more": False}

    @_on("GET /users/@me/guilds")
    def get_own_guilds(self, request: web.Request, recorded: Recorded) -> Any:
        self._bot(recorded)
        return [{"id": str(each.id), "name": each.name} for each in self.fake.guilds.values() if each.present]

    # Channels and messages.

    @_on("GET /channels/{channel}")
    def get_channel(self, request: web.Request, recorded: Recorded, channel: str) -> Any:
        return self._channel(recorded, channel).wire()

    @_on("GET /channels/{channel}/threads/archived/{kind}")
    def get_archived_threads(self, request: web.Request, recorded: Recorded, channel: str, kind: str) -> Any:
        parent = self._channel(recorded, channel)
        guild = self.fake.guilds[parent.guild_id or 0]
        limit = min(100, max(2, int(recorded.query.get("limit", "50"))))
        before = datetime.fromisoformat(recorded.query["before"]) if "before" in recorded.query else None
        types = (PRIVATE_THREAD,) if kind == "private" else (PUBLIC_THREAD, ANNOUNCEMENT_THREAD)
        found = [
            each
            for each in guild.threads(archived=True, parent=parent.id)
            if each.type in types and (before is None or each.archived_at < before)
        ]
        return {"threads": [each.wire() for each in found[:limit]], "members": [], "has_more": len(found) > limit}

    @_on("POST /channels/{channel}/threads")
    def create_thread(self, request: web.Request, recorded: Recorded, channel: str) -> Any:
        parent = self._channel(recorded, channel)
        guild = self.fake.guilds[parent.guild_id or 0]
        thread = self.fake.add_channel(guild, recorded.body["name"], PUBLIC_THREAD, parent)
        if first := recorded.body.get("message"):
            check_message(first)
            thread.add(self._made(thread.id, first))
        return _json(thread.wire(), 201)

    @_on("POST /channels/{channel}/messages")
    def create_message(self, request: web.Request, recorded: Recorded, channel: str) -> Any:
        where, body = self._channel(recorded, channel), recorded.body
        check_message(body)
        nonce = body.get("nonce")
        if body.get("enforce_nonce") and nonce is not None:
            # "If another message was created by the same author with the same nonce, that message will be returned".
            for message in reversed(where.page(100, before=None, after=None)):
                if message.nonce == nonce and message.author is self.fake.bot:
                    return message.wire()
        message = self._made(where.id, body)
        if reference := body.get("message_reference"):
            self._refer(recorded, message, where, reference)
        where.add(message)
        return message.wire()

    @_on("GET /channels/{channel}/messages")
    def get_messages(self, request: web.Request, recorded: Recorded, channel: str) -> Any:
        query = checked_query(recorded.query, limit=(1, 100, 50), before=None, after=None)
        where = self._channel(recorded, channel)
        page = where.page(query["limit"], before=query["before"], after=query["after"])
        return [message.wire() for message in page]

    @_on("GET /channels/{channel}/messages/{message}")
    def get_message(self, request: web.Request, recorded: Recorded, channel: str, message: str) -> Any:
        return self._message(recorded, channel, message).wire()

    @_on("PATCH /channels/{channel}/messages/{message}")
    def edit_message(self, request: web.Request, recorded: Recorded, channel: str, message: str) -> Any:
        found = self._message(recorded, channel, message)
        if found.author is not self.fake.bot:
            raise Refused(403, 50005, "Cannot edit a message authored by another user")
        return self._edited(found, recorded.body).wire()

    @_on("DELETE /channels/{channel}/messages/{message}")
    def delete_message(self, request: web.Request, recorded: Recorded, channel: str, message: str) -> Any:
        self._message(recorded, channel, message)
        self.fake.channels[number_of(channel)].remove(number_of(message))

    @_on("PUT /channels/{channel}/messages/{message}/reactions/{emoji}/@me")
    def react(self, request: web.Request, recorded: Recorded, channel: str, message: str, emoji: str) -> Any:
        self._message(recorded, channel, message).react(emoji, self.fake.bot.id)

    @_on("GET /channels/{channel}/messages/{message}/reactions/{emoji}")
    def get_reactions(self, request: web.Request, recorded: Recorded, channel: str, message: str, emoji: str) -> Any:
        found = self._message(recorded, channel, message)
        return self._users(recorded, found.reactions.get(emoji, []), 25)

    @_on("GET /channels/{channel}/polls/{message}/answers/{answer}")
    def get_voters(self, request: web.Request, recorded: Recorded, channel: str, message: str, answer: str) -> Any:
        poll = self._poll(recorded, channel, message)
        if not 1 <= number_of(answer) <= len(poll.answers):
            raise Refused(404, 10103, "Unknown Poll Answer")
        return {"users": self._users(recorded, poll.votes.get(number_of(answer), []), 25)}

    @_on("POST /channels/{channel}/polls/{message}/expire")
    def expire_poll(self, request: web.Request, recorded: Recorded, channel: str, message: str) -> Any:
        poll = self._poll(recorded, channel, message)
        if self.fake.channels[number_of(channel)].messages[number_of(message)].author is not self.fake.bot:
            raise Refused(403, 50013, "Missing Permissions")
        if poll.expiry <= datetime.now(UTC):
            raise Refused(400, 520001, "Poll expired")
        poll.expiry, poll.finalized = datetime.now(UTC), True
        return self._message(recorded, channel, message).wire()

    # The app.

    @_on("GET /oauth2/applications/@me")
    def get_application(self, request: web.Request, recorded: Recorded) -> Any:
        self._bot(recorded)
        return {"id": str(self.fake.application_id), "name": "gateway", "bot": self.fake.bot.wire(), "flags": 0}

    @_on("GET /applications/{app}/guilds/{guild}/commands")
    def get_commands(self, request: web.Request, recorded: Recorded, app: str, guild: str) -> Any:
        return list(self._application(recorded, app, guild).commands.values())

    @_on("POST /applications/{app}/guilds/{guild}/commands")
    def add_command(self, request: web.Request, recorded: Recorded, app: str, guild: str) -> Any:
        where, body = self._application(recorded, app, guild), recorded.body
        check_command(body)
        same = next((number for number, each in where.commands.items() if each["name"] == body["name"]), None)
        number = self.fake.ids.next() if same is None else same
        common = {"id": str(number), "application_id": app, "guild_id": guild, "version": str(self.fake.ids.next())}
        where.commands[number] = {"type": 1, "default_member_permissions": None, **body, **common}
        return _json(where.commands[number], 201 if same is None else 200)

    @_on("PUT /applications/{app}/guilds/{guild}/commands")
    def replace_commands(self, request: web.Request, recorded: Recorded, app: str, guild: str) -> Any:
        where = self._application(recorded, app, guild)
        where.commands.clear()
        for body in recorded.body:
            check_command(body)
            number = self.fake.ids.next()
            where.commands[number] = {"type": 1, **body, "id": str(number), "application_id": app, "guild_id": guild}
        return list(where.commands.values())

    @_on("DELETE /applications/{app}/guilds/{guild}/commands/{command}")
    def remove_command(self, request: web.Request, recorded: Recorded, app: str, guild: str, command: str) -> Any:
        if self._application(recorded, app, guild).commands.pop(number_of(command), None) is None:
            raise Refused(404, 10063, "Unknown application command")

    @_on("POST /interactions/{interaction}/{token}/callback")
    def call_back(self, request: web.Request, recorded: Recorded, interaction: str, token: str) -> Any:
        found = self.fake.interactions.by_token.get(token)
        if found is None or str(found.id) != interaction:
            raise Refused(404, 10062, "Unknown interaction")
        if found.answered:
            raise Refused(400, 40060, "Interaction has already been acknowledged.")
        self.fake.interactions.apply(found, recorded.body)

    @_on("POST /webhooks/{app}/{token}")
    def follow_up(self, request: web.Request, recorded: Recorded, app: str, token: str) -> Any:
        interaction = self._interaction(app, token)
        check_message(recorded.body)
        message = self._made(int(interaction.payload["channel_id"]), recorded.body)
        interaction.followups.append(message)
        return message.wire()

    @_on("PATCH /webhooks/{app}/{token}/messages/@original")
    def edit_original(self, request: web.Request, recorded: Recorded, app: str, token: str) -> Any:
        interaction = self._interaction(app, token)
        if interaction.original is None:
            raise Refused(404, 10008, "Unknown Message")
        return self._edited(interaction.original, recorded.body).wire()

    @_on("GET /webhooks/{app}/{token}/messages/@original")
    def get_original(self, request: web.Request, recorded: Recorded, app: str, token: str) -> Any:
        interaction = self._interaction(app, token)
        if interaction.original is None:
            raise Refused(404, 10008, "Unknown Message")
        return interaction.original.wire()

    # People.

    @_on("GET /users/@me")
    def get_me(self, request: web.Request, recorded: Recorded) -> Any:
        return self._person(recorded).wire()

    @_on("GET /oauth2/@me")
    def get_authorization(self, request: web.Request, recorded: Recorded) -> Any:
        person = self._person(recorded)
        grant = self.fake.oauth.tokens.get(recorded.headers["authorization"].removeprefix("Bearer "))
        app = {"id": str(self.fake.application_id), "name": "gateway"}
        return {"application": app, "scopes": grant.scopes if grant else [], "user": person.wire()}

    @_on("POST /oauth2/token")
    def get_token(self, request: web.Request, recorded: Recorded) -> Any:
        return self.fake.oauth.issue(request, _form(recorded))

    @_on("POST /oauth2/token/revoke")
    def revoke_token(self, request: web.Request, recorded: Recorded) -> Any:
        return self.fake.oauth.revoke(request, _form(recorded))

    # Parts of the answers.

    def _made(self, channel: int, body: dict[str, Any]) -> Message:
        message = Message(
            self.fake.ids.next(),
            channel,
            self.fake.bot,
            body.get("content") or "",
            body.get("embeds") or [],
            body.get("components") or [],
            body.get("allowed_mentions"),
            (body.get("flags") or 0) & SEEN_BY_ONE,
            nonce=body.get("nonce"),
        )
        if poll := body.get("poll"):
            answers = [answer["poll_media"]["text"] for answer in poll["answers"]]
            ends = hours_from_now(poll.get("duration") or 24)
            message.poll = Poll(poll["question"]["text"], answers, ends, bool(poll.get("allow_multiselect")))
        return message

    def _edited(self, message: Message, body: dict[str, Any]) -> Message:
        check_message(body, edit=True)
        if message.poll is not None:
            raise Refused(400, 520003, "Cannot edit a poll message")
        message.content = body.get("content", message.content) or ""
        message.embeds = body.get("embeds", message.embeds) or []
        message.components = body.get("components", message.components) or []
        message.allowed_mentions = body.get("allowed_mentions", message.allowed_mentions)
        message.edits += 1
        message.edited_at = datetime.now(UTC)
        return message

    def _refer(self, recorded: Recorded, message: Message, where: Channel, reference: dict[str, Any]) -> None:
        """A reply names a message of the channel; a forward (type 1) takes any that the bot can see along."""
        source = str(reference.get("channel_id", where.id))
        found = self._message(recorded, source, str(reference["message_id"]))
        message.reference = reference
        if reference.get("type") == 1:
            message.snapshots = [{"message": {"content": found.content}}]

    def _users(self, recorded: Recorded, ids: list[int], default: int) -> list[dict[str, Any]]:
        query = checked_query(recorded.query, limit=(1, 100, default), after=None)
        return [self.fake.users[each].wire() for each in ids if each > (query["after"] or 0)][: query["limit"]]


def _form(recorded: Recorded) -> dict[str, str]:
    if recorded.content_type != "application/x-www-form-urlencoded":
        raise Refused(415, 0, "415: Unsupported Media Type")
    return dict(recorded.body)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=204) if value is None else web.json_response(value, status=status)
