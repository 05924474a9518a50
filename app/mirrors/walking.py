"""Reading partitions: ask the plugin for a page, commit it, and on to the next, until the partition is at its end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import func, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import work
from app.core.db import is_away
from app.core.ids import new_ids
from app.core.killpoints import KillPoint, reached
from app.core.metrics import mirror_pages_of
from app.host.binding import UnreadableInstance
from app.mirrors import runs
from app.mirrors.answers import Recorder, keep_answers
from app.mirrors.forgotten import Forgotten, read_forgotten
from app.mirrors.mirrors import Mirrors, tables_for
from app.mirrors.models import MirrorPartition
from app.mirrors.pages import Reading, Traffic, commit_page
from app.runtime import instances
from app.runtime.calls import PluginCrashed, needs_auth, run
from metagov_sdk import NoAccess, Page, PluginError, Retry, Unauthorized
from metagov_sdk.provider import ProviderSpec, Walk
from metagov_sdk.provider.cursors import Cursor

MOST_ATTEMPTS = 8
"""Tries of one page that fail for no reason that the platform names."""
_MOST_CLAIMS = 20
"""How often a partition is taken up with no page in between, whatever ends the workers that do."""
_PATIENCE = timedelta(hours=2)
"""How long a platform may put a partition off with no page in between."""
_PAGES_AT_A_TIME = 50
"""After so many pages a partition goes back into the queue, and others have their turn."""
_PAUSE = timedelta(seconds=30)
_REFUSED_FOR = timedelta(hours=1)
"""How long the platform's word counts that we may not see a partition; a sweep, or somebody's sync, asks earlier."""

_log = structlog.get_logger(__name__)


async def sync_due(use: Mirrors, news: asyncio.Event | None = None) -> int:
    """Read due partitions until none is in hand. Returns how many there were."""
    claim = work.claiming(use.db, MirrorPartition, work.LEASE, pull=_take_marks)
    # Rung by what this process finds itself, too: partitions turn up on the pages of others.
    found = asyncio.Event() if news is None else news
    return await work.drain(
        claim,
        lambda partition: _read(use, partition, found),
        limit=use.at_once,
        news=found,
        keep=work.keeping(use.db, MirrorPartition),
    )


_MARKS = text("""
DELETE FROM dirty_marks d
WHERE ctid = ANY(ARRAY(SELECT ctid FROM dirty_marks LIMIT 500 FOR UPDATE SKIP LOCKED))
RETURNING instance_id, table_name, key
""")
# A row that is being looked up just now is looked up once more.
_LOOK_UP = text("""
INSERT INTO mirror_partitions AS p (id, instance_id, walk, key, next_at)
SELECT id, instance_id, 'lookup:' || table_name, key, clock_timestamp()
FROM unnest(CAST(:ids AS text[]), CAST(:instances AS text[]), CAST(:tables AS text[]), CAST(:keys AS text[]))
    AS new(id, instance_id, table_name, key) ORDER BY instance_id, table_name, key
ON CONFLICT (instance_id, walk, key) DO UPDATE SET
    status = 'ok', again = p.lease_until IS NOT NULL, next_at = coalesce(p.next_at, excluded.next_at)
""")


async def _take_marks(session: AsyncSession) -> None:
    """Rows that webhooks have marked become lookups that are due."""
    marks = (await session.execute(_MARKS)).all()
    if marks:
        await session.execute(
            _LOOK_UP,
            {
                "ids": new_ids("par", len(marks)),
                "instances": [mark.instance_id for mark in marks],
                "tables": [mark.table_name for mark in marks],
                "keys": [mark.key for mark in marks],
            },
        )


async def _read(use: Mirrors, partition: MirrorPartition, found_more: asyncio.Event) -> None:
    """Read pages of a partition until it is at its end, has failed or others are to have their turn."""
    found = await instances.by_id(use.db.pool, use.vault, partition.instance_id)
    if found is None or found[0].deleted:
        await _end(use, partition, "the instance was deleted")
        return
    instance, now = found
    spec = use.spec(instance.plugin)
    walk = find_walk(spec, partition.walk) if spec else None
    if spec is None or walk is None:
        await _end(use, partition, "the plugin that is installed no longer has this walk")
        return
    waits_for = f"the instance is {instance.status}" if instance.status != "enabled" else await use.pending(spec.name)
    if waits_for is not None:
        await _rest(use, partition, waits_for)
        return
    if partition.attempt > _MOST_CLAIMS:
        await _end(use, partition, "its next page could not be read or stored; the gateway's log names the reason")
        return
    if partition.ask_again_at is not None and now < partition.ask_again_at and not partition.sweep:
        await _pass_over(use, partition)
        return
    cursor = Cursor.from_json(partition.cursor)
    if partition.reading_since is None or cursor.open is None:
        cursor = cursor.begin(walk, sweep=partition.sweep)
        partition.reading_since = now
        if walk.kind != "log" or partition.sweep:
            partition.pass_number += 1
    reading = Reading(partition, instance, spec, walk, cursor)
    forgotten = await read_forgotten(use.db, use.vault, instance, spec)
    try:
        await _read_pages(use, reading, now, forgotten, found_more)
    except (PluginError, PluginCrashed, UnreadableInstance) as error:
        await _failed(use, reading, error)
    else:
        if partition.run_id is not None:
            await runs.close_run(use, partition.run_id)


def find_walk(spec: ProviderSpec, name: str) -> Walk | None:
    """The walk of a partition; lookups are named by their table."""
    kind, _, table = name.partition(":")
    return spec.lookup_of(table) if kind == "lookup" and table else spec.walks.get(name)


async def _read_pages(
    use: Mirrors, reading: Reading, now: datetime, forgotten: Forgotten, found_more: asyncio.Event
) -> None:
    for number in range(_PAGES_AT_A_TIME):
        page, recorder = await _fetch(use, reading, number, now)
        page = forgotten.without(page)
        recorder.leave_out(forgotten)
        try:
            cursor, now = await _commit(use, reading, page, recorder)
        except DBAPIError as error:
            if is_away(error):
                raise
            # Never the page's text: the log is no place for it.
            raise PluginCrashed(f"a page cannot be stored: {type(error.orig).__name__}") from error
        mirror_pages_of(reading.spec.name, "done").inc()
        if page.children:
            found_more.set()
            use.wake.poke(runs.QUEUE)
        if cursor.open is None:
            return
        reading = replace(reading, cursor=cursor)
    async with use.db.begin() as session:
        await work.finish(session, reading.partition, next_at=func.clock_timestamp())


async def _fetch(use: Mirrors, reading: Reading, number: int, now: datetime) -> tuple[Page, Recorder]:
    """One page, by a fresh plugin object."""
    partition, walk = reading.partition, reading.walk
    place = reading.cursor.place(walk, partition.key, partition.data)
    plugin = use.host.bind(
        reading.instance, now=now, idempotency_key=f"mirror:{partition.id}:{partition.epoch}:{number}"
    )
    recorder = Recorder(place, keep=use.keep_answers)
    recorder.listen(plugin)
    call = getattr(reading.spec.cls(plugin), walk.name)(place)
    try:
        page = await run(call, seconds=use.timeout, what=f"the walk {walk.name}", instance=reading.instance)
    except Exception:
        partition.requests += recorder.requests
        raise
    if not isinstance(page, Page):
        raise PluginCrashed(f"the walk {walk.name} returned {type(page).__name__}, and not a Page")
    return page, recorder


async def _commit(use: Mirrors, reading: Reading, page: Page, recorder: Recorder) -> tuple[Cursor, datetime]:
    async with use.db.begin() as session:
        traffic = Traffic(recorder.requests)
        done = await commit_page(session, tables_for(reading.spec), reading, page, traffic)
        await keep_answers(session, reading, recorder)
        if reading.partition.ask_again_at is not None:
            await session.execute(_SHOWN, {"id": reading.partition.id})
        reached(KillPoint.MIRROR_WRITTEN)
    reached(KillPoint.MIRROR_COMMITTED)
    return done


_SHOWN = text("UPDATE mirror_partitions SET ask_again_at = NULL WHERE id = :id")


async def _failed(use: Mirrors, reading: Reading, error: Exception) -> None:
    """Again later, or failed or refused for this run, which then is not clean."""
    partition, instance = reading.partition, reading.instance
    mirror_pages_of(reading.spec.name, "failed").inc()
    reason = str(error)[:2000]
    if isinstance(error, Unauthorized):
        async with use.db.begin() as session:
            await needs_auth(session, instance, error.reason)
        await _rest(use, partition, reason)
        return
    values: dict[str, Any] = {
        "error": reason,
        "last_attempt_at": func.clock_timestamp(),
        "requests": MirrorPartition.requests + 1,
        "progress_at": func.coalesce(MirrorPartition.progress_at, func.clock_timestamp()),
    }
    retry_in: timedelta | None = work.backoff(partition.attempt, most=300)
    if isinstance(error, Retry) and error.after is not None:
        retry_in = timedelta(seconds=error.after)
        values |= {"waits": MirrorPartition.waits + 1}
        stalled = await use.db.now() - (partition.progress_at or partition.reading_since or datetime.max) > _PATIENCE
        values |= {"attempt": partition.attempt - 1}
    else:
        stalled = partition.attempt >= MOST_ATTEMPTS
    if stalled or not isinstance(error, Retry):
        retry_in = None
        values |= {"status": "failed"}
    if isinstance(error, NoAccess):
        values |= {"status": "refused"}
        if reading.walk.kind != "lookup":
            values |= {"ask_again_at": func.clock_timestamp() + _REFUSED_FOR}
    async with use.db.begin() as session:
        if not await work.fail(session, partition, retry_in=retry_in, **values):
            raise work.LostLease
    _log.warning(
        "a page of a mirror failed",
        plugin=instance.plugin,
        instance=instance.id,
        walk=partition.walk,
        again=retry_in is not None,
        reason=reason,
    )
    if retry_in is None and partition.run_id is not None:
        await runs.close_run(use, partition.run_id)


async def _rest(use: Mirrors, partition: MirrorPartition, reason: str) -> None:
    """Later, when the instance or the tables are ready: no try is counted."""
    async with use.db.begin() as session:
        await work.fail(session, partition, retry_in=_PAUSE, attempt=partition.attempt - 1, error=reason)


async def _pass_over(use: Mirrors, partition: MirrorPartition) -> None:
    """Still refused, as far as is known: the platform is not asked. What is known of it stays as it was."""
    async with use.db.begin() as session:
        if not await work.finish(session, partition, status="refused", again=False):
            raise work.LostLease
    if partition.run_id is not None:
        await runs.close_run(use, partition.run_id)


async def _end(use: Mirrors, partition: MirrorPartition, reason: str) -> None:
    async with use.db.begin() as session:
        await work.fail(session, partition, retry_in=None, status="failed", error=reason)
    if partition.run_id is not None:
        await runs.close_run(use, partition.run_id)
