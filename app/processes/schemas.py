"""The wire shapes of a process and its history."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import StringConstraints

from app.core.http import Answer, Body
from app.events.schemas import Url
from app.processes.models import ProcessRow, TransitionRow
from app.runtime.schemas import PlatformId


class StartOptions(Body):
    """What `POST …/process/<plugin>.<process>` takes beside the process's own parameters."""

    callback_url: Url | None = None
    correlation_id: Annotated[str, StringConstraints(max_length=500)] | None = None
    community_platform_id: PlatformId | None = None


class ProcessOut(Answer):
    """A governance process. Failed means completed with `errors`."""

    id: str
    name: str
    """`<plugin>.<process>`"""
    community: str
    instance: str
    status: Literal["created", "pending", "completed"]
    url: str | None
    errors: dict[str, Any]
    outcome: dict[str, Any] | None
    correlation_id: str | None
    created_at: datetime
    closing_at: datetime | None
    parked: str | None


class ProcessesPage(Answer):
    """A community's processes, newest first."""

    processes: list[ProcessOut]
    next: str | None


class TransitionOut(Answer):
    """One committed step of a process. What the signals held is not shown: votes may be secret."""

    version: int
    """Counts the steps; a start that failed is 0."""
    at: datetime
    kind: Literal["start", "step", "close"]
    status: Literal["created", "pending", "completed"]
    """The process's, after the step."""
    signals: int
    """How many it took from the mailbox."""
    first_position: int | None
    last_position: int | None
    late: int
    """Signals that came after `closing_at`, and do not count."""
    woken: bool
    """Whether a timer had come."""
    reason: str | None
    """Why it was closed: driver, deadline, disabled or deleted."""
    unread: int
    """Webhooks of before `closing_at` that could not be handled."""
    state_digest: str | None
    """SHA-256 of the state, after the step."""
    outcome: dict[str, Any] | None
    """What the step made of it, as updates show it; null where it left it as it was."""
    errors: dict[str, Any]


class TransitionsPage(Answer):
    """A process's history, oldest first."""

    transitions: list[TransitionOut]
    next: str | None


def wire_transition(row: TransitionRow) -> TransitionOut:
    """A step as drivers see it."""
    return TransitionOut(
        version=row.version,
        at=row.at,
        kind=row.kind,
        status=row.status,
        signals=row.signal_count,
        first_position=row.first_position,
        last_position=row.last_position,
        late=row.late,
        woken=row.woken,
        reason=row.reason,
        unread=row.unread,
        state_digest=row.state_digest,
        outcome=row.outcome,
        errors=row.errors or {},
    )


def wire(row: ProcessRow, community: str) -> ProcessOut:
    """A row as drivers see it."""
    return ProcessOut(
        id=row.id,
        name=f"{row.plugin}.{row.name}",
        community=community,
        instance=row.instance_id,
        status=row.status,
        url=row.url,
        errors=row.errors or {},
        outcome=row.outcome,
        correlation_id=row.correlation_id,
        created_at=row.created_at,
        closing_at=row.closing_at,
        parked=row.parked,
    )
