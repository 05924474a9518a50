"""Running polls: each instance's on its own schedule, each checkpoint committed with what was emitted before it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import func, text, update
from sqlalchemy.dialects.postgresql import insert

from app.core import work
from app.core.ids import new_id
from app.core.killpoints import KillPoint, reached
from app.host.binding import InstanceData, UnreadableInstance
from app.inbound.handle import Inbox
from app.inbound.models import Poll
from app.runtime import instances
from app.runtime.calls import PluginCrashed, needs_auth, run
from app.runtime.emissions import Emission, commit
from metagov_sdk import Checkpoint, PluginError, Retry, Unauthorized

BATCH = 50

_log = structlog.get_logger(__name__)

_MISSING = text("""
SELECT i.id FROM instances i
WHERE i.plugin = :plugin AND i.status = 'enabled' AND i.deleted_at IS NULL
  AND NOT EXISTS (SELECT FROM polls p WHERE p.instance_id = i.id AND p.name = :name AND p.next_at IS NOT NULL)
""")


async def schedule_polls(use: Inbox) -> None:
    """Give every enabled instance a row per poll of its plugin; those of re-enabled instances become due again."""
    declared = [(plugin, name) for plugin, loaded in use.host.plugins.loaded.items() for name in loaded.manifest.polls]
    if not declared:
        return
    async with use.db.begin() as session:
        for plugin, name in declared:
            missing = (await session.scalars(_MISSING, {"plugin": plugin, "name": name})).all()
            if missing:
                rows = [{"id": new_id("pol"), "instance_id": i, "plugin": plugin, "name": name} for i in missing]
                await session.execute(
                    insert(Poll)
                    .values(rows)
                    .on_conflict_do_update(
                        index_elements=["instance_id", "name"],
                        set_={"next_at": func.coalesce(Poll.next_at, func.now())},
                    )
                )


async def run_polls_due(use: Inbox, news: asyncio.Event | None = None) -> int:
    """Run due polls until none is in hand. Returns how many there were."""
    return await work.drain(
        work.claiming(use.db, Poll, work.LEASE),
        lambda row: _run(use, row),
        limit=BATCH,
        news=news,
        keep=work.keeping(use.db, Poll),
    )


async def _run(use: Inbox, poll: Poll) -> None:
    found = await instances.by_id(use.db.pool, use.vault, poll.instance_id)
    loaded = use.host.plugins.loaded.get(poll.plugin)
    spec = loaded.manifest.polls.get(poll.name) if loaded else None
    if found is None or spec is None or found[0].status != "enabled":
        async with use.db.begin() as session:
            await work.finish(session, poll, last_run_at=func.now())
        return
    instance, now = found
    error: Exception | None = None
    try:
        await _walk(use, poll, instance, now)
    except (PluginError, PluginCrashed, UnreadableInstance) as failure:
        error = failure
        _log.warning("poll failed", plugin=poll.plugin, poll=poll.name, instance=instance.id, reason=str(failure))
    async with use.db.begin() as session:
        if error is None:
            done = {"last_run_at": now, "last_success_at": now, "error": None}
            await work.finish(session, poll, next_at=func.clock_timestamp() + spec.every, **done)
            return
        if isinstance(error, Unauthorized):
            await needs_auth(session, instance, error.reason)
        wait = max(spec.every, work.backoff(poll.attempt))
        if isinstance(error, Retry) and error.after is not None:
            wait = timedelta(seconds=error.after)
        await work.fail(session, poll, retry_in=wait, last_run_at=now, error=str(error)[:2000])


async def _walk(use: Inbox, poll: Poll, instance: InstanceData, now: datetime) -> None:
    """Go through the poll's checkpoints; each commits, and earns the poll another lease."""
    plugin = use.host.bind(instance, now=now, idempotency_key=f"poll:{poll.id}:{poll.epoch}")
    steps: AsyncIterator[Checkpoint] = getattr(plugin, poll.name)(poll.cursor)
    while True:
        step = await run(_next(steps), seconds=use.timeout, what=f"poll {poll.name}", instance=instance)
        reached(KillPoint.POLL_EMITTED)
        async with use.db.begin() as session:
            if not await work.extend(session, poll, work.LEASE):
                raise work.LostLease
            queues = await commit(session, use.host, [Emission(instance, plugin.emitted)])
            if step is not None:
                await session.execute(update(Poll).where(Poll.id == poll.id).values(cursor=step.cursor))
        reached(KillPoint.POLL_CHECKPOINTED)
        plugin.emitted.clear()
        use.wake.poke(*queues)
        if step is None:
            return


async def _next(steps: AsyncIterator[Checkpoint]) -> Any:
    return await anext(steps, None)
