"""Recording events, and the deliveries they cause, inside the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.ids import new_id, new_ids
from app.events.models import Endpoint

QUEUE = "deliveries"


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to record.

    `callback_id` also sends its bare data to that implicit endpoint, in order with what has the same `lane`; `only_to`
    delivers it to that endpoint alone. To other endpoints the lane is the community.
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
    lane: str | None = None


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


_RECORD = text("""
INSERT INTO events
    (id, driver_id, community_id, community, instance_id, source, event_type, timestamp, data, initiator)
SELECT id, driver_id, community_id, community, instance_id, source, event_type,
       coalesce(timestamp, clock_timestamp()), data, initiator
FROM unnest(
    CAST(:ids AS text[]), CAST(:drivers AS text[]), CAST(:community_ids AS text[]), CAST(:communities AS text[]),
    CAST(:instances AS text[]), CAST(:sources AS text[]), CAST(:types AS text[]), CAST(:timestamps AS timestamptz[]),
    CAST(:data AS json[]), CAST(:initiators AS json[])
) WITH ORDINALITY AS new(
    id, driver_id, community_id, community, instance_id, source, event_type, timestamp, data, initiator, place
) ORDER BY place
""")
_FAN_OUT = text("""
INSERT INTO deliveries (id, endpoint_id, event_id, lane)
SELECT id, endpoint_id, event_id, lane
FROM unnest(
    CAST(:ids AS text[]), CAST(:endpoints AS text[]), CAST(:events AS text[]), CAST(:lanes AS text[])
) WITH ORDINALITY AS new(id, endpoint_id, event_id, lane, place) ORDER BY place
""")


async def record(session: AsyncSession, events: Sequence[NewEvent]) -> list[str]:
    """Write events and a delivery per subscribed endpoint; three statements however many there are. Returns the ids."""
    if not events:
        return []
    ids = new_ids("evt", len(events))
    await session.execute(
        _RECORD,
        {
            "ids": ids,
            "drivers": [event.driver_id for event in events],
            "community_ids": [event.community_id for event in events],
            "communities": [event.community for event in events],
            "instances": [event.instance_id for event in events],
            "sources": [event.source for event in events],
            "types": [event.event_type for event in events],
            "timestamps": [event.timestamp for event in events],
            "data": [json.dumps(event.data) for event in events],
            "initiators": [None if event.initiator is None else json.dumps(event.initiator) for event in events],
        },
    )
    endpoints = await _subscribers(session, {event.driver_id for event in events})
    deliveries = [
        (endpoint_id, event_id, (event.lane if endpoint_id == event.callback_id else None) or event.community_id or "")
        for event_id, event in zip(ids, events, strict=True)
        for endpoint_id in _targets(event, endpoints)
    ]
    if deliveries:
        to, of, lanes = zip(*deliveries, strict=True)
        rows = {"ids": new_ids("dlv", len(deliveries)), "endpoints": list(to), "events": list(of), "lanes": list(lanes)}
        await session.execute(_FAN_OUT, rows)
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
        .values(id=new_id("end"), driver_id=driver_id, kind="callback", url=url, ordered=True)
        # Literal: as a parameter the condition matches no index once Postgres plans the statement for any value.
        .on_conflict_do_update(
            index_elements=["driver_id", "url"], index_where=text("kind = 'callback'"), set_={"url": url}
        )
        .returning(Endpoint.id)
    )
    return str(added.scalar_one())
