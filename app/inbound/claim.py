"""Taking due receipts: those in no order by their time, and of each instance's ordered ones the first that waits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import String, any_, column, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.inbound.models import Receipt

# `waiting` hops from instance to instance through the index, so that it costs as many steps as instances have ordered
# receipts waiting: none, where no plugin asks for order. A receipt that is in hand, or that waits for its next try, is
# still the first of its instance and so holds back those behind it. None can turn up before it later on: an instance's
# ordered receipts are committed in the order of their positions (see store.py). now() and not clock_timestamp(), which
# no index can be searched by. Both halves lock what they take at once, so that workers do not meet on the same rows.
_DUE = text("""
WITH RECURSIVE waiting(instance_id) AS (
    (SELECT instance_id FROM receipts
     WHERE next_at IS NOT NULL AND ordered ORDER BY instance_id, position LIMIT 1)
    UNION ALL
    SELECT (SELECT r.instance_id FROM receipts r
            WHERE r.next_at IS NOT NULL AND r.ordered AND r.instance_id > waiting.instance_id
            ORDER BY r.instance_id, r.position LIMIT 1)
    FROM waiting WHERE waiting.instance_id IS NOT NULL
), heads AS (
    SELECT head.id FROM waiting CROSS JOIN LATERAL (
        SELECT r.id, r.next_at, r.lease_until FROM receipts r
        WHERE r.next_at IS NOT NULL AND r.ordered AND r.instance_id = waiting.instance_id
        ORDER BY r.position LIMIT 1) head
    WHERE head.next_at <= now() AND (head.lease_until IS NULL OR head.lease_until < now())
), in_turn AS MATERIALIZED (
    SELECT r.id FROM receipts r
    WHERE r.id = ANY(ARRAY(SELECT id FROM heads))
      AND r.next_at <= now() AND (r.lease_until IS NULL OR r.lease_until < now())
    ORDER BY r.next_at LIMIT :some
    FOR UPDATE SKIP LOCKED
), at_will AS MATERIALIZED (
    SELECT r.id FROM receipts r
    WHERE NOT r.ordered AND r.next_at <= now() AND (r.lease_until IS NULL OR r.lease_until < now())
    ORDER BY r.next_at LIMIT :limit
    FOR UPDATE SKIP LOCKED
)
SELECT id FROM in_turn
UNION ALL
(SELECT id FROM at_will LIMIT :limit - (SELECT count(*) FROM in_turn))
""").columns(column("id", String))


async def claim_receipts(session: AsyncSession, *, limit: int, lease: timedelta) -> Sequence[Receipt]:
    """Take up to `limit` due receipts; those that others hold are passed over. Returned in the order of arrival.

    Ordered receipts of one instance come one at a time, each once the one before it is done or dead. They take up at
    most half of `limit`, so that no number of instances with order holds up those without.
    """
    due = _DUE.cte("due")
    rows = await session.scalars(
        update(Receipt)
        # As an array: over partitions, the planner may take reading all of them for cheaper than joining the ids.
        .where(Receipt.id == any_(func.array(select(due.c.id).scalar_subquery())))
        .values(lease_until=func.clock_timestamp() + lease, epoch=Receipt.epoch + 1, attempt=Receipt.attempt + 1)
        .returning(Receipt)
        .execution_options(synchronize_session=False),
        {"limit": limit, "some": (limit + 1) // 2},
    )
    return sorted(rows, key=lambda receipt: receipt.position)
