"""A governance process under test: its pure steps, and a whole life from start to outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Unpack

from pydantic import BaseModel, JsonValue

from metagov_sdk.errors import Conflict, NotFound
from metagov_sdk.manifest import Manifest, ProcessSpec
from metagov_sdk.models import State
from metagov_sdk.process import (
    CloseReason,
    Completed,
    Do,
    Failed,
    OutcomeT,
    ParamsT,
    Pending,
    Process,
    Received,
    Signal,
    StateT,
    Status,
)
from metagov_sdk.processes import ProcessView
from metagov_sdk.testing.binding import NOW, Binding, ContractError, apply_changes, bind_call, kept

AnyStep = Pending[Any, Any] | Completed[Any] | Failed


def fold(process: type[Process[Any, Any, Any]], state: State, *signals: Received | Signal) -> AnyStep:
    """The last step after `signals`, in order; a step that ends the process ends the fold.

    A Signal is taken as received at NOW, in the position it is given in. Raises ContractError when a step is not pure,
    its state does not survive being stored, or `on_signals` makes something else of all signals at once.
    """
    received = [
        signal if isinstance(signal, Received) else Received(signal.kind, dict(signal.data), position, NOW)
        for position, signal in enumerate(signals, start=1)
    ]
    step: AnyStep = Pending(state)
    outcome = None
    before = state
    for signal in received:
        step = _pure(partial(_on_signals, process, [signal]), state)
        if not isinstance(step, Pending):
            break
        state = step.state
        outcome = outcome if step.outcome is None else step.outcome
    if len(received) > 1:
        _check_batch(process, before, received, step if not isinstance(step, Pending) else Pending(state, outcome))
    return step


def _check_batch(
    process: type[Process[Any, Any, Any]], state: State, signals: Sequence[Received], wanted: AnyStep
) -> None:
    """Hold `on_signals` to what the signals come to one by one."""
    step = _pure(partial(_on_signals, process, signals), state)
    same = type(step) is type(wanted)
    for name in ("state", "outcome", "errors"):
        same = same and getattr(step, name, None) == getattr(wanted, name, None)
    if not same:
        raise ContractError(
            f"{process.__name__}.on_signals makes something else of {len(signals)} signals at once than one by one"
        )


def close(process: type[Process[Any, Any, Any]], state: State, why: CloseReason = "driver") -> Completed[Any] | Failed:
    """The step that closes a process in `state`. Raises ContractError when it is not pure, or leaves it open."""
    step = _pure(lambda before: process.close(before, why), state)
    if not isinstance(step, Completed | Failed):
        raise ContractError(f"close returned {type(step).__name__}; a closed process is Completed or Failed")
    return step


async def start_process(
    manifest: Manifest, name: str, params: Any = None, *, id: str = "prc_test", **binding: Unpack[Binding]
) -> RunningProcess:
    """Start a process with JSON parameters.

    Raises pydantic.ValidationError where the gateway answers 422, LookupError for an unknown name, ContractError, and
    what `start` raises.
    """
    spec = manifest.processes.get(name)
    if spec is None:
        raise LookupError(f"the plugin has no process {name!r}; it has {sorted(manifest.processes)}")
    values = kept(spec.params.model_validate({} if params is None else params), f"process {name}: its parameters")
    spec.cls.check(values, binding.get("now", NOW))
    running = RunningProcess(manifest, spec, values, id, binding)
    await running.start()
    return running


class RunningProcess:
    """A process as its row stands: its state, and what drivers see (`status`, `outcome`, `errors`, `url`, …)."""

    def __init__(self, manifest: Manifest, spec: ProcessSpec, params: BaseModel, id: str, binding: Binding) -> None:
        self._manifest = manifest
        self._spec = spec
        self._binding = binding
        self._position = 0
        self.id = id
        self.params = params
        self.now = binding.get("now", NOW)
        self.status: Status = "pending"
        self.state: Any = None
        self.outcome: dict[str, Any] | None = None
        self.update: dict[str, Any] | None = None
        """The outcome as events and callbacks tell it, and the history keeps it (`Process.update_of`)."""
        self.errors: dict[str, str] = {}
        self.url: str | None = None
        self.key: str | None = None
        self.closing_at: datetime | None = None
        self.wake_at: datetime | None = None
        self.effects: list[Do] = []
        """What steps asked for with `then` and `perform_effects` has not done yet."""
        self.instance_state: State | None = None
        """The instance's state after `start`."""

    async def start(self) -> None:
        """Call the process's `start`; `start_process` has done it already."""
        process = self._bound()
        self._take(await process.start(self.params))
        plugin = process.plugin
        self.instance_state = apply_changes(self._manifest.state, plugin.state, plugin.emitted.changes)

    @property
    def kind(self) -> type[Process[Any, Any, Any]]:
        """The process's class."""
        return self._spec.cls

    def signal(self, kind: str, data: Mapping[str, JsonValue] | None = None, *, at: datetime | None = None) -> int:
        """Let a signal in; one that comes after the end changes nothing. Returns its position."""
        if self.status == "pending":
            self._position += 1
            received = Received(kind, dict(data or {}), self._position, at or self.now)
            self._take(fold(self._spec.cls, self.state, received))
        return self._position

    def deliver(self, *signals: Signal, at: datetime | None = None) -> None:
        """Let in what hooks and actions emitted, folded together: `vote.deliver(*got.signals)`.

        What the steps ask for is in `effects`. Raises ContractError when a signal is addressed to another process.
        """
        for signal in signals:
            if signal.process != self._spec.name or signal.key not in (self.key, self.id):
                raise ContractError(
                    f"the signal is addressed to {(signal.process, signal.key)}, "
                    f"this process is {(self._spec.name, self.key)}, its id {self.id!r}"
                )
        if self.status != "pending" or not signals:
            return
        received = []
        for signal in signals:
            self._position += 1
            received.append(Received(signal.kind, dict(signal.data), self._position, at or self.now))
        fold(self._spec.cls, self.state, *received)
        self._take(_pure(partial(_on_signals, self._spec.cls, received), self.state))

    def advance(self, to: datetime) -> None:
        """Let time pass: a due `wake_at` first, then a due `closing_at`."""
        self.now = to
        if self.status == "pending" and self.wake_at is not None and self.wake_at <= to:
            self.wake_at = None
            self._take(fold(self._spec.cls, self.state, Received("wake", {}, 0, to)))
        if self.status == "pending" and self.closing_at is not None and self.closing_at <= to:
            self._take(close(self._spec.cls, self.state, "deadline"))

    def close(self, why: CloseReason = "driver") -> None:
        """Close it. Raises ValueError where the gateway answers 405 (not closable) or 409 (completed already)."""
        if self.status != "pending":
            raise ValueError("the process is completed already")
        if why == "driver" and not self._spec.cls.closable:
            raise ValueError("the process cannot be closed by a driver (closable = False)")
        self._take(close(self._spec.cls, self.state, why))

    async def render(self) -> None:
        """Show the newest state on the platform."""
        await self._bound().render(self.state, self.status)

    async def observe(self, *, final: bool = False) -> None:
        """Ask the platform and take in what it says. Raises ContractError when the answer is addressed elsewhere."""
        signal = await self._bound().observe(self.state, final)
        if signal is None:
            return
        if (signal.process, signal.key) != (self._spec.name, self.key):
            raise ContractError(
                f"observe addressed its signal to {(signal.process, signal.key)}, "
                f"this process is {(self._spec.name, self.key)}"
            )
        self.signal(signal.kind, dict(signal.data))

    async def perform_effects(self) -> None:
        """Perform what steps asked for with `then`, in order, without what has expired."""
        while self.effects:
            effect = self.effects.pop(0)
            if effect.expires is None or effect.expires > self.now:
                await getattr(self._bound(), effect.method)(**effect.args)

    def _bound(self) -> Process[Any, Any, Any]:
        key = self._binding.get("idempotency_key", "key_test")
        plugin = bind_call(self._manifest, {**self._binding, "now": self.now}, may_emit=True)
        return self._spec.cls(plugin, id=self.id, now=self.now, idempotency_key=key)

    def _take(self, step: AnyStep) -> None:
        """Write a step into the row, as the gateway does."""
        if isinstance(step, Pending):
            self.state = kept(step.state, f"process {self._spec.name}: its state")
            if step.outcome is not None:
                self.outcome = step.outcome.model_dump(mode="json")
                shown = _pure(self._spec.cls.update_of, step.outcome)
                self.update = kept(shown, f"process {self._spec.name}: its update").model_dump(mode="json")
            self.url = step.url or self.url
            self.key = step.key or self.key
            self.closing_at = step.closing_at or self.closing_at
            self.wake_at = step.wake_at
        elif isinstance(step, Completed):
            self.status = "completed"
            self.outcome = kept(step.outcome, f"process {self._spec.name}: its outcome").model_dump(mode="json")
            self.update = self.outcome
        elif isinstance(step, Failed):
            self.status = "completed"
            self.errors = dict(step.errors) or {"failed": "the plugin gave no reason"}
            self.update = self.outcome
        else:
            raise ContractError(f"a step is Pending, Completed or Failed, not {type(step).__name__}")
        self._check_effects(getattr(step, "then", ()))

    def _check_effects(self, effects: Iterable[Do]) -> None:
        for effect in effects:
            if not callable(getattr(self._spec.cls, effect.method, None)):
                raise ContractError(f"Do({effect.method!r}): the process has no such method")
            self.effects.append(effect)


class ProcessesInMemory:
    """Started processes as an action finds them: `perform(…, processes=ProcessesInMemory(vote))`."""

    def __init__(self, *running: RunningProcess) -> None:
        self._running = running

    async def get(
        self, kind: type[Process[ParamsT, StateT, OutcomeT]], process_id: str
    ) -> ProcessView[ParamsT, StateT, OutcomeT]:
        """One process. Raises NotFound."""
        found = self._find(kind, process_id)
        params: Any = found.params
        state: Any = found.state
        return ProcessView(found.id, found.status, params, lambda: state, found.outcome, found.closing_at)

    async def send(
        self, kind: type[Process[Any, Any, Any]], process_id: str, signal: str, data: Mapping[str, JsonValue]
    ) -> int:
        """Let a signal in; its position. Raises NotFound, or Conflict when the process has ended or its time is up."""
        found = self._find(kind, process_id)
        if found.status == "completed" or (found.closing_at is not None and found.closing_at <= found.now):
            raise Conflict("the process is closed")
        return found.signal(signal, data)

    def _find(self, kind: type[Process[Any, Any, Any]], process_id: str) -> RunningProcess:
        for running in self._running:
            if running.id == process_id and running.kind is kind:
                return running
        raise NotFound(f"there is no {kind.name} {process_id!r}")


def _on_signals(process: type[Process[Any, Any, Any]], signals: Sequence[Received], state: State) -> Any:
    return process.on_signals(state, signals)


def _pure(step: Callable[[Any], Any], state: State) -> Any:
    """The step's result, after a second try on the stored state gave the same."""
    first = step(state)
    second = step(kept(state, "the process's state"))
    if first != second:
        raise ContractError(
            "the same state and signal gave two different steps; on_signal and close are pure: no clock, no I/O, "
            "no fresh randomness (draw it in start and keep it in the state)"
        )
    return first
