"""Runs: asking for one, beginning it, and telling when it is over."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import current_time
from app.core.ids import new_id, new_ids
from app.core.killpoints import KillPoint, reached
from app.core.metrics import mirror_runs_of
from app.events.service import core_event, record
from app.host.binding import InstanceData
from app.mirrors.mirrors import Mirrors, tables_for
from app.mirrors.models import Mirror, MirrorRun
from app.mirrors.rows import Growth, Source, take_away_unclaimed
from app.runtime import instances
from metagov_sdk.provider import ProviderSpec

QUEUE = "mirrors"
_MOST_FAILURES = 20

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """A partition that could not be read. `status` is failed or refused."""

    walk: str
    partition: str
    reason: str
    status: str


async def ask_for_run(session: AsyncSession, instance: InstanceData, spec: ProviderSpec, *, sweep: bool) -> MirrorRun:
    """Begin a run now, or after the one that is under way. Returns the one that does what was asked for.

    An incremental run that waits becomes a sweep when one is asked for. The first run of an instance gives it its
    schedule.
    """
    await session.execute(insert(Mirror).values(instance_id=instance.id, provider=spec.name).on_conflict_do_nothing())
    # Whoever asks at the same time waits here.
    await session.execute(select(Mirror.instance_id).where(Mirror.instance_id == instance.id).with_for_update())
    open_runs = await session.scalars(
        select(MirrorRun).where(MirrorRun.instance_id == instance.id, MirrorRun.finished_at.is_(None))
    )
    by_state = {run.state: run for run in open_runs}
    running, waiting = by_state.get("running"), by_state.get("waiting")
    if waiting is not None:
        waiting.sweep = waiting.sweep or sweep
        return waiting
    if running is not None and not (sweep and not running.sweep):
        return running
    run = MirrorRun(id=new_id("mrn"), instance_id=instance.id, sweep=sweep, state="waiting")
    session.add(run)
    await session.flush()
    if running is None:
        await _begin(session, run, spec)
    return run


_ROOTS = text("""
INSERT INTO mirror_partitions AS p (id, instance_id, walk, key, run_id, sweep, next_at, progress_at)
SELECT id, :instance, walk, '', :run, :sweep, clock_timestamp(), clock_timestamp()
FROM unnest(CAST(:ids AS text[]), CAST(:walks AS text[])) AS new(id, walk) ORDER BY walk
ON CONFLICT (instance_id, walk, key) DO UPDATE SET
    run_id = excluded.run_id, sweep = excluded.sweep, next_at = excluded.next_at, progress_at = excluded.progress_at,
    lease_until = NULL, epoch = p.epoch + 1, attempt = 0, reading_since = NULL, status = 'ok', requests = 0, waits = 0
""")


async def _begin(session: AsyncSession, run: MirrorRun, spec: ProviderSpec) -> None:
    """Make the roots due: the rest follows from their pages."""
    walks = [walk.name for walk in spec.roots if run.sweep or not walk.sweep_only]
    await session.execute(
        _ROOTS,
        {
            "ids": new_ids("par", len(walks)),
            "walks": walks,
            "instance": run.instance_id,
            "run": run.id,
            "sweep": run.sweep,
        },
    )
    run.state = "running"
    run.started_at = await session.scalar(select(func.clock_timestamp()))


# What no run is clean without: partitions of it that failed, and all that are refused, also those that it did not have
# (a sweep's alone). A lookup that is refused tells against the run that wanted it, and not against those after it.
_MISSING = """
p.run_id = {run} AND p.status = 'failed'
OR p.instance_id = {instance} AND p.status = 'refused' AND (p.run_id = {run} OR p.walk NOT LIKE 'lookup:%')
"""
# Whoever finishes last sees that nothing is left: each asks after its own commit.
_OVER = text(f"""
UPDATE mirror_runs r SET finished_at = clock_timestamp(), state = coalesce((
    SELECT CASE WHEN bool_or(p.status = 'failed') THEN 'failed' ELSE 'incomplete' END
    FROM mirror_partitions p WHERE {_MISSING.format(run="r.id", instance="r.instance_id")} HAVING count(*) > 0
), 'completed')
WHERE r.id = :run AND r.state = 'running'
  AND NOT EXISTS (SELECT FROM mirror_partitions p WHERE p.run_id = r.id AND p.next_at IS NOT NULL)
RETURNING r.instance_id, r.sweep, r.state, r.started_at
""")  # noqa: S608 -- constants only
_FAILURES = text(f"""
SELECT p.walk, p.key, p.error, p.status, count(*) OVER (PARTITION BY p.status) AS alike FROM mirror_partitions p
WHERE {_MISSING.format(run=":run", instance=":instance")} ORDER BY p.status, p.walk, p.key LIMIT {_MOST_FAILURES}
""")  # noqa: S608 -- constants only


async def close_run(use: Mirrors, run_id: str) -> None:
    """If nothing of a run is due any more, it is over: say so, set the schedule, begin what waits."""
    # Most partitions are not the last: one look past the transaction is enough for them.
    if await use.db.pool.fetchval(
        "SELECT EXISTS (SELECT FROM mirror_partitions WHERE run_id = $1 AND next_at IS NOT NULL)", run_id
    ):
        return
    async with use.db.begin() as session:
        row = (await session.execute(_OVER, {"run": run_id})).one_or_none()
        if row is None:
            return
        failures, error = await _find_failures(session, run_id, row.instance_id)
        if failures:
            await session.execute(update(MirrorRun).where(MirrorRun.id == run_id).values(error=error))
        found = await instances.by_id(use.db.pool, use.vault, row.instance_id)
        spec = use.spec(found[0].plugin) if found else None
        if found is None or spec is None:
            return
        if row.sweep and row.state == "completed":
            await _drop_unclaimed(session, spec, found[0], row.started_at)
        await _schedule(session, spec, row.instance_id, row.sweep)
        await _tell(session, found[0], run_id, row, failures)
        waiting = await session.scalar(
            select(MirrorRun).where(MirrorRun.instance_id == row.instance_id, MirrorRun.state == "waiting")
        )
        if waiting is not None and not found[0].deleted:
            await _begin(session, waiting, spec)
        reached(KillPoint.MIRROR_CLOSING)
    mirror_runs_of(spec.name, row.state).inc()
    _log.info("mirror run over", instance=row.instance_id, provider=spec.name, state=row.state, sweep=row.sweep)
    use.wake.poke("deliveries", QUEUE)


async def _drop_unclaimed(
    session: AsyncSession, spec: ProviderSpec, instance: InstanceData, started_at: datetime
) -> None:
    """Rows of no partition, as those restored from an archive, that reading everything has not found."""
    growth = Growth()
    source = Source(instance, None, 0, await current_time(session))
    await take_away_unclaimed(session, tables_for(spec), source, started_at, growth)
    if growth.rows:
        await session.execute(
            _COUNT, {"instance": instance.id, "walk": spec.roots[0].name, "rows": json.dumps(growth.rows)}
        )


_COUNT = text("""
UPDATE mirror_partitions p SET rows = p.rows || (
    SELECT jsonb_object_agg(key, coalesce((p.rows ->> key)::bigint, 0) + value::bigint)
    FROM jsonb_each_text(CAST(:rows AS jsonb)))
WHERE p.instance_id = :instance AND p.walk = :walk AND p.key = ''
""")


async def _find_failures(session: AsyncSession, run_id: str, instance_id: str) -> tuple[list[Failure], str]:
    """What of a run could not be read, the first twenty, those that failed before those that are refused; in words."""
    rows = (await session.execute(_FAILURES, {"run": run_id, "instance": instance_id})).all()
    found = [Failure(row.walk, row.key, row.error or "", row.status) for row in rows]
    if not found:
        return found, ""
    what = f"{rows[0].alike} {'partition' if rows[0].alike == 1 else 'partitions'}"
    first = f"{found[0].walk} {found[0].partition}".rstrip()
    if found[0].status == "failed":
        return found, f"{what} failed; {first}: {found[0].reason}"
    return found, f"{what} refused, everything else was read; {first}: {found[0].reason}"


async def _schedule(session: AsyncSession, spec: ProviderSpec, instance_id: str, swept: bool) -> None:
    now = func.now()
    values: dict[str, Any] = {"next_sync_at": now + spec.cls.every}
    first = func.coalesce(Mirror.next_sweep_at, now + spec.cls.sweep_every)
    values["next_sweep_at"] = now + spec.cls.sweep_every if swept else first
    await session.execute(update(Mirror).where(Mirror.instance_id == instance_id).values(**values))


async def _tell(session: AsyncSession, instance: InstanceData, run_id: str, row: Any, failures: list[Failure]) -> None:
    data = {
        "plugin": instance.plugin,
        "provider": instance.plugin,
        "instance": instance.id,
        "run": run_id,
        "sweep": row.sweep,
        "started_at": row.started_at.isoformat(),
        "state": row.state,
        "failures": [asdict(each) for each in failures],
    }
    what = "mirror.completed" if row.state == "completed" else "mirror.failed"
    await record(
        session,
        [core_event(instance.driver_id, instance.community_id, instance.community, instance.id, what, data)],
    )


_DUE = """
SELECT m.instance_id, coalesce(m.next_sweep_at <= now(), false) AS sweep FROM mirrors m
JOIN instances i ON i.id = m.instance_id AND i.status = 'enabled' AND i.deleted_at IS NULL
WHERE m.next_sync_at <= now() OR m.next_sweep_at <= now()
ORDER BY m.next_sync_at LIMIT 200
"""


async def begin_due_runs(use: Mirrors) -> int:
    """Begin the runs whose time has come, and close those whose last worker died before it could. Returns how many."""
    for row in await use.db.pool.fetch("SELECT id FROM mirror_runs WHERE state = 'running' LIMIT 1000"):
        await close_run(use, row["id"])
    begun = 0
    for row in await use.db.pool.fetch(_DUE):
        found = await instances.by_id(use.db.pool, use.vault, row["instance_id"])
        spec = use.spec(found[0].plugin) if found else None
        if found is None or spec is None:
            continue
        async with use.db.begin() as session:
            await ask_for_run(session, found[0], spec, sweep=row["sweep"])
            # Not again until this run is over, which sets the time of the next.
            await session.execute(
                update(Mirror)
                .where(Mirror.instance_id == row["instance_id"])
                .values(next_sync_at=func.now() + spec.cls.every)
            )
        begun += 1
    if begun:
        use.wake.poke(QUEUE)
    return begun


async def find_run(session: AsyncSession, instance_id: str) -> tuple[MirrorRun | None, datetime | None]:
    """The run of an instance that is under way, or else its last, and the schedule's next time."""
    run = await session.scalar(
        select(MirrorRun)
        .where(MirrorRun.instance_id == instance_id, MirrorRun.state != "waiting")
        .order_by(MirrorRun.id.desc())
        .limit(1)
    )
    return run, await session.scalar(select(Mirror.next_sync_at).where(Mirror.instance_id == instance_id))
