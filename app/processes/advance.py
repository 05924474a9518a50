"""Advancing processes in the worker: start what was created, take steps, observe and render around them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import func, text

from app.core import work
from app.core.db import is_away
from app.core.group import Group
from app.core.killpoints import KillPoint, reached
from app.host.binding import InstanceData, UnreadableInstance
from app.processes.fold import Parked, read_state
from app.processes.models import ProcessRow
from app.processes.rows import held
from app.processes.runner import Runner
from app.processes.start import give_up, run_start
from app.processes.step import Stepped, Turn, next_duty, take_steps
from app.runtime import instances
from app.runtime.calls import PluginCrashed, needs_auth, run
from app.runtime.models import SignalRow
from metagov_sdk import PluginError, ProcessSpec, Retry, Status, Unauthorized

BATCH = 200
"""How many processes a worker has in hand at a time."""
_STEPS = 100
"""How many of them take a step in one transaction."""
_RECHECK = timedelta(seconds=60)
_ECHO = timedelta(milliseconds=250)

_SIGNAL_WAITS = text("""
SELECT EXISTS (SELECT FROM signals WHERE instance_id = :instance AND process = :name AND key = ANY(:keys)
    AND applied_at IS NULL)
""")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Claimed:
    """A process with its instance as it was when it was claimed; `instance` is None when that could not be read."""

    row: ProcessRow
    instance: InstanceData | None
    now: datetime

    @property
    def id(self) -> str:
        return self.row.id

    @property
    def epoch(self) -> int:
        return self.row.epoch


async def advance_due(use: Runner, news: asyncio.Event | None = None) -> int:
    """Advance due processes until none is in hand. Returns how many there were."""
    steps = Group[Turn, Stepped](
        lambda turns: take_steps(use, turns), is_ones_fault=lambda error: not is_away(error), most_items=_STEPS
    )
    use.news.expect()
    return await work.drain(
        lambda limit: _claim(use, limit),
        lambda claimed: _advance(use, claimed, steps),
        limit=BATCH,
        news=news,
        keep=work.keeping(use.db, ProcessRow),
    )


async def _claim(use: Runner, limit: int) -> Sequence[_Claimed]:
    looks = use.news.due()
    async with use.db.begin() as session:
        if looks:
            await use.news.pull(session)
        rows = await work.claim(session, ProcessRow, limit=limit, lease=work.LEASE)
    if looks:
        use.news.pulled()
    if not rows:
        return []
    found, now = await instances.by_ids(use.db.pool, use.vault, {row.instance_id for row in rows})
    return [_Claimed(row, found.get(row.instance_id), now) for row in rows]


async def _advance(use: Runner, claimed: _Claimed, steps: Group[Turn, Stepped]) -> None:
    row, instance = claimed.row, claimed.instance
    spec = use.spec(row)
    if instance is None:
        # The row is gone, and took the process's with it; or its secrets cannot be opened, which is raised here.
        await instances.by_id(use.db.pool, use.vault, row.instance_id)
    elif spec is None:
        await _park(use, row, f"no plugin {row.plugin!r} with a process {row.name!r} is installed")
    elif row.status == "created":
        await _start(use, instance, spec, row, claimed.now)
    else:
        turn = Turn(row, spec, instance, claimed.now)
        try:
            await _take_turn(use, turn, steps)
        except (Parked, UnreadableInstance) as error:
            await _park(use, row, str(error))


async def _start(use: Runner, instance: InstanceData, spec: ProcessSpec, row: ProcessRow, now: datetime) -> None:
    if instance.status != "disabled":
        await run_start(use, instance, spec, row)
    elif instance.deleted or (row.paused_at is not None and row.paused_at + use.grace <= now):
        await give_up(use, instance, spec, row, "deleted" if instance.deleted else "disabled")
    else:
        paused_at = row.paused_at or now
        async with use.db.begin() as session:
            # Tries that were not made do not count.
            await work.fail(
                session,
                row,
                retry_in=timedelta(0),
                attempt=row.attempt - 1,
                paused_at=paused_at,
                next_at=paused_at + use.grace,
            )


async def _take_turn(use: Runner, turn: Turn, steps: Group[Turn, Stepped]) -> None:
    row = turn.row
    if row.status == "pending" and turn.may_act and turn.spec.observes:
        final = row.closing_at is not None and row.closing_at <= turn.now and not row.observed_final
        if final or (row.observe_at is not None and row.observe_at <= turn.now):
            await _observe(use, turn, final=final)
    step = await steps.add(turn)
    if step.row is None:
        raise work.LostLease
    if not step.draws:
        return
    retry = await _render(use, turn, step)
    async with use.db.begin() as session:
        current = await held(session, row)
        if retry is None:
            current.rendered = step.row.version
        current.render_at = await use.db.now() + (turn.spec.cls.render_every if retry is None else retry)
        await session.flush()
        due = next_duty(turn, current)
        if current.status == "pending":
            # Whoever wrote one meanwhile found the process due; those still at it are looked for once more.
            keys = [key for key in (current.key, current.id) if key is not None]
            where = {"instance": current.instance_id, "name": current.name, "keys": keys}
            waits = await session.scalar(_SIGNAL_WAITS, where)
            again = func.clock_timestamp() + (timedelta(0) if waits else _ECHO)
            await work.finish(session, current, next_at=again if due is None else func.least(due, again))
        else:
            await work.finish(session, current, next_at=due)


async def _observe(use: Runner, turn: Turn, *, final: bool) -> None:
    """Ask the platform; the answer enters the mailbox as a signal. A failed observation never holds up the deadline."""
    row, now = turn.row, turn.now
    process = use.bind(turn.spec, turn.instance, row, now, f"observe:{row.id}:{row.version}")
    signal = None
    try:
        state = read_state(turn.spec, row.state, row.state_version)
        signal = await run(process.observe(state, final), seconds=use.timeout, what="observe", instance=turn.instance)
    except (PluginError, PluginCrashed) as error:
        _log.warning("observation failed", plugin=row.plugin, process=row.id, reason=str(error))
    async with use.db.begin() as session:
        current = await held(session, row)
        current.observed_final = current.observed_final or final
        current.observe_at = None if turn.spec.cls.observe_every is None else now + turn.spec.cls.observe_every
        if signal is not None:
            # What was seen last counts, also where it is looked for a moment after the end.
            in_time = current.closing_at is None or now < current.closing_at
            at = now if in_time or current.closing_at is None else current.closing_at - timedelta(microseconds=1)
            session.add(
                SignalRow(
                    instance_id=row.instance_id,
                    process=signal.process,
                    key=signal.key,
                    kind=signal.kind,
                    data=signal.data,
                    at=at,
                )
            )


async def _render(use: Runner, turn: Turn, step: Stepped) -> timedelta | None:
    """Show the newest state on the platform. Returns when to try again if that failed."""
    row = step.row
    if row is None or (step.state is None and row.state is None):
        return None  # It ended with its start: there never was a state to show.
    state = read_state(turn.spec, row.state, row.state_version) if step.state is None else step.state
    process = use.bind(turn.spec, turn.instance, row, turn.now, f"render:{row.id}:{row.version}")
    status: Status = "completed" if row.status == "completed" else "pending"
    try:
        await run(process.render(state, status), seconds=use.timeout, what="render", instance=turn.instance)
        reached(KillPoint.RENDER_DONE)
    except Retry as error:
        return timedelta(seconds=error.after) if error.after else work.backoff(row.attempt, first=2)
    except Unauthorized as error:
        async with use.db.begin() as session:
            await needs_auth(session, turn.instance, error.reason)
        # It is the instance that keeps it waiting from now on, and no longer than that.
        return turn.spec.cls.render_every
    except (PluginError, PluginCrashed) as error:
        _log.warning("rendering failed for good", plugin=row.plugin, process=row.id, reason=str(error))
    return None


async def _park(use: Runner, row: ProcessRow, reason: str) -> None:
    """Show why no worker can go on with it, and look again in a while."""
    async with use.db.begin() as session:
        current = await held(session, row)
        current.parked = reason
        await session.flush()
        await work.finish(session, current, next_at=func.clock_timestamp() + _RECHECK)
