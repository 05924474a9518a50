"""What a plugin's own actions can do with the community's governance processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, Protocol

from pydantic import JsonValue

from metagov_sdk.process import OutcomeT, ParamsT, Process, StateT


@dataclass(frozen=True, slots=True)
class ProcessView(Generic[ParamsT, StateT, OutcomeT]):
    """A process as it stands in the database.

    read_state  what `state` comes from: a large state is only read by those who ask for it.
    """

    id: str
    status: Literal["created", "pending", "completed"]
    params: ParamsT
    read_state: Callable[[], StateT | None] = field(repr=False, compare=False)
    outcome: dict[str, Any] | None
    closing_at: datetime | None

    @property
    def state(self) -> StateT | None:
        """The typed state; None until the process has started. Raises Conflict when this version cannot read it."""
        return self.read_state()


class Processes(Protocol):
    """The processes of the instance that an action is called on; `self.processes` of a plugin."""

    async def get(
        self, kind: type[Process[ParamsT, StateT, OutcomeT]], process_id: str
    ) -> ProcessView[ParamsT, StateT, OutcomeT]:
        """One process. Raises NotFound when the instance has none of that kind and id."""

    async def send(
        self, kind: type[Process[Any, Any, Any]], process_id: str, signal: str, data: Mapping[str, JsonValue]
    ) -> int:
        """Store a signal for a process; return its position once it is committed.

        It is committed at once and by itself, whatever becomes of the action. What was accepted here is counted: a
        process that is closing waits for signals on their way. Raises NotFound, or Conflict when the process has
        completed or its `closing_at` has come (by the database's clock).
        """
