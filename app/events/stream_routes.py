"""HTTP for the stream of events."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, status

from app.accounts.auth import Db, DriverId, authenticate
from app.core.paging import After
from app.events import log
from app.events.stream import EventStreamResponse, EventStreams

router = APIRouter(prefix="/api/internal", tags=["events"])

_Filter = Annotated[str | None, Query(max_length=200)]
_LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        max_length=300,
        pattern=r"^[A-Za-z0-9_\-]*$",
        description="The `id` of the last event you got; goes before `after`.",
    ),
]
_DESCRIPTION = (
    "Server-Sent Events without end: `id` is the event's cursor, `event` is `<source>.<event_type>`, `data` the event "
    "as JSON on one line."
)


@router.get(
    "/events/stream",
    operation_id="stream_events",
    status_code=status.HTTP_200_OK,
    response_class=EventStreamResponse,
    response_description=_DESCRIPTION,
)
async def stream_events(
    request: Request,
    db: Db,
    driver_id: DriverId,
    last_event_id: _LastEventId = None,
    after: After = None,
    type: _Filter = None,
    source: _Filter = None,
    community: _Filter = None,
) -> EventStreamResponse:
    """Events as they happen, after `Last-Event-ID` or `after`; with neither, from now on. No event is ever skipped."""
    streams: EventStreams = request.app.state.streams
    cursor = last_event_id or after
    position = log.parse_cursor(cursor)
    streams.check_room(driver_id)
    if cursor is None:
        position = await streams.newest(driver_id)
    authorization = request.headers.get("authorization")
    wanted = log.Filter(event_type=type, source=source, community=community)
    return EventStreamResponse(
        streams.follow(driver_id, position, wanted, lambda: authenticate(db, authorization, None))
    )
