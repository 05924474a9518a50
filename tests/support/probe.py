"""A plugin that uses every part of the SDK, for tests of the gateway itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
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
    Retry,
    Settings,
    Signal,
    State,
    Status,
    Step,
    Unauthorized,
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

LOG: list[str] = []
"""What the plugin did outside the database, in order; tests clear it."""
BEHAVIOUR: dict[str, Any] = {}
"""What tests tell the plugin to do; cleared after each test."""


class ProbeConfig(Config):
    """Config with a secret and a platform id."""

    label: str
    token: SecretStr | None = None
    secrets: list[SecretStr] = Field(default_factory=list)
    webhook_secret: SecretStr | None = None
    team: str | None = None


class ProbeState(State):
    """A counter."""

    count: int = 0
    last: str = ""


class ProbeSettings(Settings):
    """The deployment's own secret."""

    webhook_secret: SecretStr | None = None


class Nothing(Model):
    """No parameters."""


class Amount(Model):
    """How much to add."""

    by: int = 1


class Count(Model):
    """The counter as the call saw it."""

    count: int


class Echo(Model):
    """What was given, to be given back."""

    text: str = Field(max_length=100)


class Poked(Event):
    """Somebody poked the platform."""

    event_type: ClassVar[str] = "poked"
    text: str


class Tally(Model):
    """Votes by voter."""

    votes: dict[str, str] = Field(default_factory=dict)
    why: str = ""


class VoteParams(Model):
    """A small vote."""

    title: str = "?"
    seconds: float | None = None


class VoteState(State):
    """Votes so far, and the position of each voter's last."""

    votes: dict[str, str] = Field(default_factory=dict)
    positions: dict[str, int] = Field(default_factory=dict)


class Vote(Process[VoteParams, VoteState, Tally]):
    """A vote by webhook."""

    name = "vote"
    observe_every: ClassVar[timedelta | None] = timedelta(seconds=30)

    async def start(self, params: VoteParams) -> Step[VoteState, Tally]:
        """Open it."""
        LOG.append(f"start {self.id}")
        await behave("start")
        closing = None if params.seconds is None else self.now + timedelta(seconds=params.seconds)
        url = f"https://platform.example/{self.id}"
        return Pending(VoteState(), url=url, key=params.title, closing_at=closing, outcome=Tally())

    async def find_started(self, params: VoteParams) -> Step[VoteState, Tally] | None:
        """Look for it."""
        LOG.append(f"find {self.id}")
        return None if BEHAVIOUR.get("found") is None else Pending(VoteState(), key=params.title, outcome=Tally())

    @classmethod
    def on_signal(cls, state: VoteState, signal: Received) -> Step[VoteState, Tally]:
        """Count a vote."""
        if signal.kind == "crash":
            raise ZeroDivisionError
        voter = signal.data["voter"]
        if signal.position < state.positions.get(voter, 0):
            return Pending(state)
        votes = {**state.votes, voter: signal.data["choice"]}
        positions = {**state.positions, voter: signal.position}
        return Pending(
            VoteState(votes=votes, positions=positions),
            outcome=Tally(votes=votes),
            then=(Do("tell", {"voter": signal.data["voter"]}),),
        )

    @classmethod
    def close(cls, state: VoteState, why: CloseReason) -> Completed[Tally] | Failed:
        """Count them all."""
        return Completed(Tally(votes=state.votes, why=why))

    async def render(self, state: VoteState, status: Status) -> None:
        """Draw it."""
        await behave("render")
        LOG.append(f"render {len(state.votes)} {status}")

    async def observe(self, state: VoteState, final: bool) -> Signal | None:
        """Look at it."""
        voter = BEHAVIOUR.get("observed")
        return (
            Signal("vote", str(BEHAVIOUR.get("key")), "ballot", {"voter": voter, "choice": "seen"}) if voter else None
        )

    async def tell(self, voter: str) -> None:
        """Thank a voter."""
        LOG.append(f"tell {voter}")


class Fragile(Process[VoteParams, VoteState, Tally]):
    """Cannot be found again, and cannot be closed early."""

    name = "fragile"
    closable: ClassVar[bool] = False

    async def start(self, params: VoteParams) -> Step[VoteState, Tally]:
        """Open it."""
        LOG.append(f"start {self.id}")
        await behave("start")
        return Pending(VoteState(), key=params.title)

    @classmethod
    def close(cls, state: VoteState, why: CloseReason) -> Completed[Tally] | Failed:
        """Give up."""
        return Failed({"closed": why})


async def behave(what: str) -> None:
    """Do what the test asked for."""
    order = BEHAVIOUR.get(what)
    if isinstance(order, Exception):
        raise order
    if isinstance(order, int | float):
        await asyncio.sleep(order)


def _reply(request: HookRequest) -> Reply | None:
    if request.body == b"ping":
        return Reply(200, b"pong", store=False)
    return None


class Probe(Plugin[ProbeConfig, ProbeState, ProbeSettings]):
    """Exercises every part of the SDK."""

    name = "probe"
    auth_type = "api_key"

    @classmethod
    def platform_id(cls, config: ProbeConfig) -> str | None:
        """The team."""
        return config.team

    @classmethod
    def needs_binding(cls, config: ProbeConfig) -> bool:
        """A team without a secret of its own leans on the deployment's."""
        return config.webhook_secret is None

    async def setup(self, old_config: ProbeConfig | None = None) -> None:
        """Say so."""
        LOG.append(f"setup {self.config.label} after {old_config.label if old_config else None}")
        await behave("setup")

    async def teardown(self) -> None:
        """Say so."""
        LOG.append(f"teardown {self.config.label}")
        await behave("teardown")

    @action("count")
    async def count(self, params: Amount) -> Count:
        """Add to the counter."""
        await behave("action")
        self.change(lambda state: ProbeState(count=state.count + params.by, last=state.last))
        return Count(count=self.state.count)

    @action("count-exclusively", exclusive=True)
    async def count_exclusively(self, params: Nothing) -> Count:
        """Read, decide, write: right only if alone."""
        seen = self.state.count
        await asyncio.sleep(0.001)
        self.change(lambda state: ProbeState(count=seen + 1))
        return Count(count=seen)

    @action("read", public=True)
    async def read(self, params: Nothing) -> Count:
        """The counter."""
        await behave("action")
        return Count(count=self.state.count)

    @action("echo")
    async def echo(self, params: Echo) -> Echo:
        """Give back, and tell drivers."""
        self.emit(Poked(text=params.text), initiator=Initiator(user_id="u1", provider="probe"))
        return params

    @webhook(
        verify=hmac_sha256(config("webhook_secret") | setting("webhook_secret"), header="X-Signature"),
        dedupe=by_header("X-Delivery"),
        reply=_reply,
        shared=True,
        locate=lambda request: [team] if (team := request.headers.get("X-Team")) else [],
        mask=("/token",),
    )
    async def receive(self, request: HookRequest) -> None:
        """News."""
        await behave("handler")
        body = request.json()
        self.change(lambda state: ProbeState(count=state.count + 1, last=str(body.get("text"))))
        if "vote" in body:
            self.emit(Signal("vote", body["vote"], body.get("kind", "ballot"), body))
        else:
            by = Initiator(user_id=body["by"], provider="probe") if "by" in body else None
            self.emit(Poked(text=str(body.get("text"))), initiator=by, key=body.get("key"))
        if "disable" in body:
            self.disable(body["disable"])
        for link in body.get("links", ()):
            self.accounts.link(**link)

    @webhook("hint", verify=unsigned(reason="the platform signs nothing"))
    def hint(self, request: HookRequest) -> Sequence[Wake]:
        """Somebody says something happened."""
        if request.body == b"forge":
            self.emit(Poked(text="forged"))
        if request.body.startswith(b"vote "):
            return [Wake(process="vote", key=request.body[5:].decode())]
        return [Wake(poll="listen")]

    @poll(every=timedelta(seconds=60))
    async def listen(self, cursor: JsonValue) -> AsyncIterator[Checkpoint]:
        """Count up, three at a time."""
        start = cursor if isinstance(cursor, int) else 0
        for number in range(start, start + 3):
            await behave("poll")
            self.emit(Poked(text=f"poll {number}"), key=f"poll-{number}")
            yield Checkpoint(number + 1)


manifest = Manifest(Probe, processes=[Vote, Fragile], events=[Poked])

__all__ = ["BEHAVIOUR", "LOG", "Rejected", "Retry", "Unauthorized", "manifest"]
