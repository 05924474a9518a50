"""Taking due deliveries, fairly: endpoints that may be posted to first, then some deliveries of each.

A dead endpoint with ten thousand deliveries waiting costs one probe now and then, and holds nobody else up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, and_, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.models import Driver
from app.core.ids import new_ids
from app.core.work import LEASE
from app.events.models import Delivery, Endpoint, EventRow

PER_ENDPOINT = 192
"""How many deliveries of one endpoint a worker has in hand at a time."""
OPEN_AFTER = 5
"""Consecutive failures that open an endpoint's circuit: from then on one probe at a time."""

# `waiting` hops from endpoint to endpoint through the index, so that it costs as many steps as endpoints wait.
# An ordered endpoint offers the first undelivered delivery of each lane, and that only once no older transaction is
# open that could still bring an earlier one. Whoever moves `not_before` of an open circuit has the probe: a second
# worker waits for the row and then finds it moved. Materialized, so that a planner with old statistics cannot look for
# the candidates anew at each delivery. now() and not clock_timestamp(), which no index can be searched by.
_CLAIM = text("""
WITH RECURSIVE waiting(endpoint_id) AS (
    (SELECT endpoint_id FROM deliveries WHERE next_at IS NOT NULL ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.endpoint_id FROM deliveries d
            WHERE d.next_at IS NOT NULL AND d.endpoint_id > waiting.endpoint_id ORDER BY d.endpoint_id LIMIT 1)
    FROM waiting WHERE waiting.endpoint_id IS NOT NULL
), eligible AS MATERIALIZED (
    SELECT e.id, e.ordered, e.failures >= :open_after AS probe,
           CASE WHEN e.failures >= :open_after THEN 1 ELSE :per_endpoint - coalesce(busy.held, 0) END AS room
    FROM waiting JOIN endpoints e ON e.id = waiting.endpoint_id
    LEFT JOIN unnest(CAST(:busy AS text[]), CAST(:held AS int[])) AS busy(endpoint_id, held) ON busy.endpoint_id = e.id
    WHERE e.status = 'enabled' AND (e.not_before IS NULL OR e.not_before <= now())
      AND coalesce(busy.held, 0) < :per_endpoint
), candidates AS MATERIALIZED (
    SELECT c.id, eligible.probe
    FROM eligible CROSS JOIN LATERAL (
        (SELECT d.id FROM deliveries d
         WHERE NOT eligible.ordered AND d.endpoint_id = eligible.id AND d.next_at <= now()
           AND (d.lease_until IS NULL OR d.lease_until < now())
         ORDER BY d.next_at LIMIT eligible.room)
        UNION ALL
        (SELECT head.id FROM (
            SELECT DISTINCT ON (d.lane) d.id, d.next_at, d.lease_until, d.era, d.xid FROM deliveries d
            WHERE eligible.ordered AND d.endpoint_id = eligible.id AND d.next_at IS NOT NULL
            ORDER BY d.lane, d.era, d.xid, d.seq) head
         WHERE head.next_at <= now() AND (head.lease_until IS NULL OR head.lease_until < now())
           AND (head.era < current_era() OR head.xid < pg_snapshot_xmin(pg_current_snapshot()))
         ORDER BY head.next_at LIMIT eligible.room)
    ) c
), due AS MATERIALIZED (
    SELECT d.id, d.endpoint_id, candidates.probe
    FROM deliveries d JOIN candidates ON candidates.id = d.id
    WHERE d.next_at <= now() AND (d.lease_until IS NULL OR d.lease_until < now())
    ORDER BY d.next_at LIMIT :room
    FOR UPDATE OF d SKIP LOCKED
), probes AS (
    UPDATE endpoints e SET not_before = now() + :lease
    WHERE e.id IN (SELECT endpoint_id FROM due WHERE probe) AND (e.not_before IS NULL OR e.not_before <= now())
    RETURNING e.id
)
UPDATE deliveries d SET lease_until = clock_timestamp() + :lease, epoch = d.epoch + 1, attempt = d.attempt + 1
FROM due WHERE d.id = due.id AND (NOT due.probe OR due.endpoint_id IN (SELECT id FROM probes))
RETURNING d.id, d.event_id, d.epoch, d.attempt, due.probe
""")
# Events are dropped with their partition; a delivery may be left over for a while, and has nothing to post.
_END = text("""
WITH ended AS (
    UPDATE deliveries SET status = 'dead', next_at = NULL, lease_until = NULL WHERE id = ANY(:ids) RETURNING id
)
INSERT INTO attempts (id, delivery_id, at, latency_ms, error)
SELECT attempt.id, ended.id, clock_timestamp(), 0, 'the event is older than what is kept'
FROM ended JOIN unnest(CAST(:ids AS text[]), CAST(:attempts AS text[])) AS attempt(delivery_id, id)
    ON attempt.delivery_id = ended.id
""")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """All an attempt needs. `secrets` are sealed; each signs. `probe`: it tries whether an open circuit can close."""

    id: str
    """The delivery's."""
    epoch: int
    attempt: int
    probe: bool
    endpoint: Endpoint
    event: EventRow
    secrets: tuple[str, ...]


async def claim(session: AsyncSession, *, room: int, busy: Mapping[str, int]) -> list[Outgoing]:
    """Take up to `room` due deliveries. `busy` is how many of each endpoint the caller has in hand already.

    Deliveries whose event is no longer kept end here, dead.
    """
    while claimed := await _take(session, room, busy):
        outgoing = await _load(session, claimed)
        if gone := list(claimed.keys() - {item.id for item in outgoing}):
            await session.execute(_END, {"ids": gone, "attempts": new_ids("att", len(gone))})
        if outgoing:
            return outgoing
    return []


async def _take(session: AsyncSession, room: int, busy: Mapping[str, int]) -> dict[str, Row[Any]]:
    rows = await session.execute(
        _CLAIM,
        {
            "room": room,
            "busy": list(busy),
            "held": list(busy.values()),
            "per_endpoint": PER_ENDPOINT,
            "open_after": OPEN_AFTER,
            "lease": LEASE,
        },
    )
    return {row.id: row for row in rows}


async def _load(session: AsyncSession, claimed: Mapping[str, Row[Any]]) -> list[Outgoing]:
    rows = await session.execute(
        select(
            Delivery.id,
            Endpoint,
            EventRow,
            Driver.signing_secret,
            Driver.previous_secret,
            and_(Driver.previous_until.is_not(None), Driver.previous_until > func.now()),
            and_(Endpoint.previous_until.is_not(None), Endpoint.previous_until > func.now()),
        )
        .join(Endpoint, Endpoint.id == Delivery.endpoint_id)
        .join(EventRow, EventRow.id == Delivery.event_id)
        .join(Driver, Driver.id == Endpoint.driver_id)
        # The events' ids once more: they say which partitions to look into.
        .where(Delivery.id.in_(claimed), EventRow.id.in_(row.event_id for row in claimed.values()))
    )
    outgoing = []
    for delivery_id, endpoint, event, drivers, drivers_previous, drivers_overlap, overlap in rows:
        if endpoint.secret is None:
            secrets = (drivers, drivers_previous if drivers_overlap else None)
        else:
            secrets = (endpoint.secret, endpoint.previous_secret if overlap else None)
        held = claimed[delivery_id]
        signing = tuple(secret for secret in secrets if secret is not None)
        outgoing.append(Outgoing(held.id, held.epoch, held.attempt, held.probe, endpoint, event, signing))
    return outgoing
