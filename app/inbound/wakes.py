"""Hints from unsigned hooks: polls and processes that a platform asks us to look at again."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from sqlalchemy import text

from app.core.db import Database
from app.host.binding import Host, InstanceData, UnreadableInstance
from metagov_sdk import HookRequest, Wake, WebhookSpec

# A hint moves the next look forward, but never to sooner than two seconds after the last one.
_POLL = text("""
UPDATE polls SET next_at = greatest(clock_timestamp(), last_run_at + interval '2 seconds')
WHERE instance_id = :instance AND name = :name AND next_at > clock_timestamp()
""")
_PROCESS = text("""
UPDATE processes SET observe_at = clock_timestamp(), next_at = clock_timestamp()
WHERE instance_id = :instance AND name = :name AND key = :key AND status = 'pending'
  AND (observe_at IS NULL OR observe_at > clock_timestamp())
""")

_log = structlog.get_logger(__name__)


async def apply_wakes(
    db: Database, host: Host, instance: InstanceData, hook: WebhookSpec, request: HookRequest
) -> bool:
    """Ask the hook what to look at, and make that due. Returns whether it named anything."""
    wakes = await _wakes(db, host, instance, hook, request)
    if wakes:
        async with db.begin() as session:
            for wake in wakes:
                if wake.poll is not None:
                    await session.execute(_POLL, {"instance": instance.id, "name": wake.poll})
                else:
                    named = {"instance": instance.id, "name": wake.process, "key": wake.key}
                    await session.execute(_PROCESS, named)
    return bool(wakes)


async def _wakes(
    db: Database, host: Host, instance: InstanceData, hook: WebhookSpec, request: HookRequest
) -> Sequence[Wake]:
    try:
        plugin = host.bind(instance, now=await db.now(), idempotency_key="", may_emit=False)
        return list(getattr(plugin, hook.method)(request))[:20]
    except UnreadableInstance:
        return []
    except Exception as error:
        # Anybody may post anything here; foreign code that trips over it must not turn it into our error.
        _log.warning("an unsigned webhook could not be read", hook=hook.method, error=type(error).__name__)
        return []
