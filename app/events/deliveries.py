"""A driver's deliveries: list them with their attempts, make them due again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, case, func, or_, select, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import Conflict, NotFound
from app.core.killpoints import KillPoint, reached
from app.core.paging import cut, decode_cursor, encode_cursor
from app.events.models import Attempt, Delivery, Endpoint, EventRow


async def page(
    session: AsyncSession, driver_id: str, *, status: str | None, endpoint: str | None, after: str | None, limit: int
) -> tuple[Sequence[Row[Any]], str | None]:
    """A page of the driver's deliveries, those to callback URLs included, newest first."""
    position = decode_cursor(after, (str,), of="deliveries")
    tried = select(func.count()).where(Attempt.delivery_id == Delivery.id).correlate(Delivery).scalar_subquery()
    query = (
        select(
            Delivery.id,
            Delivery.endpoint_id.label("endpoint"),
            Delivery.event_id,
            Delivery.status,
            tried.label("attempts"),
            Delivery.next_at,
        )
        .join(Endpoint, Endpoint.id == Delivery.endpoint_id)
        .where(Endpoint.driver_id == driver_id)
    )
    if status is not None:
        query = query.where(Delivery.status == status)
    if endpoint is not None:
        query = query.where(Delivery.endpoint_id == endpoint)
    if position:
        query = query.where(Delivery.id < position[0])
    found = (await session.execute(query.order_by(Delivery.id.desc()).limit(limit + 1))).all()
    rows, more = cut(found, limit)
    return rows, encode_cursor([rows[-1].id], of="deliveries") if more else None


async def attempts(
    session: AsyncSession, driver_id: str, delivery_id: str, after: str | None, limit: int
) -> tuple[Sequence[Attempt], str | None]:
    """A page of a delivery's attempts, oldest first. Raises NotFound."""
    position = decode_cursor(after, (str,), of="attempts")
    if await session.scalar(_own(driver_id).where(Delivery.id == delivery_id)) is None:
        raise _unknown()
    query = select(Attempt).where(Attempt.delivery_id == delivery_id)
    if position:
        query = query.where(Attempt.id > position[0])
    rows, more = cut((await session.scalars(query.order_by(Attempt.id).limit(limit + 1))).all(), limit)
    return rows, encode_cursor([rows[-1].id], of="attempts") if more else None


async def retry(session: AsyncSession, driver_id: str, delivery_id: str) -> None:
    """Make a delivery due now; one that is over starts its schedule anew.

    Raises NotFound, and Conflict when its event is no longer kept.
    """
    fresh = case((Delivery.next_at.is_(None), 0), else_=Delivery.attempt)
    updated = await session.execute(
        update(Delivery)
        .where(Delivery.id.in_(_own(driver_id).where(Delivery.id == delivery_id)))
        .values(status="pending", next_at=func.now(), attempt=fresh)
        .returning(Delivery.endpoint_id, Delivery.event_id)
        .execution_options(synchronize_session=False)
    )
    row = updated.one_or_none()
    if row is None:
        raise _unknown()
    if await session.scalar(select(EventRow.id).where(EventRow.id == row.event_id)) is None:
        raise Conflict("the event of this delivery is no longer kept, so it cannot be posted again")
    await probe_now(session, row.endpoint_id)


async def recover(session: AsyncSession, endpoint_id: str, since: datetime) -> int:
    """Make due, with a fresh schedule, what failed of the deliveries made since then. Returns how many.

    Dead ones, and those that wait for their next attempt; what is due or being posted already is left alone.
    """
    waits = (Delivery.status == "pending") & (Delivery.attempt > 0) & (Delivery.next_at > func.now())
    recovered = await session.execute(
        update(Delivery)
        .where(
            Delivery.endpoint_id == endpoint_id,
            Delivery.created_at >= since,
            or_(Delivery.status == "dead", waits),
        )
        .values(status="pending", next_at=func.now(), attempt=0)
        .execution_options(synchronize_session=False)
    )
    await probe_now(session, endpoint_id)
    reached(KillPoint.RECOVER_WRITTEN)
    return recovered.rowcount if isinstance(recovered, CursorResult) else 0


async def probe_now(session: AsyncSession, endpoint_id: str) -> None:
    """Let an open circuit be probed at once: its driver says that the endpoint is worth a try."""
    await session.execute(
        update(Endpoint)
        .where(Endpoint.id == endpoint_id, Endpoint.failures > 0)
        .values(not_before=None)
        .execution_options(synchronize_session=False)
    )


def _own(driver_id: str) -> Select[str]:
    return (
        select(Delivery.id).join(Endpoint, Endpoint.id == Delivery.endpoint_id).where(Endpoint.driver_id == driver_id)
    )


def _unknown() -> NotFound:
    return NotFound("you have no delivery with this id")
