"""The plugin object: one platform (or tool) enabled for one community, for the length of one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Generic, Literal, Protocol

import httpx
from typing_extensions import TypeVar

from metagov_sdk.accounts import AccountLink, Accounts
from metagov_sdk.credentials import (
    CredentialAuth,
    Credentials,
    Mint,
    Token,
    UsedCredential,
    bare,
    check_credential_name,
    check_token,
    note_use,
)
from metagov_sdk.dirty import Dirty
from metagov_sdk.errors import Unauthorized
from metagov_sdk.events import Event, Initiator
from metagov_sdk.graph.built import GraphReader
from metagov_sdk.limits import Learned, Limit, Wait, retry_after
from metagov_sdk.models import Config, NoSettings, NoState, Settings, State
from metagov_sdk.process import Signal
from metagov_sdk.processes import Processes

ConfigT = TypeVar("ConfigT", bound=Config)
StateT = TypeVar("StateT", bound=State, default=NoState)
SettingsT = TypeVar("SettingsT", bound=Settings, default=NoSettings)

AuthType = Literal["none", "api_key", "oauth"]


class Log(Protocol):
    """The structured logger a plugin is given: an event name in plain words, then fields. Never pass a secret."""

    def debug(self, event: str, **fields: object) -> object: ...
    def info(self, event: str, **fields: object) -> object: ...
    def warning(self, event: str, **fields: object) -> object: ...
    def error(self, event: str, **fields: object) -> object: ...


@dataclass(frozen=True, slots=True)
class EmittedEvent:
    """An event on its way out of a call."""

    event: Event
    initiator: Initiator | None
    key: str | None
    at: datetime | None


@dataclass(slots=True)
class Emitted:
    """What a call asked to happen in the database; committed as one with the work that called it, or not at all."""

    events: list[EmittedEvent] = field(default_factory=list)
    signals: list[Signal] = field(default_factory=list)
    changes: list[Callable[[Any], Any]] = field(default_factory=list)
    links: list[AccountLink] = field(default_factory=list)
    credentials: dict[str, Token] = field(default_factory=dict)
    dirty: list[Dirty] = field(default_factory=list)
    disabled: str | None = None
    """Why the instance is to be taken out of use, if it is."""

    def __bool__(self) -> bool:
        lists = self.events or self.signals or self.changes or self.links or self.credentials or self.dirty
        return bool(lists) or self.disabled is not None

    def clear(self) -> None:
        """Forget what has been committed (between a poll's checkpoints)."""
        self.events.clear()
        self.signals.clear()
        self.changes.clear()
        self.links.clear()
        self.credentials.clear()
        self.dirty.clear()
        self.disabled = None


@dataclass(frozen=True, slots=True)
class Call(Generic[ConfigT, StateT, SettingsT]):
    """What the gateway hands a plugin object for one call."""

    instance_id: str
    community: str
    community_platform_id: str | None
    config: ConfigT
    state: StateT
    settings: SettingsT
    now: datetime
    idempotency_key: str
    log: Log
    connect: Callable[[Plugin[Any, Any, Any]], httpx.AsyncClient]
    hook_url: str
    may_emit: bool = True
    processes: Processes | None = None
    credentials: Credentials | None = None
    graph: GraphReader | None = None


class Plugin(Generic[ConfigT, StateT, SettingsT]):
    """Subclass it: `class Slack(Plugin[SlackConfig, SlackState, SlackSettings])`, with a docstring that describes it.

    A fresh object serves each call, so instance attributes never leak from one community to another. What should
    outlive the call is said with `self.change` and `self.emit`; the gateway commits it when the call succeeds.
    """

    name: ClassVar[str]
    auth_type: ClassVar[AuthType] = "none"

    def __init__(self, call: Call[ConfigT, StateT, SettingsT]) -> None:
        self._call = call
        self._http: httpx.AsyncClient | None = None
        self.emitted = Emitted()

    @classmethod
    def platform_id(cls, config: ConfigT) -> str | None:
        """The community_platform_id a config names (a team, a guild, a server), or None. Pure."""
        return None

    @classmethod
    def needs_binding(cls, config: ConfigT) -> bool:
        """Whether `config` has no credentials of its own, and so leans on the operator's. Pure.

        A platform id that is used with such a config, whether it names the id itself or `community_platform_id` does,
        has to be bound first, by an OAuth install or by the operator: otherwise anybody could name anybody's.
        """
        return False

    @classmethod
    def base_url(cls, config: ConfigT, settings: SettingsT) -> str:
        """What relative URLs of `self.http` start from. Pure."""
        return ""

    async def setup(self, old_config: ConfigT | None = None) -> None:
        """Prepare the platform when the instance is enabled or its config changed. I/O; repeated after a crash."""

    async def teardown(self) -> None:
        """Undo `setup` when the instance is disabled. I/O; repeated after a crash."""

    @property
    def config(self) -> ConfigT:
        """What the driver set."""
        return self._call.config

    @property
    def state(self) -> StateT:
        """The instance's state as it was when the call began; frozen."""
        return self._call.state

    @property
    def settings(self) -> SettingsT:
        """What the operator set."""
        return self._call.settings

    @property
    def community(self) -> str:
        """The community's slug."""
        return self._call.community

    @property
    def community_platform_id(self) -> str | None:
        """The platform's id of the community (team, guild, installation)."""
        return self._call.community_platform_id

    @property
    def now(self) -> datetime:
        """The database's time at the start of the call (UTC)."""
        return self._call.now

    @property
    def idempotency_key(self) -> str:
        """Equal for every attempt of one call: pass it on to platforms that deduplicate by such a key."""
        return self._call.idempotency_key

    @property
    def hook_url(self) -> str:
        """The public URL of this instance's hook."""
        return self._call.hook_url

    @property
    def log(self) -> Log:
        """A logger that already names the community, the plugin and the instance."""
        return self._call.log

    @property
    def processes(self) -> Processes:
        """The governance processes of this instance, for actions."""
        if self._call.processes is None:
            raise RuntimeError("only an action can ask for processes; a hook or poll sends them signals with emit")
        return self._call.processes

    @property
    def accounts(self) -> Accounts:
        """The accounts of this platform's people: `self.accounts.link(…)` says whose one is."""
        return Accounts(self.emitted.links, may_link=self._call.may_emit)

    @property
    def http(self) -> httpx.AsyncClient:
        """The HTTP client for the platform: guarded, with time-outs. Calls share its connections; do not close it."""
        if self._http is None:
            self._http = self._call.connect(self)
            self._http.base_url = self.base_url(self.config, self.settings)
            if type(self).authenticate is not Plugin.authenticate:
                auth = CredentialAuth(self._http.base_url, self.authenticate, self._invalidate)
                self._http.auth = auth
                self._http.event_hooks = {"request": [auth.strip]}
        return self._http

    @property
    def limit_owner(self) -> str:
        """Whose limits `limits` names: the stable name of the credential, never the token. Default: the instance's id.

        Override it where instances share a credential or a quota: a workspace, the deployment's one bot.
        """
        return self._call.instance_id

    def limits(self, request: httpx.Request) -> Sequence[Limit]:
        """The buckets that this request of `self.http` takes from, the most specific first. Pure; default: none.

        A request that its buckets make wait for a few seconds waits; one that they make wait for longer is not sent,
        and Retry is raised.
        """
        return ()

    def learn(self, request: httpx.Request, response: httpx.Response) -> Sequence[Learned]:
        """What the answer teaches about limits. Pure: from the status, the headers and, of a 429, the body.

        Called for each answer to a request that `limits` names buckets for. After a 429 that taught a short wait, the
        request is sent again; a longer wait becomes Retry; one that taught none is handed to the caller. Default: the
        Retry-After of a 429 or 503 is a wait for the request's first bucket.
        """
        named = self.limits(request)
        if response.status_code in (429, 503) and named:
            seconds = retry_after(response.headers, now=self.now)
            return () if seconds is None else (Wait(named[0].bucket, seconds),)
        return ()

    async def authenticate(self, request: httpx.Request) -> None:
        """Add the credentials to a request of `self.http`: override it, usually to set a header from `self.credential`.

        Called for each request to the base URL's origin, never for another host's, nor for those that a `mint` makes.
        After a 401 to a credential that can be had anew, it is called once more and the request sent again.
        """

    async def credential(self, name: str, mint: Mint | None = None) -> str:
        """The stored token of this name.

        One that is void or soon will be is renewed first, by one worker at a time for all: refreshed where OAuth gave
        it, else minted. Raises Unauthorized when there is none and no `mint`, or when it cannot be renewed.
        """
        if (kept := self.emitted.credentials.get(name)) is not None:
            return kept.access_token
        if self._call.credentials is None:
            raise Unauthorized(f"there is no credential named {name!r}")
        secret = await self._call.credentials.read(name, bare(mint) if mint else None)
        note_use(UsedCredential(name, secret, minted=mint is not None))
        return secret

    def keep_credential(self, name: str, token: Token) -> None:
        """Have a token stored, sealed, until it expires; it takes the place of an older one of its name.

        Committed with the call, like `emit`. Raises ValueError for a name that is empty, too long or not printable,
        TypeError for a token without text, or with data that is not JSON.
        """
        if not self._call.may_emit:
            raise RuntimeError("an unsigned hook may only wake; it can keep no credential")
        check_credential_name(name)
        check_token(token)
        self.emitted.credentials[name] = token

    async def _invalidate(self, used: UsedCredential) -> bool:
        return self._call.credentials is not None and await self._call.credentials.invalidate(used)

    def emit(
        self,
        what: Event | Signal | Dirty,
        *,
        initiator: Initiator | None = None,
        key: str | None = None,
        at: datetime | None = None,
    ) -> None:
        """Say that something happened (an Event), pass something to a process (a Signal), or mark a mirrored row Dirty.

        initiator  who caused the event.
        key        unique per instance, a repeat is dropped.
        at         when it happened on the platform.

        Raises RuntimeError in an unsigned hook: what anybody can post must not become news.
        """
        if not self._call.may_emit:
            raise RuntimeError("an unsigned hook may only wake; it can emit nothing")
        if isinstance(what, Signal):
            self.emitted.signals.append(what)
        elif isinstance(what, Dirty):
            self.emitted.dirty.append(what)
        else:
            self.emitted.events.append(EmittedEvent(what, initiator, key, at))

    def change(self, edit: Callable[[StateT], StateT]) -> None:
        """Have the state changed by a pure function. Concurrent calls' changes are applied in turn, none is lost."""
        if not self._call.may_emit:
            raise RuntimeError("an unsigned hook may only wake; it can change nothing")
        self.emitted.changes.append(edit)

    def disable(self, reason: str) -> None:
        """Have the instance taken out of use: the app was uninstalled, its access revoked. Committed with the call.

        The driver is told why by the event `instance.disabled`; `teardown` is not called, there is nothing left to
        undo. Processes are paused, and go on if the instance is enabled again in time. `reason` is shown to drivers.
        """
        if not self._call.may_emit:
            raise RuntimeError("an unsigned hook may only wake; it can disable nothing")
        self.emitted.disabled = reason
