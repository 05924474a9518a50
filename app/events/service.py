"""Recording events, and the deliveries they cause, inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import func, insert, select, text
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.ids import new_id
from app.events.models import Delivery, Endpoint, EventRow

QUEUE = "deliveries"


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to record.

    `callback_id` also sends its bare data to that implicit endpoint; `only_to` delivers it to that endpoint alone.
    """

    driver_id: str
    community_id: str | None
    community: str | None
    instance_id: str | None
    source: str
    event_type: str
    data: dict[str, Any]
    initiator: dict[str, Any] | None = None
    timestamp: datetime | None = None
    callback_id: str | None = None
    only_to: str | None = None


def core_event(
    driver_id: str,
    community_id: str | None,
    community: str | None,
    instance_id: str | None,
    event_type: str,
    data: dict[str, Any],
) -> NewEvent:
    """One of the gateway's own events (`source: "metagov"`)."""
    return NewEvent(driver_id, community_id, community, instance_id, "metagov", event_type, data)


def endpoint_event(endpoint: Endpoint, what: str, reason: str | None) -> NewEvent:
    """`endpoint.disabled` or `endpoint.enabled`, for the driver whose endpoint it is."""
    data = {"endpoint": endpoint.id, "url": endpoint.url, "reason": reason}
    return core_event(endpoint.driver_id, None, None, None, f"endpoint.{what}", data)


async def record(session: AsyncSession, events: Sequence[NewEvent]) -> list[str]:
    """Write events and a delivery per subscribed endpoint; three statements however many there are. Returns the ids."""
    if not events:
        return []
    now = func.clock_timestamp()
    ids = [new_id("evt") for _ in events]
    await session.execute(
        insert(EventRow).values(
            [
                {
                    "id": event_id,
                    "driver_id": event.driver_id,
                    "community_id": event.community_id,
                    "community": event.community,
                    "instance_id": event.instance_id,
                    "source": event.source,
                    "event_type": event.event_type,
                    "timestamp": now if event.timestamp is None else event.timestamp,
                    "data": event.data,
                    "initiator": event.initiator,
                }
                for event_id, event in zip(ids, events, strict=True)
            ]
        )
    )
    endpoints = await _subscribers(session, {event.driver_id for event in events})
    deliveries = [
        {"id": new_id("dlv"), "endpoint_id": endpoint_id, "event_id": event_id, "lane": event.community_id or ""}
        for event_id, event in zip(ids, events, strict=True)
        for endpoint_id in _targets(event, endpoints)
    ]
    if deliveries:
        await session.execute(insert(Delivery).values(deliveries))
    return ids


async def _subscribers(session: AsyncSession, drivers: Iterable[str]) -> Sequence[Endpoint]:
    return (
        await session.scalars(
            select(Endpoint).where(
                Endpoint.driver_id.in_(drivers), Endpoint.kind == "endpoint", Endpoint.status == "enabled"
            )
        )
    ).all()


def _targets(event: NewEvent, endpoints: Sequence[Endpoint]) -> Iterable[str]:
    if event.only_to is not None:
        yield event.only_to
        return
    name = f"{event.source}.{event.event_type}"
    for endpoint in endpoints:
        if (
            endpoint.driver_id == event.driver_id
            and (endpoint.communities is None or event.community in endpoint.communities)
            and (endpoint.events is None or any(fnmatchcase(name, glob) for glob in endpoint.events))
        ):
            yield endpoint.id
    if event.callback_id is not None:
        yield event.callback_id


async def callback_endpoint(session: AsyncSession, driver_id: str, url: str) -> str:
    """The id of the implicit endpoint that stands for a callback_url."""
    added = await session.execute(
        pg_insert(Endpoint)
        .values(id=new_id("end"), driver_id=driver_id, kind="callback", url=url)
        # Literal: as a parameter the condition matches no index once Postgres plans the statement for any value.
        .on_conflict_do_update(
            index_elements=["driver_id", "url"], index_where=text("kind = 'callback'"), set_={"url": url}
        )
        .returning(Endpoint.id)
    )
    return str(added.scalar_one())
