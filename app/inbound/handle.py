"""Handling receipts in the worker: call the plugin, and commit what it emitted together with "done"."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import work
from app.core.crypto import Vault
from app.core.db import Database, is_away
from app.core.group import Group
from app.core.killpoints import KillPoint, reached
from app.core.metrics import handled_of
from app.core.wake import Wake
from app.host.binding import Host, InstanceData, UnreadableInstance
from app.inbound.claim import claim_receipts
from app.inbound.models import Receipt
from app.inbound.repeats import find_equal_bodies, flag
from app.runtime import instances
from app.runtime.calls import PluginCrashed, PutOff, needs_auth, run
from app.runtime.emissions import Cause, Emission, commit
from metagov_sdk import Headers, HookRequest, PluginError, Rejected, Retry, Unauthorized

BATCH = 200
"""How many receipts a worker has in hand at a time."""
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


@dataclass(frozen=True, slots=True)
class _Claimed:
    """A receipt with its instance as it was when it was claimed; `instance` is None when that could not be read."""

    receipt: Receipt
    instance: InstanceData | None
    now: datetime

    @property
    def id(self) -> str:
        return self.receipt.id

    @property
    def epoch(self) -> int:
        return self.receipt.epoch


@dataclass(frozen=True, slots=True)
class _Handled:
    """A receipt whose handler has returned, and what it emitted."""

    receipt: Receipt
    emission: Emission


async def handle_due(use: Inbox, news: asyncio.Event | None = None) -> int:
    """Handle due receipts until none is in hand. Returns how many there were."""
    results = Group[_Handled, bool](
        lambda batch: _commit(use, batch), is_ones_fault=lambda error: not is_away(error), most_items=BATCH
    )
    return await work.drain(
        lambda limit: _claim(use, limit),
        lambda item: _handle(use, item, results),
        limit=BATCH,
        news=news,
        keep=work.keeping(use.db, Receipt),
    )


async def _claim(use: Inbox, limit: int) -> Sequence[_Claimed]:
    async with use.db.begin() as session:
        receipts = await claim_receipts(session, limit=limit, lease=work.LEASE)
    if not receipts:
        return []
    found, now = await instances.by_ids(use.db.pool, use.vault, {receipt.instance_id for receipt in receipts})
    return [_Claimed(receipt, found.get(receipt.instance_id), now) for receipt in receipts]


async def _handle(use: Inbox, item: _Claimed, results: Group[_Handled, bool]) -> None:
    receipt, instance, now = item.receipt, item.instance, item.now
    reached(KillPoint.RECEIPT_CLAIMED)
    if instance is None:
        await _orphaned(use, receipt)
        return
    if instance.status == "disabled":
        await _wait(use, receipt, instance)
        return
    try:
        plugin = use.host.bind(instance, now=now, idempotency_key=receipt.id)
        hook = use.host.loaded(instance.plugin).manifest.webhooks[receipt.hook]
        headers = Headers((name, value) for name, value in receipt.headers)
        call = getattr(plugin, hook.method)(HookRequest(receipt.body, headers, receipt.hook))
        await run(call, seconds=use.timeout, what="the webhook handler", instance=instance)
    except KeyError:
        await _failed(use, receipt, instance, Rejected("the plugin no longer has this webhook"))
    except (PluginError, PluginCrashed, UnreadableInstance) as error:
        await _failed(use, receipt, instance, error)
    else:
        cause = Cause(receipt.received_at, receipt.position)
        await _done(use, _Handled(receipt, Emission(instance, plugin.emitted, cause)), results)


async def _done(use: Inbox, item: _Handled, results: Group[_Handled, bool]) -> None:
    instance = item.emission.instance
    try:
        if not await results.add(item):
            raise work.LostLease
    except (PluginCrashed, DBAPIError) as error:
        if isinstance(error, DBAPIError):
            if is_away(error):
                raise
            error = PluginCrashed(f"what {instance.plugin} emitted cannot be stored: {type(error.orig).__name__}")
        await _failed(use, item.receipt, instance, error)
        return
    handled_of(instance.plugin, "done").inc()


async def _commit(use: Inbox, batch: Sequence[_Handled]) -> list[bool]:
    """Finish receipts and write what their handlers emitted, in one transaction. False: the lease was lost."""
    ordered = sorted(batch, key=lambda item: item.receipt.position)
    async with use.db.begin() as session:
        kept = await work.finish_all(session, [item.receipt for item in ordered], status="done", error=None)
        equal = await find_equal_bodies(
            session, use.host, [each.receipt for each in ordered if each.receipt.id in kept]
        )
        queues = await commit(session, use.host, [item.emission for item in ordered if item.receipt.id in kept])
        reached(KillPoint.RECEIPT_HANDLED)
    reached(KillPoint.RECEIPT_COMMITTED)
    use.wake.poke(*queues)
    flag(equal)
    return [item.receipt.id in kept for item in batch]


async def _orphaned(use: Inbox, receipt: Receipt) -> None:
    """Its instance's row is gone, or cannot be opened: the first is the end of the receipt, the second is raised."""
    if await instances.by_id(use.db.pool, use.vault, receipt.instance_id) is None:
        async with use.db.begin() as session:
            await _end(session, receipt)


async def _wait(use: Inbox, receipt: Receipt, instance: InstanceData) -> None:
    """A disabled instance's receipts wait for it; a deleted one's are dead."""
    async with use.db.begin() as session:
        if instance.deleted:
            await _end(session, receipt)
        else:
            await work.fail(session, receipt, retry_in=_RECHECK, attempt=receipt.attempt - 1)


async def _end(session: AsyncSession, receipt: Receipt) -> None:
    await work.fail(session, receipt, retry_in=None, status="dead", error="the instance was deleted")


async def _failed(use: Inbox, receipt: Receipt, instance: InstanceData, error: Exception) -> None:
    """Again later, or dead: shown with its reason, to be replayed by hand."""
    retry_in: timedelta | None = work.backoff(receipt.attempt)
    if isinstance(error, Retry) and error.after is not None:
        retry_in = timedelta(seconds=error.after)
    # One that waits for its turn waits however many are before it.
    attempt = receipt.attempt - isinstance(error, PutOff)
    if isinstance(error, Rejected) or attempt >= MOST_ATTEMPTS:
        retry_in = None
    values = {"status": "retrying" if retry_in else "dead", "error": str(error)[:2000], "attempt": attempt}
    async with use.db.begin() as session:
        if isinstance(error, Unauthorized):
            await needs_auth(session, instance, error.reason)
        await _write(session, receipt, retry_in, values)
    handled_of(instance.plugin, values["status"]).inc()
    _log.warning("webhook not handled", receipt=receipt.id, plugin=instance.plugin, **values)


async def _write(session: AsyncSession, receipt: Receipt, retry_in: timedelta | None, values: dict[str, Any]) -> None:
    if not await work.fail(session, receipt, retry_in=retry_in, **values):
        raise work.LostLease
