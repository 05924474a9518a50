"""Performing the external effects of committed steps, each at least once."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from app.core import work
from app.core.killpoints import KillPoint, reached
from app.host.binding import UnreadableInstance
from app.processes.models import EffectRow, ProcessRow
from app.processes.runner import Runner
from app.runtime import instances
from app.runtime.calls import PluginCrashed, PutOff, needs_auth, run
from metagov_sdk import PluginError, Retry, Unauthorized

_BATCH = 50
_MOST_ATTEMPTS = 20
_RECHECK = timedelta(seconds=60)


class Waiting(Exception):
    """The platform cannot be spoken to just now, whatever the effect."""


async def perform_effects_due(use: Runner, news: asyncio.Event | None = None) -> int:
    """Perform due effects until none is in hand. Returns how many there were."""
    return await work.drain(
        work.claiming(use.db, EffectRow, work.LEASE),
        lambda row: _perform(use, row),
        limit=_BATCH,
        news=news,
        keep=work.keeping(use.db, EffectRow),
    )


async def _perform(use: Runner, effect: EffectRow) -> None:
    reached(KillPoint.EFFECT_CLAIMED)
    async with use.db.begin() as session:
        row = await session.get_one(ProcessRow, effect.process_id)
    found = await instances.by_id(use.db.pool, use.vault, row.instance_id)
    spec = use.spec(row)
    now = await use.db.now()
    expired = effect.expires is not None and effect.expires <= now
    error: Exception | None = None
    retry: timedelta | None = None
    if found is None or found[0].deleted or spec is None or expired:
        error = RuntimeError("expired" if expired else "its plugin or instance is gone")
    elif found[0].status != "enabled":
        error, retry = Waiting(f"its instance is {found[0].status}"), _RECHECK
    else:
        try:
            process = use.bind(spec, found[0], row, now, effect.id)
            method = getattr(process, effect.method)
            await run(method(**effect.args), seconds=use.timeout, what=effect.method, instance=found[0])
            reached(KillPoint.EFFECT_PERFORMED)
        except Unauthorized as failure:
            error, retry = Waiting(failure.reason), _RECHECK
            async with use.db.begin() as session:
                await needs_auth(session, found[0], failure.reason)
        except Retry as failure:
            error = failure
            retry = timedelta(seconds=failure.after) if failure.after else work.backoff(effect.attempt)
        except (PluginError, PluginCrashed, UnreadableInstance, AttributeError) as failure:
            error = failure
    # One that waits, for its turn or for its instance, waits as long as it takes, or until it expires.
    attempt = effect.attempt - isinstance(error, PutOff | Waiting)
    if attempt >= _MOST_ATTEMPTS:
        retry = None
    async with use.db.begin() as session:
        if error is None:
            await work.finish(session, effect, error=None)
        else:
            await work.fail(session, effect, retry_in=retry, error=str(error), attempt=attempt)
