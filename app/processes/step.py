"""A step of many processes in one transaction: read what waits, fold it, write what comes of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import String, any_, cast, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.killpoints import KillPoint, reached
from app.core.metrics import processes_of
from app.events.service import NewEvent, record
from app.host.binding import InstanceData
from app.processes import barrier, history, rows
from app.processes.barrier import Closing, Gate
from app.processes.fold import Course, Parked
from app.processes.history import Causes, Taken, Transition
from app.processes.models import ProcessRow
from app.processes.runner import Runner
from app.processes.schemas import wire
from metagov_sdk import CloseReason, Do, ProcessSpec

MOST_SIGNALS = 1000
"""Of one process in one step."""
_SIGNALS_OF_ALL = 10_000
_FEWEST_SIGNALS = 100
_ECHO = timedelta(milliseconds=250)
"""After a step, one more look: a signal on its way while it was committed may have found the process still due."""
_BUSY = 8
"""So many signals in a step, and the next one waits for that look too, to take as many."""
_SOON = timedelta(milliseconds=50)
_RECHECK = timedelta(seconds=60)
_WITHOUT_PLATFORM = timedelta(minutes=1)
"""Until it is seen whether an instance that cannot speak to its platform can again."""

_WAITING = text("""
SELECT w.process_id, s.id, s.position, s.kind, CAST(s.data AS text) AS data, s.at
FROM unnest(CAST(:ids AS text[]), CAST(:instances AS text[]), CAST(:names AS text[]), CAST(:keys AS text[]))
    WITH ORDINALITY AS w(process_id, instance_id, name, key, place)
CROSS JOIN LATERAL (
    SELECT * FROM (
        (SELECT * FROM signals WHERE instance_id = w.instance_id AND process = w.name AND key = w.key
            AND applied_at IS NULL ORDER BY position, id LIMIT :most)
        UNION ALL
        (SELECT * FROM signals WHERE instance_id = w.instance_id AND process = w.name AND key = w.process_id
            AND w.process_id IS DISTINCT FROM w.key AND applied_at IS NULL ORDER BY position, id LIMIT :most)
    ) AS both_keys ORDER BY position, id LIMIT :most
) AS s
ORDER BY w.place, s.position, s.id
""")
_APPLIED = text("UPDATE signals SET applied_at = clock_timestamp() WHERE id = ANY(CAST(:ids AS bigint[]))")


@dataclass(frozen=True, slots=True)
class Turn:
    """A process in hand: its row as it was claimed, and the database's time of that. `holds`: under the row's lease."""

    row: ProcessRow
    spec: ProcessSpec
    instance: InstanceData
    now: datetime
    holds: bool = True

    @property
    def id(self) -> str:
        """The process's."""
        return self.row.id

    @property
    def may_act(self) -> bool:
        """Whether its platform can be spoken to."""
        return self.instance.status == "enabled" and not self.instance.deleted


@dataclass(slots=True)
class Stepped:
    """What a turn came to. `row` is None when the lease was lost; `draws`: the row is still held, to be shown first."""

    row: ProcessRow | None
    state: Any = None
    draws: bool = False
    transition: Transition | None = None
    effects: Sequence[Do] = ()
    applied: Sequence[int] = ()
    more: bool = False
    """There may be more in the mailbox than one step takes."""
    event: NewEvent | None = None


def why_close(turn: Turn, row: ProcessRow, grace: timedelta) -> CloseReason | None:
    """Why a pending process is to be closed now, if it is."""
    if turn.instance.deleted:
        return "deleted"
    if row.close_reason == "driver":
        return "driver"
    if turn.instance.status == "disabled":
        return "disabled" if row.paused_at is not None and row.paused_at + grace <= turn.now else None
    return "deadline" if row.closing_at is not None and row.closing_at <= turn.now else None


async def take_steps(use: Runner, turns: Sequence[Turn]) -> list[Stepped]:
    """Take a step of each process: what waits in its mailbox, a due timer, its closing. One commit for all."""
    closings = [
        Closing(
            row.id,
            row.instance_id,
            reason,
            row.created_at,
            row.closing_at,
            row.closing_xid,
            row.closing_since,
            turn.now,
        )
        for turn in turns
        if (row := turn.row).status == "pending" and (reason := why_close(turn, row, use.grace)) is not None
    ]
    gates = await barrier.look(use.db.pool, closings, use.barrier)
    async with use.db.begin() as session:
        held = await _hold(session, turns)
        mailbox = await _read(session, [held[turn.id] for turn in turns if turn.id in held])
        steps = [_step(use, turn, held.get(turn.id), mailbox, gates.get(turn.id)) for turn in turns]
        await _write(session, turns, steps)
        changed = any(step.transition for step in steps)
        if changed:
            reached(KillPoint.FOLD_WRITTEN)
    if changed:
        reached(KillPoint.FOLD_COMMITTED)
    if changed or any(step.event for step in steps):
        use.wake.poke("deliveries", "effects")
    for step in steps:
        if step.transition and step.row:
            processes_of(step.row.plugin, step.row.status).inc()
    return steps


async def _hold(session: AsyncSession, turns: Sequence[Turn]) -> dict[str, ProcessRow]:
    """The rows as they are now, locked in one order for all; without those that another worker has."""
    ids = cast([turn.id for turn in turns], ARRAY(String))
    found = await session.scalars(
        select(ProcessRow).where(ProcessRow.id == any_(ids)).order_by(ProcessRow.id).with_for_update(key_share=True)
    )
    epochs = {turn.id: turn.row.epoch for turn in turns}
    kept = {row.id: row for row in found if row.epoch == epochs[row.id]}
    # From here on they are values: what changes is written by one statement, not row by row.
    session.expunge_all()
    return kept


async def _read(session: AsyncSession, found: Sequence[ProcessRow]) -> dict[str, list[Taken]]:
    """What waits in the mailboxes of those that are pending, in order; at most so many of each."""
    pending = [row for row in found if row.status == "pending"]
    mailbox: dict[str, list[Taken]] = {row.id: [] for row in pending}
    if pending:
        values = {
            "ids": [row.id for row in pending],
            "instances": [row.instance_id for row in pending],
            "names": [row.name for row in pending],
            "keys": [row.key for row in pending],
            "most": _most(len(pending)),
        }
        for process_id, *signal in await session.execute(_WAITING, values):
            mailbox[process_id].append(Taken(*signal))
    return mailbox


def _most(processes: int) -> int:
    return max(_FEWEST_SIGNALS, min(MOST_SIGNALS, _SIGNALS_OF_ALL // processes))


def _step(
    use: Runner, turn: Turn, row: ProcessRow | None, mailbox: Mapping[str, Sequence[Taken]], gate: Gate | None
) -> Stepped:
    """One process's step, in memory: `row` is changed as it is to be written."""
    step = Stepped(row)
    if row is None:
        return step
    try:
        if row.status == "pending":
            paused = turn.instance.status == "disabled" and not turn.instance.deleted
            if paused and why_close(turn, row, use.grace) is None:
                row.paused_at = row.paused_at or turn.now
                row.next_at = row.paused_at + use.grace
                return step
            row.paused_at = row.paused_at if paused else None
            _fold(use, turn, row, mailbox[row.id], gate, step, _most(len(mailbox)))
        row.parked = None
    except Parked as error:
        row.parked = str(error)
        row.next_at = turn.now + _RECHECK
        return Stepped(row)
    if row.untold:
        row.untold = False
        step.event = told(turn.instance, row)
    step.draws = turn.holds and _draws(turn, row)
    if not step.draws:
        row.next_at = _next(turn, row, step)
    return step


def _fold(
    use: Runner, turn: Turn, row: ProcessRow, waiting: Sequence[Taken], gate: Gate | None, step: Stepped, most: int
) -> None:
    reason = why_close(turn, row, use.grace)
    if reason is not None and not _fits(row, reason, gate):
        # It came due in between, or another look is to be taken: nothing is closed on a line that was not drawn.
        gate = None
    late = [signal for signal in waiting if _is_late(row, signal)] if reason == "deadline" else []
    taken = [signal for signal in waiting if not _is_late(row, signal)] if late else waiting
    step.more = len(waiting) >= most
    woken = row.wake_at is not None and row.wake_at <= turn.now
    closes = gate is not None and gate.open and not step.more
    if taken or woken or closes or row.parked is not None:
        course = rows.course_of(turn.spec, row)
        course.fold([signal.received() for signal in taken])
        if woken:
            course.wake(turn.now)
        closed = reason if closes and reason and _still(course, row, reason) else None
        unread = gate.unread if closed and gate else 0
        if closed:
            course.close(closed, unread)
        if course.changed:
            _keep(turn, row, course, step, Causes(taken, len(late) if closed else 0, woken, closed, unread))
    # Until it closes, a signal in time may still put the deadline off, and those that are late now would be in time.
    step.applied = [signal.id for signal in (waiting if row.status == "completed" or step.more else taken)]
    if row.status == "pending" and gate is not None and row.closing_at == gate.closing.closing_at:
        row.closing_xid, row.closing_since = gate.mark, row.closing_since or turn.now
    else:
        row.closing_xid = row.closing_since = None


def _fits(row: ProcessRow, reason: CloseReason, gate: Gate | None) -> bool:
    return gate is not None and (gate.closing.reason, gate.closing.closing_at) == (reason, row.closing_at)


def _still(course: Course, row: ProcessRow, reason: CloseReason) -> bool:
    """A signal may have put the deadline off; nothing puts off the other reasons."""
    return course.pending and (reason != "deadline" or course.closing_at == row.closing_at)


def _is_late(row: ProcessRow, signal: Taken) -> bool:
    return row.closing_at is not None and signal.at >= row.closing_at


def _keep(turn: Turn, row: ProcessRow, course: Course, step: Stepped, causes: Causes) -> None:
    """Write the course into the row, and the step beside it."""
    before = (row.status, row.outcome)
    upgraded = row.state_version != turn.spec.cls.version
    if course.stands and not causes.woken and row.rendered == row.version:
        # Clicks that change nothing draw nothing; a timer may want to, though its state is the same.
        row.rendered += 1
    row.version += 1
    step.state, step.effects = course.state, course.then
    step.transition = rows.keep(
        row, course, at=turn.now, kind="close" if causes.reason else "step", keep_state=upgraded, causes=causes
    )
    if (row.status, row.outcome) != before:
        step.event = told(turn.instance, row, step.transition)


def _draws(turn: Turn, row: ProcessRow) -> bool:
    due = row.render_at is None or row.render_at <= turn.now
    return turn.spec.renders and turn.may_act and row.rendered < row.version and due


def _next(turn: Turn, row: ProcessRow, step: Stepped) -> datetime | None:
    duty = next_duty(turn, row)
    if row.status != "pending":
        return duty
    row.paced_until = None
    if step.more:
        return turn.now
    if row.closing_xid is not None:
        waited = turn.now - (row.closing_since or turn.now)
        return turn.now + min(max(_SOON, waited / 4), timedelta(seconds=1))
    echo = turn.now + _ECHO if step.applied else None
    if len(step.applied) >= _BUSY:
        row.paced_until = echo
    return min((at for at in (duty, echo) if at is not None), default=None)


def next_duty(turn: Turn, row: ProcessRow) -> datetime | None:
    """When something is next to be done of itself."""
    times = [row.closing_at, row.wake_at] if row.status == "pending" else []
    if row.status == "pending" and turn.spec.observes:
        times.append(row.observe_at if turn.may_act else turn.now + _WITHOUT_PLATFORM)
    if turn.spec.renders and row.rendered < row.version and not turn.instance.deleted:
        times.append((row.render_at or turn.now) if turn.may_act else turn.now + _WITHOUT_PLATFORM)
    return min((at for at in times if at is not None), default=None)


def told(instance: InstanceData, row: ProcessRow, step: Transition | None = None) -> NewEvent:
    """What the driver is told of a process, in the order of its steps: how it stands after `step`.

    Without a step it is told of the whole outcome.
    """
    data = wire(row, instance.community).model_dump(mode="json")
    if step is not None:
        data["outcome"] = None if step.update is None else json.loads(step.update)
    return NewEvent(
        driver_id=instance.driver_id,
        community_id=instance.community_id,
        community=instance.community,
        instance_id=instance.id,
        source=row.plugin,
        event_type="process.updated",
        data=data,
        callback_id=row.callback_id,
        lane=row.id,
    )


async def _write(session: AsyncSession, turns: Sequence[Turn], steps: Sequence[Stepped]) -> None:
    if applied := [signal for step in steps for signal in step.applied]:
        await session.execute(_APPLIED, {"ids": applied})
    transitions = [step.transition for step in steps if step.transition is not None]
    await history.write(session, transitions)
    await rows.write_effects(session, [(step.row.id, one) for step in steps if step.row for one in step.effects])
    await record(session, [step.event for step in steps if step.event is not None])
    texts = {transition.process_id: transition for transition in transitions}
    await rows.write(
        session,
        [
            (step.row, turn.holds and not step.draws, texts.get(turn.id))
            for turn, step in zip(turns, steps, strict=True)
            if step.row is not None
        ],
    )
