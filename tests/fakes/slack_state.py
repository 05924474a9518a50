"""What a fake Slack knows: an app, its installs, and workspaces with people, channels and messages. All invented."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

BOT_SCOPES = frozenset(
    {
        "channels:history", "channels:join", "channels:read", "chat:write", "commands", "groups:history", "groups:read",
        "im:history", "im:read", "im:write", "mpim:history", "mpim:read", "mpim:write", "reactions:read",
        "reactions:write", "team:read", "users:read",
    }
)  # fmt: skip
"""What an install is granted unless a test says otherwise."""


class Refused(Exception):
    """An `ok: false` answer."""

    def __init__(self, error: str, **more: Any) -> None:
        super().__init__(error)
        self.answer = {"ok": False, "error": error, **more}


@dataclass(slots=True)
class Channel:
    """A conversation of any kind; `messages` in the order in which they were posted."""

    id: str
    name: str = ""
    kind: str = "channel"
    """`channel`, `group` (private), `im` or `mpim`."""
    members: set[str] = field(default_factory=set)
    archived: bool = False
    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def scope(self) -> str:
        """What scopes for this kind of conversation begin with."""
        return {"channel": "channels", "group": "groups"}.get(self.kind, self.kind)

    def shown(self) -> dict[str, Any]:
        """The channel object."""
        return {
            "id": self.id,
            "name": self.name,
            "is_channel": self.kind == "channel",
            "is_private": self.kind != "channel",
            "is_im": self.kind == "im",
            "is_mpim": self.kind == "mpim",
            "is_archived": self.archived,
            "num_members": len(self.members),
        }

    def find(self, ts: object) -> dict[str, Any]:
        """A message. Raises Refused."""
        for message in self.messages:
            if message["ts"] == ts:
                return message
        raise Refused("message_not_found")


@dataclass(slots=True)
class Team:
    """A workspace."""

    id: str
    members: dict[str, str] = field(default_factory=dict)
    """Names by user id."""
    channels: dict[str, Channel] = field(default_factory=dict)
    enterprise_id: str | None = None

    @property
    def domain(self) -> str:
        """The workspace's part of its address."""
        return f"town-{self.id.lower()}"

    def add_member(self, user_id: str, name: str = "") -> str:
        """A person."""
        self.members[user_id] = name or user_id.lower()
        return user_id

    def add_channel(self, channel_id: str, name: str = "", **rest: Any) -> Channel:
        """A conversation; public unless `kind` says otherwise."""
        channel = self.channels[channel_id] = Channel(channel_id, name or channel_id.lower(), **rest)
        return channel


@dataclass(slots=True)
class Grant:
    """A token, and what it is good for."""

    token: str = field(repr=False)
    team: Team
    user_id: str
    kind: str = "bot"
    scopes: frozenset[str] = BOT_SCOPES
    refresh_token: str | None = field(default=None, repr=False)
    expires_at: float | None = None
    error: str | None = None
    """What every call with it is answered from now on, such as `token_revoked`."""
    enterprise: bool = False
    """Whether it is good for the whole organisation."""

    @property
    def bot_id(self) -> str:
        """The bot's own id, beside its user's."""
        return "B" + self.user_id[1:]

    def check(self) -> None:
        """Raises Refused for a token that is no longer good."""
        if self.error is not None:
            raise Refused(self.error)
        if self.expires_at is not None and self.expires_at <= time.time():
            raise Refused("token_expired")

    def require(self, scope: str) -> None:
        """Raises Refused without this scope."""
        if scope not in self.scopes:
            raise Refused("missing_scope", needed=scope, provided=",".join(sorted(self.scopes)))


@dataclass(slots=True)
class Code:
    """A one-time code of the authorize page."""

    kind: str
    team: Team
    user_id: str
    redirect_uri: str
    scopes: frozenset[str]
    used: bool = False


@dataclass(slots=True)
class App:
    """The app as its configuration has it."""

    id: str = "A0GATEWAY"
    client_id: str = "2141029472.691202649728"
    client_secret: str = field(default="fake-client-secret-0123456789", repr=False)
    signing_secret: str = field(default="8f742231b10e8888abcd99yyyzzz85a5", repr=False)
    verification_token: str = field(default="fake-verification-token", repr=False)
    rotates: bool = False
    """Whether tokens expire and come with refresh tokens."""
    token_seconds: int = 43_200
    marketplace: bool = True
    """Whether it may read more than 15 messages a minute."""


class World:
    """All of it. Ids and timestamps count up, so that every run makes the same ones."""

    def __init__(self) -> None:
        self.app = App()
        self.teams: dict[str, Team] = {}
        self.grants: dict[str, Grant] = {}
        self.codes: dict[str, Code] = {}
        self._numbers: Iterator[int] = itertools.count(1)
        self._began = int(time.time())

    def number(self) -> int:
        """The next number."""
        return next(self._numbers)

    def ts(self) -> str:
        """The timestamp of a new message: the time, and a number that no other has."""
        return f"{max(self._began, int(time.time()))}.{self.number():06d}"

    def team(self, team_id: str = "T0TOWN") -> Team:
        """The workspace of this id; a new one with a public channel and three people if there is none."""
        if team_id not in self.teams:
            team = self.teams[team_id] = Team(team_id)
            for user_id in ("U0ADA", "U0BOB", "U0CYD"):
                team.add_member(user_id)
            team.add_channel("C0SQUARE", "square", members=set(team.members))
        return self.teams[team_id]

    def install(self, team: Team, *, scopes: frozenset[str] = BOT_SCOPES, enterprise: bool = False) -> Grant:
        """A bot token for a workspace, as the install by hand in an app's settings gives it."""
        bot = f"U0BOT{team.id[1:]}"
        team.add_member(bot, "gateway")
        grant = Grant(f"xoxb-{self.number()}-fake-{team.id}", team, bot, scopes=scopes, enterprise=enterprise)
        if self.app.rotates:
            grant.token = f"xoxe.{grant.token}"
            grant.refresh_token = f"xoxe-1-{self.number()}"
            grant.expires_at = time.time() + self.app.token_seconds
        self.grants[grant.token] = grant
        return grant

    def bot(self, team: Team) -> Grant:
        """The workspace's newest install."""
        return [grant for grant in self.grants.values() if grant.team is team and grant.kind == "bot"][-1]

    def void(self, team: Team, error: str = "token_revoked") -> None:
        """Let none of a workspace's tokens be good any more."""
        for grant in self.grants.values():
            if grant.team is team:
                grant.error = error


def as_bool(value: object) -> bool:
    """An argument that is true or false, in a form or in JSON."""
    return value is True or (isinstance(value, str) and value.lower() in ("true", "1"))


def page_of(items: list[Any], fields: Mapping[str, Any], *, most: int, usual: int = 100) -> tuple[list[Any], str]:
    """A page by `limit` and `cursor`, and the next cursor ("" at the end). Raises Refused."""
    try:
        limit = min(int(fields.get("limit") or usual), most)
        start = int(str(fields.get("cursor") or "fake:0").removeprefix("fake:"))
    except ValueError:
        raise Refused("invalid_cursor") from None
    if limit < 1:
        raise Refused("invalid_limit")
    return items[start : start + limit], f"fake:{start + limit}" if start + limit < len(items) else ""
