"""Writing down what came of an attempt: the delivery, the attempt and the endpoint's circuit, in one statement."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.ids import new_id
from app.events.claim import OPEN_AFTER, Outgoing
from app.events.models import Endpoint
from app.events.service import endpoint_event, record

_FIRST_PAUSE = 5
_LONGEST_PAUSE = 600

# Nothing is written under a lost lease. A failure opens the circuit when it is the last of OPEN_AFTER in a row; those
# still in hand by then change nothing more, so that one burst does not count as one probe after the other.
_SETTLE = text("""
WITH settled AS (
    UPDATE deliveries SET lease_until = NULL, next_at = clock_timestamp() + CAST(:retry_in AS interval),
        status = CASE WHEN :delivered THEN 'delivered' WHEN CAST(:retry_in AS interval) IS NULL THEN 'dead'
                 ELSE 'pending' END
    WHERE id = :delivery AND epoch = :epoch AND status = 'pending'
    RETURNING id, endpoint_id
), logged AS (
    INSERT INTO attempts (id, delivery_id, at, status, latency_ms, error, response_text)
    SELECT :attempt, id, :at, CAST(:answer AS int), :latency_ms, :error, :response_text FROM settled
), closed AS (
    UPDATE endpoints SET failures = 0, not_before = CASE WHEN :probe THEN NULL ELSE not_before END
    WHERE :delivered AND failures > 0 AND id IN (SELECT endpoint_id FROM settled)
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
    WHERE NOT :delivered AND id IN (SELECT endpoint_id FROM settled)
)
SELECT count(*) FROM settled
""")


@dataclass(frozen=True, slots=True)
class Settled:
    """An attempt and what follows from it. `retry_in` None ends the delivery, `pause` is the endpoint's wish."""

    at: datetime
    answer: int | None
    latency_ms: int
    error: str | None
    response_text: str | None
    delivered: bool
    retry_in: timedelta | None
    pause: timedelta | None


async def settle(session: AsyncSession, item: Outgoing, result: Settled) -> bool:
    """Record an attempt with its consequences; 410 disables the endpoint. False: the lease was lost."""
    written = await session.scalar(
        _SETTLE,
        {
            **asdict(result),
            "attempt": new_id("att"),
            "delivery": item.delivery_id,
            "epoch": item.epoch,
            "probe": item.probe,
            "open_after": OPEN_AFTER,
            "first": _FIRST_PAUSE,
            "longest": _LONGEST_PAUSE,
        },
    )
    if written and result.answer == 410 and item.endpoint.kind == "endpoint":
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
