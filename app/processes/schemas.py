"""The wire shape of a process."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import StringConstraints

from app.core.http import Answer, Body
from app.events.schemas import Url
from app.processes.models import ProcessRow
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
