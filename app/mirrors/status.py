"""How a mirror stands: its tables, and how far a run has got."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.mirrors.models import MirrorRun
from app.mirrors.runs import find_run
from metagov_sdk.provider import ProviderSpec, Walk


@dataclass(frozen=True, slots=True)
class TableStatus:
    """One table of one instance.

    complete_through  all that was there at this time is in the table; None while that is true of no time.
    """

    name: str
    rows: int
    last_attempt_at: datetime | None
    last_success_at: datetime | None
    complete_through: datetime | None
    high_water: datetime | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Progress:
    """Of a run under way: partitions done, partitions known by now, requests, waits, and a guess of what is left."""

    done: int
    known: int
    requests: int
    waits: int
    eta_seconds: float | None


@dataclass(frozen=True, slots=True)
class MirrorStatus:
    """What `GET …/mirror/<provider>` says."""

    provider: str
    run: MirrorRun | None
    tables: Sequence[TableStatus]
    progress: Progress | None

    @property
    def state(self) -> str:
        """idle, running, or failed: never idle while anything is missing, be it refused only."""
        if self.run is None or self.run.state == "completed":
            return "idle"
        return "failed" if self.run.state == "incomplete" else self.run.state


_WALKS = text("""
SELECT CASE WHEN walk LIKE 'lookup:%' THEN 'lookup' ELSE walk END AS walk,
       max(greatest(last_attempt_at, last_success_at)) AS last_attempt_at, max(last_success_at) AS last_success_at,
       CASE WHEN bool_or(through IS NULL) THEN NULL ELSE min(through) END AS through,
       CASE WHEN bool_or(swept IS NULL) THEN NULL ELSE min(swept) END AS swept,
       max(high_water) AS high_water,
       (array_agg(error ORDER BY key) FILTER (WHERE error IS NOT NULL AND status <> 'refused'))[1] AS error,
       count(*) FILTER (WHERE status = 'refused') AS refused,
       (array_agg(concat_ws(': ', nullif(key, ''), error) ORDER BY key) FILTER (WHERE status = 'refused'))[1]
           AS first_refused
FROM mirror_partitions WHERE instance_id = :instance AND status <> 'gone' GROUP BY 1
""")
_ROWS = text("""
SELECT counted.key AS table_name, sum(counted.value::bigint)::bigint AS rows
FROM mirror_partitions p CROSS JOIN LATERAL jsonb_each_text(p.rows) AS counted
WHERE p.instance_id = :instance AND p.rows <> '{}' GROUP BY 1
""")
_PROGRESS = text("""
SELECT count(*) FILTER (WHERE next_at IS NULL) AS done, count(*) AS known,
       coalesce(sum(requests), 0) AS requests, coalesce(sum(waits), 0) AS waits
FROM mirror_partitions WHERE run_id = :run
""")


async def read_status(session: AsyncSession, instance_id: str, spec: ProviderSpec) -> MirrorStatus:
    """The tables of an instance's mirror and its run, in four statements."""
    run, _ = await find_run(session, instance_id)
    walks = {row.walk: row for row in await session.execute(_WALKS, {"instance": instance_id})}
    counts = {row.table_name: row.rows for row in await session.execute(_ROWS, {"instance": instance_id})}
    tables = [_table(spec, name, walks, counts.get(name, 0)) for name in spec.records]
    progress = None
    if run is not None and run.state == "running":
        row = (await session.execute(_PROGRESS, {"run": run.id})).one()
        now = (await session.execute(text("SELECT clock_timestamp()"))).scalar_one()
        elapsed = now - run.started_at if run.started_at else timedelta()
        eta = elapsed.total_seconds() * (row.known - row.done) / row.done if row.done else None
        progress = Progress(row.done, row.known, row.requests, row.waits, None if eta is None else round(eta, 1))
    return MirrorStatus(spec.name, run, tables, progress)


def _table(spec: ProviderSpec, name: str, walks: Mapping[str, Any], rows: int) -> TableStatus:
    feeding = [walk for walk in spec.walks.values() if walk.kind != "lookup" and spec.records[name] in walk.records]
    found = [walks[walk.name] for walk in feeding if walk.name in walks]
    through = [complete_through(spec, walk, walks) for walk in feeding if not walk.sweep_only]
    return TableStatus(
        f"{spec.name}.{name}",
        max(rows, 0),
        _latest(row.last_attempt_at for row in found),
        _latest(row.last_success_at for row in found),
        None if None in through or not through else min(moment for moment in through if moment),
        _latest(row.high_water for row in found),
        next((row.error for row in found if row.error), None) or _refusals(found),
    )


def _refusals(found: Sequence[Any]) -> str | None:
    first = next((row.first_refused for row in found if row.refused), None)
    return first and f"{sum(row.refused for row in found)} refused, the rest was read; {first}"


def complete_through(spec: ProviderSpec, walk: Walk, walks: Mapping[str, Any]) -> datetime | None:
    """Up to when a walk has everything: not past any of its partitions, nor past the pages that named them.

    What changes in old things is known as of the last sweep alone, so a walk of details is not past the sweeps of its
    parent. `walks` are the rows of partitions by walk: `through`, `swept`.
    """
    own = walks.get(walk.name)
    if walk.parent is None:
        return own.through if own is not None else None
    parent = spec.walks[walk.parent]
    limit = complete_through(spec, parent, walks)
    if walk.kind == "detail" and parent.kind == "log":
        row = walks.get(parent.name)
        limit = None if limit is None or row is None or row.swept is None else min(limit, row.swept)
    if own is None:
        # No partition is known: as far as the parent's pages go, there is nothing.
        return limit
    return None if limit is None or own.through is None else min(limit, own.through)


def _latest(moments: Any) -> datetime | None:
    return max((moment for moment in moments if moment is not None), default=None)
