"""The history of a process: each committed step with what it was made of, so that it can be read and repeated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.paging import cut, decode_cursor, encode_cursor
from app.processes.fold import Course, digest, read_state
from app.processes.models import TransitionRow
from metagov_sdk import ProcessSpec, Received

_WRITE = text("""
INSERT INTO process_transitions
    (process_id, version, at, kind, status, signals, signal_count, first_position, last_position, late, woken, reason,
     unread, state_version, state_digest, state, outcome, errors)
SELECT * FROM unnest(
    CAST(:process_id AS text[]), CAST(:version AS int[]), CAST(:at AS timestamptz[]), CAST(:kind AS text[]),
    CAST(:status AS text[]), CAST(:signals AS json[]), CAST(:signal_count AS int[]),
    CAST(:first_position AS bigint[]), CAST(:last_position AS bigint[]), CAST(:late AS int[]), CAST(:woken AS bool[]),
    CAST(:reason AS text[]), CAST(:unread AS int[]), CAST(:state_version AS int[]), CAST(:state_digest AS text[]),
    CAST(:state AS json[]), CAST(:outcome AS json[]), CAST(:errors AS json[]))
""")


@dataclass(frozen=True, slots=True)
class Taken:
    """A signal as it was read from the mailbox; `data` is its JSON."""

    id: int
    position: int
    kind: str
    data: str
    at: datetime

    def received(self) -> Received:
        """As the plugin gets it."""
        return Received(self.kind, json.loads(self.data), self.position, self.at)


@dataclass(frozen=True, slots=True)
class Causes:
    """What a step was made of, in this order: signals, a timer's "wake", closing for a reason."""

    signals: Sequence[Taken] = ()
    late: int = 0
    woken: bool = False
    reason: str | None = None
    unread: int = 0


@dataclass(frozen=True, slots=True)
class Transition:
    """A step to be written down.

    state       as JSON; `keep_state` where it follows from nothing before.
    outcome     as JSON, whole; None where the step gave none.
    update      what is told of the outcome, and kept here: while it is pending, `update_of` what the step gave.
    """

    process_id: str
    version: int
    at: datetime
    kind: str
    status: str
    state_version: int
    state: str | None
    outcome: str | None
    update: str | None
    errors: dict[str, Any]
    keep_state: bool
    causes: Causes

    def values(self) -> dict[str, Any]:
        """By column."""
        signals = self.causes.signals
        return {
            "process_id": self.process_id,
            "version": self.version,
            "at": self.at,
            "kind": self.kind,
            "status": self.status,
            "signals": _spell(signals) if signals else None,
            "signal_count": len(signals),
            "first_position": signals[0].position if signals else None,
            "last_position": signals[-1].position if signals else None,
            "late": self.causes.late,
            "woken": self.causes.woken,
            "reason": self.causes.reason,
            "unread": self.causes.unread,
            "state_version": self.state_version,
            "state_digest": digest(self.state),
            "state": self.state if self.keep_state else None,
            "outcome": self.update,
            "errors": json.dumps(self.errors),
        }


def _spell(signals: Sequence[Taken]) -> str:
    """[[position, kind, data, at], …]; the data as they are stored, which spares reading and writing them again."""
    spelt = (f'[{s.position},{json.dumps(s.kind)},{s.data},"{s.at.isoformat()}"]' for s in signals)
    return f"[{','.join(spelt)}]"


async def write(session: AsyncSession, transitions: Sequence[Transition]) -> None:
    """Write steps down, in the transaction that takes them."""
    if transitions:
        rows = [transition.values() for transition in transitions]
        await session.execute(_WRITE, {column: [row[column] for row in rows] for column in rows[0]})


async def page(
    session: AsyncSession, process_id: str, after: str | None, limit: int
) -> tuple[Sequence[TransitionRow], str | None]:
    """A page of a process's history, oldest first."""
    position = decode_cursor(after, (int,), of="transitions")
    query = select(TransitionRow).where(TransitionRow.process_id == process_id)
    if position:
        query = query.where(TransitionRow.version > position[0])
    found = await session.scalars(query.order_by(TransitionRow.version).limit(limit + 1))
    rows, more = cut(found.all(), limit)
    return rows, encode_cursor([rows[-1].version], of="transitions") if more else None


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a process's history comes to when it is folded anew.

    `outcome` is whole if a step since the start or an upgrade gave it, and else as updates show it.
    """

    status: str
    outcome: dict[str, Any] | None
    errors: dict[str, str]


async def replay(session: AsyncSession, spec: ProcessSpec, process_id: str) -> Replayed:
    """Fold a process's history anew, from the state its start gave. Nothing is written, nobody is told.

    Raises LookupError when there is no history, Parked when the plugin here cannot read the state.
    """
    query = select(TransitionRow).where(TransitionRow.process_id == process_id).order_by(TransitionRow.version)
    rows = (await session.scalars(query)).all()
    if not rows:
        raise LookupError(f"there is no history of {process_id!r}")
    course = Course(spec, process_id)
    outcome: dict[str, Any] | None = None
    for row in rows:
        if row.kind == "start" or row.state is not None:
            state = None if row.state is None else read_state(spec, row.state, row.state_version)
            course = Course(spec, process_id, state, row.status, errors=row.errors)
            outcome = row.outcome
        else:
            _repeat(course, row)
            if course.outcome is not None:
                outcome = course.outcome.model_dump(mode="json")
    return Replayed(course.status, outcome, course.errors)


def _repeat(course: Course, row: TransitionRow) -> None:
    course.fold(
        [Received(kind, data, position, datetime.fromisoformat(at)) for position, kind, data, at in row.signals or ()]
    )
    if row.woken:
        course.wake(row.at)
    if row.reason is not None:
        # Written by `close` below, so one of the reasons there are.
        course.close(row.reason, row.unread)  # type: ignore[arg-type]
