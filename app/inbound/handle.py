"""Handling receipts in the worker: call the plugin, and commit what it emitted together with "done"."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import work
from app.core.crypto import Vault
from app.core.db import Database
from app.core.metrics import HANDLED
from app.core.wake import Wake
from app.host.binding import Host, InstanceData, UnreadableInstance
from app.inbound.models import Receipt
from app.runtime import instances
from app.runtime.calls import Cause, PluginCrashed, commit, needs_auth, run
from metagov_sdk import Emitted, Headers, HookRequest, PluginError, Rejected, Retry, Unauthorized

BATCH = 100
MOST_ATTEMPTS = 12
_RECHECK = timedelta(minutes=1)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Inbox:
    """What handling receipts and polls needs."""

    db: Database
    host: Host
    vault: Vault
    wake: Wake
    timeout: float

    @property
    def lease(self) -> timedelta:
        """Longer than a handler may take."""
        return timedelta(seconds=self.timeout + 10)


async def handle_due(use: Inbox) -> int:
    """Handle due receipts until none is in hand. Returns how many there were."""
    return await work.drain(use.db, Receipt, lambda row: _handle(use, row), limit=BATCH, lease=use.lease)


async def _handle(use: Inbox, receipt: Receipt) -> None:
    found = await instances.by_id(use.db.pool, use.vault, receipt.instance_id)
    if found is None:
        return  # The instance's row is gone, and took the receipt's with it.
    instance, now = found
    if instance.status == "disabled":
        await _wait(use, receipt, instance)
        return
    try:
        plugin = use.host.bind(instance, now=now, idempotency_key=receipt.id)
        hook = use.host.loaded(instance.plugin).manifest.webhooks[receipt.hook]
        headers = Headers(tuple((name, value) for name, value in receipt.headers))
        call = getattr(plugin, hook.method)(HookRequest(receipt.body, headers, receipt.hook))
        await run(call, seconds=use.timeout, what="the webhook handler", instance=instance)
    except KeyError:
        await _failed(use, receipt, instance, Rejected("the plugin no longer has this webhook"))
    except (PluginError, PluginCrashed, UnreadableInstance) as error:
        await _failed(use, receipt, instance, error)
    else:
        await _done(use, receipt, instance, plugin.emitted)


async def _done(use: Inbox, receipt: Receipt, instance: InstanceData, emitted: Emitted) -> None:
    try:
        async with use.db.begin() as session:
            if not await work.finish(session, receipt, status="done", error=None):
                raise work.LostLease
            queues = await commit(
                session, use.host, instance, emitted, cause=Cause(receipt.received_at, receipt.position)
            )
    except PluginCrashed as error:
        await _failed(use, receipt, instance, error)
        return
    HANDLED.labels(instance.plugin, "done").inc()
    use.wake.poke(*queues)


async def _wait(use: Inbox, receipt: Receipt, instance: InstanceData) -> None:
    """A disabled instance's receipts wait for it; a deleted one's are dead."""
    async with use.db.begin() as session:
        if instance.deleted:
            await work.fail(session, receipt, retry_in=None, status="dead", error="the instance was deleted")
        else:
            await work.fail(session, receipt, retry_in=_RECHECK, attempt=receipt.attempt - 1)


async def _failed(use: Inbox, receipt: Receipt, instance: InstanceData, error: Exception) -> None:
    """Again later, or dead: shown with its reason, to be replayed by hand."""
    retry_in: timedelta | None = work.backoff(receipt.attempt)
    if isinstance(error, Retry) and error.after is not None:
        retry_in = timedelta(seconds=error.after)
    if isinstance(error, Rejected) or receipt.attempt >= MOST_ATTEMPTS:
        retry_in = None
    values: dict[str, Any] = {"status": "retrying" if retry_in else "dead", "error": str(error)[:2000]}
    async with use.db.begin() as session:
        if isinstance(error, Unauthorized):
            await needs_auth(session, instance, error.reason)
        await _write(session, receipt, retry_in, values)
    HANDLED.labels(instance.plugin, values["status"]).inc()
    _log.warning("webhook not handled", receipt=receipt.id, plugin=instance.plugin, **values)


async def _write(session: AsyncSession, receipt: Receipt, retry_in: timedelta | None, values: dict[str, Any]) -> None:
    if not await work.fail(session, receipt, retry_in=retry_in, **values):
        raise work.LostLease
