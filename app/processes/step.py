"""Folding: what signals, timers and closing make of a process's state. Pure calls into the plugin, then one write."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.ids import new_id
from app.core.killpoints import KillPoint, reached
from app.events.service import NewEvent, record
from app.host.binding import InstanceData
from app.processes.models import EffectRow, ProcessRow
from app.processes.schemas import wire
from app.runtime.models import SignalRow
from metagov_sdk import CloseReason, Completed, Failed, Pending, ProcessSpec, Received, State

_log = structlog.get_logger(__name__)

_MOST_SIGNALS = 1000


class Parked(Exception):
    """The process's state was written by a version of the plugin that the one here cannot read."""


async def waiting_signals(session: AsyncSession, row: ProcessRow) -> Sequence[SignalRow]:
    """The signals addressed to the process that no step has taken yet, in order."""
    if row.key is None:
        return []
    query = (
        select(SignalRow)
        .where(
            SignalRow.instance_id == row.instance_id,
            SignalRow.process == row.name,
            SignalRow.key == row.key,
            SignalRow.applied_at.is_(None),
        )
        .order_by(SignalRow.position, SignalRow.id)
        .limit(_MOST_SIGNALS)
    )
    return (await session.scalars(query)).all()


async def fold(
    session: AsyncSession,
    spec: ProcessSpec,
    instance: InstanceData,
    row: ProcessRow,
    now: datetime,
    *,
    close: CloseReason | None = None,
) -> bool:
    """Under the row's lock: apply what waits, then timers, then `close`. Returns whether anything changed.

    Raises Parked when the state's version cannot be read.
    """
    before = (row.status, row.outcome)
    changed = False
    signals = await waiting_signals(session, row)
    for signal in signals:
        if row.status == "pending":
            received = Received(signal.kind, signal.data, signal.position, signal.at)
            take(session, spec, row, _guard(spec, row, lambda state, got=received: spec.cls.on_signal(state, got)))
            changed = True
    if signals:
        await session.execute(update(SignalRow).where(SignalRow.id.in_([s.id for s in signals])).values(applied_at=now))
    if row.status == "pending" and row.wake_at is not None and row.wake_at <= now:
        row.wake_at = None
        wake = Received("wake", {}, 0, now)
        take(session, spec, row, _guard(spec, row, lambda state: spec.cls.on_signal(state, wake)))
        changed = True
    if close is None and row.closing_at is not None and row.closing_at <= now:
        close = "deadline"
    if row.status == "pending" and close is not None and len(signals) < _MOST_SIGNALS:
        take(session, spec, row, _guard(spec, row, lambda state, why=close: spec.cls.close(state, why)))
        changed = True
    if changed:
        row.version += 1
        await announce(session, instance, row, before)
        reached(KillPoint.FOLD_WRITTEN)
    return changed


def _guard(spec: ProcessSpec, row: ProcessRow, step: Any) -> Any:
    """The step's result; a pure function that raises fails its process visibly instead of being retried for ever."""
    state = read_state(spec, row)
    try:
        return step(state)
    except Exception as error:
        _log.exception("a process step failed", plugin=row.plugin, process=row.name, id=row.id)
        return Failed({"step": f"the plugin's code failed ({type(error).__name__})"})


def read_state(spec: ProcessSpec, row: ProcessRow) -> State:
    """The typed state, upgraded where an older version wrote it. Raises Parked."""
    values = dict(row.state or {})
    try:
        if row.state_version != spec.cls.version:
            values = spec.cls.upgrade(values, row.state_version)
        state: State = spec.state.model_validate(values)
    except ValueError as error:
        raise Parked(f"its state has version {row.state_version}, the plugin has {spec.cls.version}") from error
    return state


def take(session: AsyncSession, spec: ProcessSpec, row: ProcessRow, step: Any) -> None:
    """Write a step into the row, and its effects beside it."""
    if isinstance(step, Pending):
        row.status = "pending"
        row.state = step.state.model_dump(mode="json")
        row.state_version = spec.cls.version
        row.outcome = row.outcome if step.outcome is None else step.outcome.model_dump(mode="json")
        row.url = step.url or row.url
        row.key = step.key or row.key
        row.closing_at = step.closing_at or row.closing_at
        row.wake_at = step.wake_at
    elif isinstance(step, Completed):
        row.status = "completed"
        row.outcome = step.outcome.model_dump(mode="json")
    elif isinstance(step, Failed):
        row.status = "completed"
        row.errors = dict(step.errors) or {"failed": "the plugin gave no reason"}
    else:
        row.status = "completed"
        row.errors = {"step": f"the plugin's code returned {type(step).__name__}, not a step"}
    for effect in getattr(step, "then", ()):
        session.add(
            EffectRow(
                id=new_id("eff"), process_id=row.id, method=effect.method, args=effect.args, expires=effect.expires
            )
        )


async def announce(
    session: AsyncSession, instance: InstanceData, row: ProcessRow, before: tuple[str, Any] | None
) -> None:
    """Tell the driver when status or outcome are not what they were `before` (None: whatever they were)."""
    if before == (row.status, row.outcome):
        return
    await session.flush()
    await record(
        session,
        [
            NewEvent(
                driver_id=instance.driver_id,
                community_id=instance.community_id,
                community=instance.community,
                instance_id=instance.id,
                source=row.plugin,
                event_type="process.updated",
                data=wire(row, instance.community).model_dump(mode="json"),
                callback_id=row.callback_id,
            )
        ],
    )
