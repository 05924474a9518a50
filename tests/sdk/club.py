"""A toy plugin that uses, and on request abuses, all that the SDK offers."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar

from pydantic import Field, JsonValue, SecretStr

from metagov_sdk import (
    Checkpoint,
    CloseReason,
    Completed,
    Config,
    Do,
    Event,
    Failed,
    HookRequest,
    Initiator,
    Manifest,
    Model,
    Pending,
    Plugin,
    Process,
    Received,
    Rejected,
    Reply,
    Settings,
    Signal,
    State,
    Step,
    Wake,
    action,
    by_header,
    config,
    hmac_sha256,
    poll,
    setting,
    unsigned,
    webhook,
)
from metagov_sdk.testing import (
    NOW,
    hook_request,
    sign_hmac_sha256,
)


class ClubConfig(Config):
    """Config."""

    club: str | None = None
    """The club's id."""
    secret: SecretStr | None = None
    """Signs the webhooks."""


class ClubState(State):
    """State."""

    members: int = 0
    odd: Any = None


class ClubSettings(Settings):
    """Settings."""

    secret: SecretStr | None = None
    """Signs the webhooks."""


class Name(Model):
    """A name."""

    name: str = Field(min_length=1)
    """The name."""


class Greeting(Model):
    """A greeting."""

    text: str
    at: datetime
    members: int


class Joined(Event):
    """Somebody joined."""

    event_type: ClassVar[str] = "joined"
    name: str
    weight: float = 1


class Club(Plugin[ClubConfig, ClubState, ClubSettings]):
    """A club."""

    name = "club"

    @classmethod
    def platform_id(cls, config: ClubConfig) -> str | None:
        return config.club

    @classmethod
    def base_url(cls, config: ClubConfig, settings: ClubSettings) -> str:
        return "https://club.example/api"

    @action("greet")
    async def greet(self, params: Name) -> Greeting:
        """Greet, and count."""
        for _ in params.name:
            self.change(lambda state: state.model_copy(update={"members": state.members + 1}))
        self.emit(Joined(name=params.name), initiator=Initiator(user_id="u1", provider="club"), key="k")
        return Greeting(text=f"{self.community}: {params.name}", at=self.now, members=self.state.members)

    @action("fetch")
    async def fetch(self, params: Name) -> dict[str, str]:
        """Fetch."""
        answer = await self.http.get("members", params={"name": params.name})
        return {"url": str(answer.request.url), "text": answer.text, "key": self.idempotency_key}

    @action("misbehave")
    async def misbehave(self, params: Name) -> Name:
        """Break a rule of one's choice."""
        match params.name:
            case "result":
                return {"name": 7}  # type: ignore[return-value]
            case "change":
                self.change(lambda state: None)  # type: ignore[arg-type,return-value]
            case "state":
                self.change(lambda state: state.model_copy(update={"odd": NOW}))
            case "event":
                self.emit(Joined(name="x", weight=float("inf")))
            case "signal":
                self.emit(Signal("nowhere", "k", "ring"))
        return params

    @webhook(
        verify=hmac_sha256(config("secret") | setting("secret")),
        dedupe=by_header("X-Id"),
        reply=lambda request: Reply(200, b"pong", store=False) if request.body == b"{}" else None,
        shared=True,
        locate=lambda request: [request.json()["club"]] if "club" in request.json() else [],
    )
    async def hear(self, request: HookRequest) -> None:
        """Hear of a member."""
        name = request.json()["name"]
        if name == "nobody":
            raise Rejected("nobody")
        self.emit(Joined(name=name))
        self.emit(Signal("vote", "k", "ballot", {"name": name}))

    @webhook("hints", verify=unsigned(reason="the platform signs nothing"))
    def hint(self, request: HookRequest) -> Sequence[Wake]:
        """A hint."""
        if request.body == b"emit":
            self.emit(Joined(name="forged"))
        return [Wake(poll=request.body.decode())]

    @poll(every=timedelta(minutes=1))
    async def members(self, cursor: JsonValue) -> AsyncIterator[Checkpoint]:
        """Members."""
        first = cursor if isinstance(cursor, int) else 0
        for number in range(first, first + 2):
            self.emit(Joined(name=f"m{number}"))
            yield Checkpoint(number + 1)


class Question(Model):
    """A question."""

    text: str = "?"
    """What is asked."""


class Ballots(State):
    """Who said what."""

    said: dict[str, str] = Field(default_factory=dict)
    shown: int = 0


class Tally(Model):
    """How many."""

    yes: int


_fresh = itertools.count()


class Vote(Process[Question, Ballots, Tally]):
    """A vote."""

    name = "vote"
    done: ClassVar[list[tuple[str, str]]] = []

    async def start(self, params: Question) -> Step[Ballots, Tally]:
        if params.text == "refuse":
            return Failed({"refused": "no"})
        self.plugin.change(lambda state: state.model_copy(update={"members": 9}))
        return Pending(
            Ballots(),
            key="k",
            url="https://club.example/1",
            closing_at=self.now + timedelta(hours=1),
            wake_at=self.now + timedelta(minutes=30),
        )

    @classmethod
    def on_signal(cls, state: Ballots, signal: Received) -> Step[Ballots, Tally]:
        if signal.kind == "clock":
            return Pending(Ballots(shown=next(_fresh)))
        if signal.kind == "end":
            return Completed(Tally(yes=len(state.said)))
        if signal.kind == "wake":
            return Pending(state.model_copy(update={"shown": 1}))
        if signal.kind == "tell":
            soon = NOW + timedelta(minutes=5)
            return Pending(state, then=(Do("tell", {"text": "soon"}, expires=soon), Do("tell", {"text": "later"})))
        if signal.kind == "typo":
            return Pending(state, then=(Do("tel"),))
        said = {**state.said, str(signal.data["name"]): str(signal.position)}
        return Pending(Ballots(said=said), outcome=Tally(yes=len(said)))

    @classmethod
    def close(cls, state: Ballots, why: CloseReason) -> Completed[Tally] | Failed:
        return Failed({"closed": why}) if why == "disabled" else Completed(Tally(yes=len(state.said)))

    async def render(self, state: Ballots, status: str) -> None:
        self.done.append((self.id, f"{len(state.said)} {status}"))

    async def observe(self, state: Ballots, final: bool) -> Signal | None:
        if self.plugin.config.club == "elsewhere":
            return Signal("vote", "another", "ballot", {"name": "x"})
        return Signal("vote", "k", "ballot", {"name": "final"}) if final else None

    async def tell(self, text: str) -> None:
        self.done.append((self.idempotency_key, text))


class Fixed(Process[Question, Ballots, Tally]):
    """A vote that no driver closes."""

    name = "fixed"
    closable = False

    async def start(self, params: Question) -> Step[Ballots, Tally]:
        return Pending(Ballots())

    @classmethod
    def close(cls, state: Ballots, why: CloseReason) -> Completed[Tally]:
        return Completed(Tally(yes=0))


manifest = Manifest(Club, processes=[Vote, Fixed], events=[Joined])
OWN = {"club": "c1", "secret": "own"}


def signed(payload: object, *, secret: str = "own", id: str = "1") -> HookRequest:
    body = json.dumps(payload).encode()
    return hook_request(body, {**sign_hmac_sha256(secret, body), "X-Id": id})
