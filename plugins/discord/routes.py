"""What the action `method` may call: a positive list, every line of it about the instance's own server. Pure.

Left out on purpose: whatever shows a webhook's token (it works for whoever has it), what reaches into another server
(following announcement channels, sounds, templates), direct messages, and the bot's own account.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import quote, unquote_to_bytes

from metagov_sdk.errors import Forbidden, Invalid

TABLE = """
GET PATCH        guilds/{guild}
GET              guilds/{guild}/audit-logs
GET POST         guilds/{guild}/auto-moderation/rules
GET PATCH DELETE guilds/{guild}/auto-moderation/rules/{id}
GET              guilds/{guild}/bans
GET PUT DELETE   guilds/{guild}/bans/{id}
GET POST PATCH   guilds/{guild}/channels
GET POST         guilds/{guild}/emojis
GET PATCH DELETE guilds/{guild}/emojis/{id}
GET              guilds/{guild}/integrations
GET              guilds/{guild}/invites
GET              guilds/{guild}/members
PATCH            guilds/{guild}/members/@me
GET              guilds/{guild}/members/search
GET PATCH DELETE guilds/{guild}/members/{id}
PUT DELETE       guilds/{guild}/members/{id}/roles/{id}
GET PUT          guilds/{guild}/onboarding
GET              guilds/{guild}/preview
GET POST         guilds/{guild}/prune
GET POST PATCH   guilds/{guild}/roles
GET              guilds/{guild}/roles/member-counts
GET PATCH DELETE guilds/{guild}/roles/{id}
GET POST         guilds/{guild}/scheduled-events
GET PATCH DELETE guilds/{guild}/scheduled-events/{id}
GET              guilds/{guild}/scheduled-events/{id}/users
GET POST         guilds/{guild}/stickers
GET PATCH DELETE guilds/{guild}/stickers/{id}
GET              guilds/{guild}/threads/active
GET              guilds/{guild}/vanity-url
GET PATCH        guilds/{guild}/voice-states/@me
GET PATCH        guilds/{guild}/voice-states/{id}
GET PATCH        guilds/{guild}/welcome-screen
GET PATCH        guilds/{guild}/widget
GET PATCH DELETE channels/{channel}
GET POST         channels/{channel}/invites
GET POST         channels/{channel}/messages
POST             channels/{channel}/messages/bulk-delete
GET              channels/{channel}/messages/pins
PUT DELETE       channels/{channel}/messages/pins/{id}
GET PATCH DELETE channels/{channel}/messages/{id}
POST             channels/{channel}/messages/{id}/crosspost
DELETE           channels/{channel}/messages/{id}/reactions
GET DELETE       channels/{channel}/messages/{id}/reactions/{emoji}
PUT DELETE       channels/{channel}/messages/{id}/reactions/{emoji}/@me
DELETE           channels/{channel}/messages/{id}/reactions/{emoji}/{id}
POST             channels/{channel}/messages/{id}/threads
PUT DELETE       channels/{channel}/permissions/{id}
GET              channels/{channel}/pins
PUT DELETE       channels/{channel}/pins/{id}
GET              channels/{channel}/polls/{id}/answers/{id}
POST             channels/{channel}/polls/{id}/expire
GET              channels/{channel}/thread-members
PUT DELETE       channels/{channel}/thread-members/@me
GET PUT DELETE   channels/{channel}/thread-members/{id}
POST             channels/{channel}/threads
GET              channels/{channel}/threads/archived/private
GET              channels/{channel}/threads/archived/public
POST             channels/{channel}/typing
GET              channels/{channel}/users/@me/threads/archived/private
PUT              channels/{channel}/voice-status
GET POST PUT     applications/{application}/guilds/{guild}/commands
GET PATCH DELETE applications/{application}/guilds/{guild}/commands/{id}
GET              applications/{application}/guilds/{guild}/commands/permissions
GET              applications/{application}/guilds/{guild}/commands/{id}/permissions
"""

_ID = re.compile(r"[0-9]{1,20}")
_LITERAL = re.compile(r"@?[a-z][a-z-]{0,40}")
_CUSTOM_EMOJI = re.compile(r"[A-Za-z0-9_]{1,32}:[0-9]{1,20}")
_ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2}|[^%])+")
_KEYCAPS = "0123456789#*"
_LONGEST_EMOJI = 40
_MESSAGES = (("POST", "channels/{channel}/messages"), ("PATCH", "channels/{channel}/messages/{id}"))
_THREAD = ("POST", "channels/{channel}/threads")


@dataclass(frozen=True, slots=True)
class Target:
    """A call that is on the list: its path, ready to be sent, and the ids in it that still have to be checked."""

    method: str
    path: str
    template: str
    ids: Mapping[str, str]

    def message_in(self, fields: dict[str, Any]) -> dict[str, Any] | None:
        """The message among the call's fields, which may notify people: all of them, or a new thread's first one."""
        if (self.method, self.template) in _MESSAGES:
            return fields
        first = fields.get("message") if (self.method, self.template) == _THREAD else None
        return first if isinstance(first, dict) else None


def _read_table() -> dict[str, frozenset[str]]:
    rows = [line.rsplit(None, 1) for line in TABLE.strip().splitlines()]
    return {template: frozenset(methods.split()) for methods, template in rows}


ALLOWED: Mapping[str, frozenset[str]] = _read_table()
"""The methods allowed on each path."""
_SHAPES = [(template, template.split("/")) for template in sorted(ALLOWED, key=lambda each: each.count("{"))]


def read_target(route: str, method: str) -> Target:
    """The call that a driver asks for.

    Raises Invalid for what is no plain relative path, Forbidden for what is not on the list.
    """
    parts = route.removeprefix("/").split("/")
    for template, shape in _SHAPES:
        if len(shape) == len(parts) and (read := _read_parts(shape, parts)) is not None:
            if method not in ALLOWED[template]:
                raise Invalid("/method", f"{method} is not allowed on {template}, {_listed(ALLOWED[template])} is")
            path, ids = read
            return Target(method, path, template, ids)
    _check_plain(parts)
    raise Forbidden("this route is not one of the server's own that the plugin's page lists")


def _read_parts(shape: list[str], parts: list[str]) -> tuple[str, dict[str, str]] | None:
    sent, ids = [], {}
    for wanted, part in zip(shape, parts, strict=True):
        if wanted == "{emoji}":
            part = _encoded_emoji(part)
        elif wanted.startswith("{"):
            if not _ID.fullmatch(part):
                return None
            ids[wanted.strip("{}")] = part
        elif wanted != part:
            return None
        sent.append(part)
    return "/".join(sent), ids


def _check_plain(parts: list[str]) -> None:
    """Tell a path that tries something from one that is only not allowed."""
    for number, part in enumerate(parts):
        after_reactions = number > 0 and parts[number - 1] == "reactions"
        if not (after_reactions or _ID.fullmatch(part) or _LITERAL.fullmatch(part)):
            _refuse(
                "should be a path below /api/v10 such as guilds/<id>/roles: no host, no query, no `..`, no encoding"
            )


def _encoded_emoji(part: str) -> str:
    """One emoji, percent-encoded: `👍`, a keycap (which holds `#`), or `name:id`. Raises Invalid."""
    if "%" in part:
        if not _ESCAPES.fullmatch(part):
            _refuse("an emoji's percent-encoding is broken")
        try:
            part = unquote_to_bytes(part).decode()
        except UnicodeDecodeError:
            _refuse("an emoji's percent-encoding is not UTF-8")
    if not _CUSTOM_EMOJI.fullmatch(part):
        plain = "".join(character for character in part if character not in _KEYCAPS)
        # Whatever is ASCII has a meaning in URLs; emoji are not, but for the digits and signs of keycaps.
        if not plain or len(part) > _LONGEST_EMOJI or any(each.isascii() or each.isspace() for each in plain):
            _refuse("an emoji is a single one such as 👍, or name:id for one of the server's own")
        if any("\ud800" <= each <= "\udfff" for each in plain):
            _refuse("an emoji should be Unicode text")
    return quote(part, safe="")


def _refuse(reason: str) -> NoReturn:
    raise Invalid("/route", reason)


def _listed(methods: frozenset[str]) -> str:
    return " or ".join(sorted(methods))


@dataclass(frozen=True, slots=True)
class Reference:
    """A place in a call's fields that names a server or a channel."""

    pointer: str
    kind: str
    value: Any


def references(fields: Any, pointer: str = "") -> Iterator[Reference]:
    """Where a call's fields could reach out of the server.

    A message may refer to another and take its text along (a forward), from any channel that the bot can see.
    """
    if isinstance(fields, list):
        for number, each in enumerate(fields):
            yield from references(each, f"{pointer}/{number}")
    if not isinstance(fields, dict):
        return
    for name, value in fields.items():
        below = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
        if name in ("guild_id", "source_guild_id"):
            yield Reference(below, "guild", value)
        elif name == "message_reference" and isinstance(value, dict):
            yield Reference(f"{below}/channel_id", "channel", value.get("channel_id"))
            yield from references(value, below)
        else:
            yield from references(value, below)


def as_query(fields: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """A GET's fields as its query. Raises Invalid for what a query cannot hold."""
    return {name: _query_value(name, value) for name, value in fields.items() if value is not None}


def _query_value(name: str, value: Any) -> str | list[str]:
    if isinstance(value, list) and all(isinstance(each, str | int) for each in value):
        return [str(each) for each in value]
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise Invalid(f"/{name}", "should be text, a number, a truth value or a list of texts")
