"""Processes between their rows and their course: read into it, kept from it, written many at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.ids import new_ids
from app.core.work import LostLease
from app.processes.fold import Course, read_state
from app.processes.history import Causes, Transition
from app.processes.models import ProcessRow
from metagov_sdk import Do, ProcessSpec

_COLUMNS = {
    "id": "text",
    "status": "text",
    "state": "json",
    "state_version": "int",
    "outcome": "json",
    "errors": "json",
    "url": "text",
    "key": "text",
    "closing_at": "timestamptz",
    "closing_xid": "text",
    "closing_since": "timestamptz",
    "wake_at": "timestamptz",
    "version": "int",
    "rendered": "int",
    "paced_until": "timestamptz",
    "parked": "text",
    "paused_at": "timestamptz",
    "untold": "bool",
    "next_at": "timestamptz",
    "leaves": "bool",
}
# State and outcome are None where they are as they were. Those that are still held keep their lease and their time.
_WRITE = text(f"""
UPDATE processes p SET
    status = n.status, state = coalesce(n.state, p.state), state_version = n.state_version,
    outcome = coalesce(n.outcome, p.outcome), errors = n.errors, url = n.url, key = n.key,
    closing_at = n.closing_at, closing_xid = CAST(n.closing_xid AS xid8), closing_since = n.closing_since,
    wake_at = n.wake_at, version = n.version, rendered = n.rendered, paced_until = n.paced_until, parked = n.parked,
    paused_at = n.paused_at, untold = n.untold,
    next_at = CASE WHEN n.leaves THEN n.next_at ELSE p.next_at END,
    lease_until = CASE WHEN n.leaves THEN NULL ELSE p.lease_until END,
    attempt = CASE WHEN n.leaves THEN 0 ELSE p.attempt END
FROM unnest({", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in _COLUMNS.items())}) AS n({", ".join(_COLUMNS)})
WHERE p.id = n.id
""")  # noqa: S608 -- constants only
_EFFECTS = text("""
INSERT INTO effects (id, process_id, method, args, expires)
SELECT id, process_id, method, args, expires
FROM unnest(CAST(:ids AS text[]), CAST(:processes AS text[]), CAST(:methods AS text[]), CAST(:args AS json[]),
    CAST(:expires AS timestamptz[])) WITH ORDINALITY AS new(id, process_id, method, args, expires, place)
ORDER BY place
""")


async def held(session: AsyncSession, row: ProcessRow) -> ProcessRow:
    """The row as it is now, locked. Raises LostLease when another worker has it."""
    query = select(ProcessRow).where(ProcessRow.id == row.id, ProcessRow.epoch == row.epoch).with_for_update()
    current = await session.scalar(query)
    if current is None:
        raise LostLease
    return current


def course_of(spec: ProcessSpec, row: ProcessRow) -> Course:
    """A pending process, its state typed. Raises Parked."""
    return Course(
        spec,
        row.id,
        read_state(spec, row.state, row.state_version),
        url=row.url,
        key=row.key,
        closing_at=row.closing_at,
        wake_at=row.wake_at,
    )


def keep(
    row: ProcessRow, course: Course, *, at: datetime, kind: str, keep_state: bool, causes: Causes | None = None
) -> Transition:
    """Write a course into its row, all but the state; returns the step to be written down beside it."""
    state, outcome, update = course.texts()
    row.status = course.status
    row.errors = dict(course.errors)
    row.url, row.key, row.wake_at = course.url, course.key, course.wake_at
    if row.close_reason is None:
        row.closing_at = course.closing_at
    if state is not None:
        row.state_version = course.spec.cls.version
    if outcome is not None:
        row.outcome = json.loads(outcome)
    return Transition(
        process_id=row.id,
        version=row.version,
        at=at,
        kind=kind,
        status=row.status,
        state_version=row.state_version,
        state=state,
        outcome=outcome,
        # What ends with errors ends with the outcome it had.
        update=json.dumps(row.outcome)
        if row.status == "completed" and outcome is None and row.outcome is not None
        else update,
        errors=row.errors,
        keep_state=keep_state,
        causes=causes or Causes(),
    )


async def write(session: AsyncSession, rows: Sequence[tuple[ProcessRow, bool, Transition | None]]) -> None:
    """Write rows in one statement: each, whether its lease ends with this, and the step it has taken."""
    if not rows:
        return
    values = [
        {
            **{name: getattr(row, name) for name in _COLUMNS if hasattr(row, name)},
            "state": step and step.state,
            "outcome": step and step.outcome,
            "errors": json.dumps(row.errors or {}),
            "closing_xid": None if row.closing_xid is None else str(row.closing_xid),
            "leaves": leaves,
        }
        for row, leaves, step in rows
    ]
    await session.execute(_WRITE, {name: [value[name] for value in values] for name in _COLUMNS})


async def write_effects(session: AsyncSession, effects: Sequence[tuple[str, Do]]) -> None:
    """Write down, in order, what is to be performed: the process's id, and the effect."""
    if effects:
        await session.execute(
            _EFFECTS,
            {
                "ids": new_ids("eff", len(effects)),
                "processes": [process_id for process_id, _ in effects],
                "methods": [effect.method for _, effect in effects],
                "args": [json.dumps(effect.args) for _, effect in effects],
                "expires": [effect.expires for _, effect in effects],
            },
        )
