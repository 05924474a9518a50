"""Governance processes: a pure fold over signals, with I/O only at the edges.

    start(params) ──I/O──▶ Pending(state) ──on_signal / close, pure──▶ … ──▶ Completed(outcome) | Failed(errors)
                                  └── render(state, status), I/O, after commit, level-triggered

The gateway keeps the state, the mailbox and the clock. It may call `on_signal` and `close` again with the same input
(after a crash, or to replay history), so they must return the same step for it: no I/O, no clock, no fresh randomness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal

from pydantic import JsonValue
from typing_extensions import TypeVar

from metagov_sdk.models import Model, State

if TYPE_CHECKING:
    from metagov_sdk.plugin import Plugin

CloseReason = Literal["driver", "deadline", "disabled", "deleted"]
"""Why a process is closed: the driver asked, `closing_at` came, the instance stayed disabled, or it was deleted."""

Status = Literal["pending", "completed"]

ParamsT = TypeVar("ParamsT", bound=Model)
StateT = TypeVar("StateT", bound=State)
OutcomeT = TypeVar("OutcomeT", bound=Model)


@dataclass(frozen=True, slots=True)
class Do:
    """An external effect to perform after the step is committed: `method` of the process, with JSON `args`.

    Runs at least once, with the same `idempotency_key` each time; not at all once `expires` has passed.
    """

    method: str
    args: dict[str, JsonValue] = field(default_factory=dict)
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class Pending(Generic[StateT, OutcomeT]):
    """The process goes on.

    state       what the next step starts from.
    outcome     the running result shown to drivers (None: as it was).
    url         where people see it on the platform; given by `start`.
    key         the platform's id that signals are addressed by; given by `start`.
    closing_at  when the gateway calls `close(state, "deadline")`; None leaves it as it was.
    wake_at     when `on_signal` gets a signal of kind "wake"; None: no such timer.
    then        effects to perform once this step is committed.
    """

    state: StateT
    outcome: OutcomeT | None = None
    url: str | None = None
    key: str | None = None
    closing_at: datetime | None = None
    wake_at: datetime | None = None
    then: tuple[Do, ...] = ()


@dataclass(frozen=True, slots=True)
class Completed(Generic[OutcomeT]):
    """The process has ended with its one outcome."""

    outcome: OutcomeT
    then: tuple[Do, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The process has ended without an outcome; `errors` maps a short name to plain words."""

    errors: dict[str, str]
    then: tuple[Do, ...] = ()


Step = Pending[StateT, OutcomeT] | Completed[OutcomeT] | Failed


@dataclass(frozen=True, slots=True)
class Signal:
    """Something for a process, addressed by the process's name and platform key; sent with `self.emit(...)`."""

    process: str
    key: str
    kind: str
    data: dict[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Received:
    """A signal as it stands in the mailbox. `position` orders signals; the last writer is the highest position.

    Signals may be applied out of their order (webhooks' handlers run side by side): keep what decides by `position`.

    `at` is the database's time at which it was stored (for a webhook: at which the webhook was).
    """

    kind: str
    data: dict[str, Any]
    position: int
    at: datetime


class Process(Generic[ParamsT, StateT, OutcomeT]):
    """A kind of governance process. Subclass it, list it in the manifest.

    The object is fresh for each call; `self.plugin` is the bound plugin (config, http, log), `self.id` the process's
    id, `self.now` the database's time, `self.idempotency_key` is the same for every attempt of one call.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    closable: ClassVar[bool] = True
    """Whether a driver may close it early (DELETE); if not it answers 405."""
    render_every: ClassVar[timedelta] = timedelta(seconds=1)
    """At most one `render` per this time."""
    observe_every: ClassVar[timedelta | None] = None
    """How often `observe` polls the platform; None: only when a hook wakes it, and once before the deadline."""

    def __init__(self, plugin: Plugin[Any, Any, Any], *, id: str, now: datetime, idempotency_key: str) -> None:
        self.plugin = plugin
        self.id = id
        self.now = now
        self.idempotency_key = idempotency_key

    @classmethod
    def check(cls, params: ParamsT, now: datetime) -> None:
        """Refuse parameters that only the clock can find fault with, such as a deadline that has passed. Pure.

        Called with the database's time once the parameters fit their schema, and before anything is stored or opened.
        Raises Invalid, with a pointer from the parameters' root.
        """

    async def start(self, params: ParamsT) -> Step[StateT, OutcomeT]:
        """Open the process on the platform. I/O. `self.id` may go into the platform's own object."""
        raise NotImplementedError(f"{type(self).__name__} must define start")

    async def find_started(self, params: ParamsT) -> Step[StateT, OutcomeT] | None:
        """Look for what an earlier `start`, whose answer was lost, made on the platform. I/O.

        None: it made nothing, start again. A process that leaves this undefined fails as `start_unknown` instead,
        because starting blindly could open the same vote twice.
        """
        raise NotImplementedError

    @classmethod
    def on_signal(cls, state: StateT, signal: Received) -> Step[StateT, OutcomeT]:
        """The next step after a signal. Pure."""
        return Pending(state)

    @classmethod
    def on_signals(cls, state: StateT, signals: Sequence[Received]) -> Step[StateT, OutcomeT]:
        """The one step that stands for those after each of `signals`, in their order. Pure.

        The gateway calls this, and `on_signal` only through it: at each commit with the signals that wait, at least
        one and at most 1,000, ordered by position; a timer's "wake" comes alone. The answer takes the place of the
        single steps: the last state, outcome and timers, and every effect. Once a step has ended the process, the
        signals after it are dropped.

        Override it where a batch can be folded for less than its signals one by one; the state and the outcome have
        to be the same as if they were.
        """
        then: list[Do] = []
        merged: Pending[StateT, OutcomeT] = Pending(state)
        for signal in signals:
            step = cls.on_signal(merged.state, signal)
            then.extend(step.then)
            if not isinstance(step, Pending):
                return replace(step, then=tuple(then))
            merged = Pending(
                step.state,
                outcome=merged.outcome if step.outcome is None else step.outcome,
                url=step.url or merged.url,
                key=step.key or merged.key,
                closing_at=step.closing_at or merged.closing_at,
                wake_at=step.wake_at,
            )
        return replace(merged, then=tuple(then))

    @classmethod
    def close(cls, state: StateT, why: CloseReason) -> Completed[OutcomeT] | Failed:
        """The last step. Pure.

        If the outcome's model has a field `unread`, the gateway writes there how many of the instance's webhooks came
        before `closing_at` and could not be handled: signals for this process may have been among them.
        """
        raise NotImplementedError(f"{cls.__name__} must define close")

    @classmethod
    def update_of(cls, outcome: OutcomeT) -> Model:
        """What the history keeps and drivers are told of a running outcome: by events, by callbacks. Pure.

        Of a process that is still pending; GET shows the whole outcome at any time, and so does the last update. By
        default the whole. Leave out what grows with each step (every voter's id): it would be told again with each.
        """
        return outcome

    async def render(self, state: StateT, status: Status) -> None:
        """Show the newest state on the platform. I/O; retried; never holds up an outcome."""

    async def observe(self, state: StateT, final: bool) -> Signal | None:
        """Ask the platform how things stand; the answer enters the mailbox. I/O."""
        return None

    @classmethod
    def upgrade(cls, old: dict[str, Any], from_version: int) -> dict[str, Any]:
        """Pure: a stored state of `from_version` in the shape of `version`. Raise ValueError if it cannot be."""
        raise ValueError(f"{cls.__name__} cannot read version {from_version}: it defines no upgrade")
