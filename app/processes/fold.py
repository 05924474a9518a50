"""The fold: what signals, timers and closing make of a process. In memory and pure, but for the plugin's own code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import structlog
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from metagov_sdk import CloseReason, Completed, Do, Failed, Pending, ProcessSpec, Received

_log = structlog.get_logger(__name__)


class Parked(Exception):
    """The process's state was written by a version of the plugin that the one here cannot read."""


def read_state(spec: ProcessSpec, stored: Mapping[str, Any] | None, version: int) -> Any:
    """The typed state, upgraded where an older version wrote it. Raises Parked."""
    values = dict(stored or {})
    try:
        if version != spec.cls.version:
            values = spec.cls.upgrade(values, version)
        return spec.state.model_validate(values)
    except ValueError as error:
        raise Parked(f"its state has version {version}, the plugin has {spec.cls.version}") from error


class Texts(NamedTuple):
    """A course's results as JSON, None for one there is none of. `update` is what is told of the outcome."""

    state: str | None = None
    outcome: str | None = None
    update: str | None = None


@dataclass(slots=True)
class Course:
    """A process on its way through the steps of one commit; the state stays typed in between.

    `state` is None before the start. `outcome` is None, and `state_text` too, as long as no step has given one.
    """

    spec: ProcessSpec
    id: str
    state: Any = None
    status: str = "pending"
    outcome: BaseModel | None = None
    errors: dict[str, str] = field(default_factory=dict)
    url: str | None = None
    key: str | None = None
    closing_at: datetime | None = None
    wake_at: datetime | None = None
    then: list[Do] = field(default_factory=list)
    changed: bool = False
    _read: Any = field(init=False)

    def __post_init__(self) -> None:
        """Remember what it began with."""
        self._read = self.state

    @property
    def pending(self) -> bool:
        """Whether it goes on."""
        return self.status == "pending"

    @property
    def stands(self) -> bool:
        """Whether it is pending in the very state it was read in: there is nothing new to show."""
        return self.pending and self.state is self._read

    def fold(self, signals: Sequence[Received]) -> None:
        """Take signals in, in their order."""
        if self.pending and signals:
            self._guarded(lambda: self.spec.cls.on_signals(self.state, signals))

    def wake(self, at: datetime) -> None:
        """The timer has come."""
        if self.pending:
            self.wake_at = None
            self._guarded(lambda: self.spec.cls.on_signals(self.state, [Received("wake", {}, 0, at)]))

    def close(self, reason: CloseReason, unread: int) -> None:
        """The end; `unread` goes into an outcome that has such a field."""
        if self.pending:
            self._guarded(lambda: _with_unread(self.spec.cls.close(self.state, reason), unread))
            if self.pending:
                self.take(Failed({"step": "the plugin's code did not close it"}))

    def take(self, step: Any) -> None:
        """Go on from a step of the plugin's."""
        self.changed = True
        if isinstance(step, Pending):
            self.status = "pending"
            self.state = step.state
            self.outcome = self.outcome if step.outcome is None else step.outcome
            self.url = step.url or self.url
            self.key = step.key or self.key
            self.closing_at = step.closing_at or self.closing_at
            self.wake_at = step.wake_at
        elif isinstance(step, Completed):
            self.status = "completed"
            self.outcome = step.outcome
        elif isinstance(step, Failed):
            self.status = "completed"
            self.errors = dict(step.errors) or {"failed": "the plugin gave no reason"}
        else:
            self.take(Failed({"step": f"the plugin's code returned {type(step).__name__}, not a step"}))
        self.then.extend(getattr(step, "then", ()))

    def fail(self, error: Exception) -> None:
        """The plugin's code raised: the process ends visibly instead of being tried again for ever."""
        _log.error("a process step failed", process=self.spec.name, id=self.id, exc_info=error)
        self.take(Failed({"step": f"the plugin's code failed ({type(error).__name__})"}))

    def texts(self) -> Texts:
        """State and outcome as JSON. What JSON cannot hold, or the plugin's code trips over, fails the process."""
        try:
            return Texts(to_json(self.state), to_json(self.outcome), to_json(self._update()))
        except Exception as error:
            # Whatever the plugin put into its models, it must not hold up the batch.
            self.fail(error)
            self.state, self.outcome, self.then = None, None, []
            return Texts()

    def _update(self) -> BaseModel | None:
        if self.outcome is None or not self.pending:
            return self.outcome
        return self.spec.cls.update_of(self.outcome)

    def _guarded(self, step: Callable[[], Any]) -> None:
        try:
            taken = step()
        except Exception as error:
            # A pure function that raises would raise again.
            self.fail(error)
        else:
            self.take(taken)


def _with_unread(step: Any, unread: int) -> Any:
    if isinstance(step, Completed) and "unread" in type(step.outcome).model_fields:
        return Completed(step.outcome.model_copy(update={"unread": unread}), then=step.then)
    return step


def to_json(value: BaseModel | None) -> str | None:
    """A model as JSON; ValueError for numbers that JSON has not."""
    if value is None:
        return None
    try:
        return value.model_dump_json()
    except PydanticSerializationError:
        # Lone surrogates, which platforms do send: JSON can spell them, UTF-8 cannot.
        return json.dumps(value.model_dump(mode="json"), allow_nan=False)


def digest(text: str | None) -> str | None:
    """SHA-256 of a state's JSON as it is stored."""
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()
