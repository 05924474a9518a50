"""Writing down what came of attempts: the deliveries, the attempts and the endpoints' circuits.

What was delivered is written in batches; a failure by itself, for what follows from it depends on those before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import Database
from app.core.ids import new_id, new_ids
from app.events.claim import OPEN_AFTER, Outgoing
from app.events.models import Endpoint
from app.events.service import endpoint_event, record

_FIRST_PAUSE = 5
_LONGEST_PAUSE = 600

# Nothing is written under a lost lease. Endpoints are locked in one order, so that two batches cannot wait for each
# other in a circle.
_DELIVERED = """
WITH input AS (
    SELECT * FROM unnest($1::text[], $2::int[], $3::bool[], $4::text[], $5::timestamptz[], $6::int[], $7::int[],
        $8::text[]) AS t(id, epoch, probe, attempt, at, status, latency_ms, response_text)
), settled AS (
    UPDATE deliveries d SET lease_until = NULL, next_at = NULL, status = 'delivered'
    FROM input WHERE d.id = input.id AND d.epoch = input.epoch AND d.status = 'pending'
    RETURNING d.id, d.endpoint_id
), logged AS (
    INSERT INTO attempts (id, delivery_id, at, status, latency_ms, response_text)
    SELECT attempt, id, at, status, latency_ms, response_text FROM input JOIN settled USING (id)
), closing AS (
    SELECT id FROM endpoints WHERE failures > 0 AND id IN (SELECT endpoint_id FROM settled) ORDER BY id FOR UPDATE
), closed AS (
    UPDATE endpoints SET failures = 0, not_before = CASE WHEN id IN (
        SELECT endpoint_id FROM settled JOIN input USING (id) WHERE input.probe) THEN NULL ELSE not_before END
    WHERE id IN (SELECT id FROM closing)
)
SELECT id FROM settled
"""
# A failure opens the circuit when it is the last of OPEN_AFTER in a row; those still in hand by then change nothing
# more, so that one burst does not count as one probe after the other.
_FAILED = text("""
WITH settled AS (
    UPDATE deliveries SET lease_until = NULL, next_at = clock_timestamp() + CAST(:retry_in AS interval),
        status = CASE WHEN CAST(:retry_in AS interval) IS NULL THEN 'dead' ELSE 'pending' END
    WHERE id = :delivery AND epoch = :epoch AND status = 'pending'
    RETURNING id, endpoint_id
), logged AS (
    INSERT INTO attempts (id, delivery_id, at, status, latency_ms, error, response_text)
    SELECT :attempt, id, :at, CAST(:status AS int), :latency_ms, :error, :response_text FROM settled
), failed AS (
    UPDATE endpoints SET
        failures = CASE WHEN :probe THEN failures + 1 ELSE least(failures + 1, greatest(failures, :open_after)) END,
        not_before = nullif(greatest(
            CASE WHEN :probe AND failures >= :open_after THEN '-infinity'
                 ELSE coalesce(not_before, '-infinity') END,
            coalesce(clock_timestamp() + CAST(:pause AS interval), '-infinity'),
            CASE WHEN failures + 1 = :open_after OR (:probe AND failures >= :open_after)
                 THEN clock_timestamp() + make_interval(secs =>
                    least(:longest, :first * 2.0 ^ least(failures + 1 - :open_after, 20)) * (0.8 + 0.2 * random()))
                 ELSE '-infinity' END), '-infinity')
    WHERE id IN (SELECT endpoint_id FROM settled)
)
SELECT count(*) FROM settled
""")


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one attempt."""

    status: int | None
    error: str | None
    text: str | None
    latency_ms: int
    retry_after: float | None

    @property
    def delivered(self) -> bool:
        """Any 2xx, its body read in time."""
        return self.error is None and self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Attempted:
    """A delivery that was attempted, and when."""

    item: Outgoing
    at: datetime
    result: Result


async def settle_delivered(db: Database, batch: Sequence[Attempted]) -> list[bool]:
    """Record attempts that delivered, in one statement. False: the lease was lost."""
    rows = await db.pool.fetch(
        _DELIVERED,
        [each.item.id for each in batch],
        [each.item.epoch for each in batch],
        [each.item.probe for each in batch],
        new_ids("att", len(batch)),
        [each.at for each in batch],
        [each.result.status for each in batch],
        [each.result.latency_ms for each in batch],
        [each.result.text for each in batch],
    )
    settled = {row["id"] for row in rows}
    return [each.item.id in settled for each in batch]


async def settle_failed(
    session: AsyncSession, attempted: Attempted, *, retry_in: timedelta | None, pause: timedelta | None
) -> bool:
    """Record an attempt that failed, with its consequences; 410 disables the endpoint. False: the lease was lost.

    `retry_in` None ends the delivery, `pause` is the endpoint's wish.
    """
    item, result = attempted.item, attempted.result
    written = await session.scalar(
        _FAILED,
        {
            "delivery": item.id,
            "epoch": item.epoch,
            "probe": item.probe,
            "attempt": new_id("att"),
            "at": attempted.at,
            "status": result.status,
            "latency_ms": result.latency_ms,
            "error": result.error,
            "response_text": result.text,
            "retry_in": retry_in,
            "pause": pause,
            "open_after": OPEN_AFTER,
            "first": _FIRST_PAUSE,
            "longest": _LONGEST_PAUSE,
        },
    )
    if written and result.status == 410 and item.endpoint.kind == "endpoint":
        await _disable(session, item.endpoint)
    return bool(written)


async def _disable(session: AsyncSession, endpoint: Endpoint) -> None:
    """Take an endpoint out of use and say so to the driver's others, once however many deliveries were in hand."""
    reason = "it answered 410 Gone"
    disabled = await session.execute(
        update(Endpoint)
        .where(Endpoint.id == endpoint.id, Endpoint.status == "enabled")
        .values(status="disabled", disabled_reason=reason)
        .returning(Endpoint.id)
        .execution_options(synchronize_session=False)
    )
    if disabled.scalar() is not None:
        await record(session, [endpoint_event(endpoint, "disabled", reason)])
