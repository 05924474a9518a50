"""Wire shapes of mirrors."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from app.core.http import Answer, Body
from app.mirrors.status import MirrorStatus


class SyncIn(Body):
    """What to read."""

    sweep: bool = False
    """Read everything again: proves edits and deletions."""


class TableOut(Answer):
    """A mirrored table."""

    name: str
    rows: int
    """How many rows are there that the platform has not deleted."""
    last_attempt_at: datetime | None
    last_success_at: datetime | None
    complete_through: datetime | None
    """All that was there at this time is in the table. Null while something is missing or could not be read."""
    high_water: datetime | None
    """The latest time in it."""
    error: str | None


class ProgressOut(Answer):
    """How far the run is."""

    done: int
    known: int
    """Partitions: channels, threads, messages with reactions. More may become known."""
    requests: int
    waits: int
    eta_seconds: float | None


class MirrorOut(Answer):
    """An instance's mirror of its platform."""

    provider: str
    state: Literal["idle", "running", "failed"]
    tables: list[TableOut]
    progress: ProgressOut | None


def wire(status: MirrorStatus) -> MirrorOut:
    """The answer."""
    return MirrorOut.model_validate(
        {
            "provider": status.provider,
            "state": status.state,
            "tables": [{name: getattr(table, name) for name in TableOut.model_fields} for table in status.tables],
            "progress": status.progress and {name: getattr(status.progress, name) for name in ProgressOut.model_fields},
        }
    )
