"""HTTP for events and endpoints."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response, status

from app.accounts.auth import Db, DriverId
from app.core.crypto import Vault
from app.core.egress import EgressPolicy
from app.core.paging import After, Limit
from app.events import endpoints, log
from app.events.models import Endpoint
from app.events.schemas import (
    EndpointIn,
    EndpointOut,
    EndpointPatch,
    EndpointsPage,
    EventsPage,
    NewEndpointOut,
)

router = APIRouter(prefix="/api/internal", tags=["events"])

_Filter = Annotated[str | None, Query(max_length=200)]


@router.get("/events", operation_id="list_events", response_model=EventsPage)
async def list_events(
    db: Db,
    driver_id: DriverId,
    after: After = None,
    limit: Limit = 50,
    type: _Filter = None,
    source: _Filter = None,
    community: _Filter = None,
) -> Response:
    """Events of your communities, in order. Keep `next` and ask again with it: no event is ever skipped."""
    events, cursor = await log.read_page(
        db.pool, driver_id, after=after, limit=limit, event_type=type, source=source, community=community
    )
    # Written by `json`, not by pydantic: platforms' data may hold what is JSON but not UTF-8 (half a surrogate pair).
    return Response(json.dumps({"events": events, "next": cursor}), media_type="application/json")


@router.get("/driver/endpoints", operation_id="list_endpoints")
async def list_endpoints(db: Db, driver_id: DriverId, after: After = None, limit: Limit = 50) -> EndpointsPage:
    """Your endpoints."""
    async with db.begin() as session:
        rows, cursor = await endpoints.page(session, driver_id, after, limit)
    return EndpointsPage(endpoints=[EndpointOut(**_wire(row)) for row in rows], next=cursor)


@router.post("/driver/endpoints", operation_id="create_endpoint", status_code=status.HTTP_201_CREATED)
async def create_endpoint(request: Request, db: Db, driver_id: DriverId, wanted: EndpointIn) -> NewEndpointOut:
    """Register where events are posted to. The answer shows the signing secret once."""
    async with db.begin() as session:
        row, secret = await endpoints.create(session, _vault(request), _policy(request), driver_id, wanted)
    return NewEndpointOut(**_wire(row), secret=secret)


@router.get("/driver/endpoints/{endpoint_id}", operation_id="get_endpoint")
async def get_endpoint(db: Db, driver_id: DriverId, endpoint_id: str) -> EndpointOut:
    """One endpoint."""
    async with db.begin() as session:
        return EndpointOut(**_wire(await endpoints.find(session, driver_id, endpoint_id)))


@router.patch("/driver/endpoints/{endpoint_id}", operation_id="update_endpoint")
async def update_endpoint(
    request: Request, db: Db, driver_id: DriverId, endpoint_id: str, patch: EndpointPatch
) -> EndpointOut:
    """Change an endpoint; what is left out stays."""
    async with db.begin() as session:
        row = await endpoints.change(session, _policy(request), driver_id, endpoint_id, patch)
    return EndpointOut(**_wire(row))


@router.delete(
    "/driver/endpoints/{endpoint_id}", operation_id="delete_endpoint", status_code=status.HTTP_204_NO_CONTENT
)
async def delete_endpoint(db: Db, driver_id: DriverId, endpoint_id: str) -> None:
    """Remove an endpoint; what was still to be delivered to it is dropped."""
    async with db.begin() as session:
        await endpoints.remove(session, driver_id, endpoint_id)


def _wire(row: Endpoint) -> dict[str, Any]:
    return {name: getattr(row, name) for name in EndpointOut.model_fields}


def _vault(request: Request) -> Vault:
    vault: Vault = request.app.state.vault
    return vault


def _policy(request: Request) -> EgressPolicy:
    policy: EgressPolicy = request.app.state.egress
    return policy
