"""Advancing processes in the worker: start what was created, fold what waits, observe, render, perform effects."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import work
from app.core.killpoints import KillPoint, reached
from app.core.metrics import processes_of
from app.host.binding import InstanceData, UnreadableInstance
from app.processes.models import EffectRow, ProcessRow
from app.processes.start import LEASE, Runner, run_start
from app.processes.step import Parked, fold, read_state, waiting_signals
from app.runtime import instances
from app.runtime.calls import PluginCrashed, needs_auth, run
from app.runtime.models import SignalRow
from metagov_sdk import PluginError, Process, ProcessSpec, Retry, Status, Unauthorized

BATCH = 50
_RECHECK = timedelta(seconds=60)
_MOST_EFFECT_ATTEMPTS = 20

_log = structlog.get_logger(__name__)

# News comes up as rows: signals that wait, and instances that were deleted, make their processes due.
_PULL = (
    text("""
    UPDATE processes p SET next_at = now()
    FROM (SELECT DISTINCT instance_id, process, key FROM signals WHERE applied_at IS NULL) s
    WHERE p.instance_id = s.instance_id AND p.name = s.process AND p.key = s.key AND p.status = 'pending'
      AND (p.next_at IS NULL OR p.next_at > now()) AND p.lease_until IS NULL
    """),
    text("""
    UPDATE processes p SET next_at = now()
    FROM instances i
    WHERE i.id = p.instance_id AND i.deleted_at > now() - interval '1 hour' AND p.status <> 'completed'
      AND (p.next_at IS NULL OR p.next_at > now()) AND p.lease_until IS NULL
    """),
)


async def pull(session: AsyncSession) -> None:
    """Make processes due that have news."""
    for statement in _PULL:
        await session.execute(statement)


async def advance_due(use: Runner, news: asyncio.Event | None = None) -> int:
    """Advance due processes until none is in hand. Returns how many there were."""
    claim = work.claiming(use.db, ProcessRow, LEASE, pull=pull)
    return await work.drain(claim, lambda row: _advance(use, row), limit=BATCH, news=news)


async def _advance(use: Runner, row: ProcessRow) -> None:
    found = await instances.by_id(use.db.pool, use.vault, row.instance_id)
    loaded = use.host.plugins.loaded.get(row.plugin)
    spec = loaded.manifest.processes.get(row.name) if loaded else None
    if spec is None:
        await _park(use, row, f"no plugin {row.plugin!r} with a process {row.name!r} is installed")
    elif found is None:
        return  # The instance's row is gone, and took the process's with it.
    elif found[0].status == "disabled" and not found[0].deleted:
        await _postpone(use, row)
    elif row.status == "created":
        await run_start(use, found[0], spec, row, told=False)
    else:
        try:
            await _advance_pending(use, spec, found[0], row)
        except (Parked, UnreadableInstance) as error:
            await _park(use, row, str(error))


async def _advance_pending(use: Runner, spec: ProcessSpec, instance: InstanceData, row: ProcessRow) -> None:
    may_act = instance.status == "enabled"
    now = await use.db.now()
    deadline = row.closing_at is not None and row.closing_at <= now
    if row.status == "pending" and may_act and spec.observes:
        final = deadline and not row.observed_final
        if final or (row.observe_at is not None and row.observe_at <= now):
            await _observe(use, spec, instance, row, now, final=final)
    async with use.db.begin() as session:
        current = await _held(session, row)
        changed = current.status == "pending" and await fold(
            session, spec, instance, current, now, close="deleted" if instance.deleted else None
        )
        await session.flush()
    if changed:
        reached(KillPoint.FOLD_COMMITTED)
        processes_of(row.plugin, current.status).inc()
        use.wake.poke("deliveries", "effects")
    retry = None
    due = spec.renders and may_act and current.rendered < current.version
    if due and (current.render_at is None or current.render_at <= now):
        retry = await _render(use, spec, instance, current, now)
    async with use.db.begin() as session:
        current = await _held(session, row)
        current.parked = None
        if retry is not None:
            current.render_at = now + retry
        elif due:
            current.render_at = now + spec.cls.render_every
        await session.flush()
        waiting = current.status == "pending" and bool(await waiting_signals(session, current))
        await work.finish(session, current, next_at=now if waiting else _next_duty(spec, current, may_act))


def _next_duty(spec: ProcessSpec, row: ProcessRow, may_act: bool) -> datetime | None:
    times = [row.closing_at, row.wake_at] if row.status == "pending" else []
    if may_act and row.status == "pending":
        times.append(row.observe_at)
    if may_act and spec.renders and row.rendered < row.version:
        times.append(row.render_at)
    return min((at for at in times if at is not None), default=None)


async def _held(session: AsyncSession, row: ProcessRow) -> ProcessRow:
    """The row as it is now, locked. Raises LostLease when another worker has it."""
    query = select(ProcessRow).where(ProcessRow.id == row.id, ProcessRow.epoch == row.epoch).with_for_update()
    current = await session.scalar(query)
    if current is None:
        raise work.LostLease
    return current


def _bind(
    use: Runner, spec: ProcessSpec, instance: InstanceData, row: ProcessRow, now: datetime, key: str
) -> Process[Any, Any, Any]:
    plugin = use.host.bind(instance, now=now, idempotency_key=key)
    return spec.cls(plugin, id=row.id, now=now, idempotency_key=key)


async def _observe(
    use: Runner, spec: ProcessSpec, instance: InstanceData, row: ProcessRow, now: datetime, *, final: bool
) -> None:
    """Ask the platform; the answer enters the mailbox as a signal. A failed observation never holds up the deadline."""
    process = _bind(use, spec, instance, row, now, f"observe:{row.id}:{row.version}")
    signal = None
    try:
        state = read_state(spec, row)
        signal = await run(process.observe(state, final), seconds=use.timeout, what="observe", instance=instance)
    except (PluginError, PluginCrashed) as error:
        _log.warning("observation failed", plugin=row.plugin, process=row.id, reason=str(error))
    async with use.db.begin() as session:
        current = await _held(session, row)
        current.observed_final = current.observed_final or final
        current.observe_at = None if spec.cls.observe_every is None else now + spec.cls.observe_every
        if signal is not None:
            session.add(
                SignalRow(
                    instance_id=row.instance_id,
                    process=signal.process,
                    key=signal.key,
                    kind=signal.kind,
                    data=signal.data,
                    at=now,
                )
            )


async def _render(
    use: Runner, spec: ProcessSpec, instance: InstanceData, row: ProcessRow, now: datetime
) -> timedelta | None:
    """Show the newest state on the platform. Returns when to try again if that failed."""
    process = _bind(use, spec, instance, row, now, f"render:{row.id}:{row.version}")
    try:
        status: Status = "completed" if row.status == "completed" else "pending"
        await run(process.render(read_state(spec, row), status), seconds=use.timeout, what="render", instance=instance)
        reached(KillPoint.RENDER_DONE)
    except Retry as error:
        return timedelta(seconds=error.after) if error.after else work.backoff(row.attempt, first=2)
    except Unauthorized as error:
        async with use.db.begin() as session:
            await needs_auth(session, instance, error.reason)
        return _RECHECK
    except (PluginError, PluginCrashed) as error:
        _log.warning("rendering failed for good", plugin=row.plugin, process=row.id, reason=str(error))
    async with use.db.begin() as session:
        current = await _held(session, row)
        current.rendered = row.version
    return None


async def _postpone(use: Runner, row: ProcessRow) -> None:
    async with use.db.begin() as session:
        await work.finish(session, row, next_at=func.clock_timestamp() + _RECHECK)


async def _park(use: Runner, row: ProcessRow, reason: str) -> None:
    """Show why no worker can go on with it, and look again in a while."""
    async with use.db.begin() as session:
        current = await _held(session, row)
        current.parked = reason
        await session.flush()
        await work.finish(session, current, next_at=func.clock_timestamp() + _RECHECK)


async def perform_effects_due(use: Runner, news: asyncio.Event | None = None) -> int:
    """Perform due effects until none is in hand. Returns how many there were."""
    return await work.drain(
        work.claiming(use.db, EffectRow, LEASE), lambda row: _perform_effect(use, row), limit=BATCH, news=news
    )


async def _perform_effect(use: Runner, effect: EffectRow) -> None:
    reached(KillPoint.EFFECT_CLAIMED)
    async with use.db.begin() as session:
        row = await session.get_one(ProcessRow, effect.process_id)
    found = await instances.by_id(use.db.pool, use.vault, row.instance_id)
    loaded = use.host.plugins.loaded.get(row.plugin)
    spec = loaded.manifest.processes.get(row.name) if loaded else None
    now = await use.db.now()
    expired = effect.expires is not None and effect.expires <= now
    error: Exception | None = None
    retry: timedelta | None = None
    if found is None or spec is None or expired:
        error = RuntimeError("expired" if expired else "its plugin or instance is gone")
    else:
        try:
            process = _bind(use, spec, found[0], row, now, effect.id)
            method = getattr(process, effect.method)
            await run(method(**effect.args), seconds=use.timeout, what=effect.method, instance=found[0])
            reached(KillPoint.EFFECT_PERFORMED)
        except Retry as failure:
            error = failure
            retry = timedelta(seconds=failure.after) if failure.after else work.backoff(effect.attempt)
        except (PluginError, PluginCrashed, UnreadableInstance, AttributeError) as failure:
            error = failure
    if effect.attempt >= _MOST_EFFECT_ATTEMPTS:
        retry = None
    async with use.db.begin() as session:
        if error is None:
            await work.finish(session, effect, error=None)
        else:
            await work.fail(session, effect, retry_in=retry, error=str(error))
