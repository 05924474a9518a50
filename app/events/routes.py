"""HTTP for events and endpoints."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response, status

from app.accounts.auth import Db, DriverId
from app.core.crypto import Vault
from app.core.egress import EgressPolicy
from app.core.killpoints import KillPoint, reached
from app.core.paging import After, Limit
from app.core.wake import Wake
from app.events import deliveries, endpoints, log, rotation
from app.events.models import Endpoint
from app.events.schemas import (
    AttemptOut,
    AttemptsPage,
    DeliveriesPage,
    DeliveryOut,
    DeliveryStatus,
    EndpointIn,
    EndpointOut,
    EndpointPatch,
    EndpointsPage,
    EventsPage,
    NewEndpointOut,
    RecoveredOut,
    RecoverIn,
    SecretOut,
)
from app.events.service import QUEUE

router = APIRouter(prefix="/api/internal", tags=["events"])

EndpointId = Annotated[str, Path(max_length=64)]
DeliveryId = Annotated[str, Path(max_length=64)]
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
    _wake(request)
    return EndpointOut(**_wire(row))


@router.delete(
    "/driver/endpoints/{endpoint_id}", operation_id="delete_endpoint", status_code=status.HTTP_204_NO_CONTENT
)
async def delete_endpoint(db: Db, driver_id: DriverId, endpoint_id: str) -> None:
    """Remove an endpoint; what was still to be delivered to it is dropped."""
    async with db.begin() as session:
        await endpoints.remove(session, driver_id, endpoint_id)


@router.post(
    "/driver/endpoints/{endpoint_id}/rotate-secret",
    operation_id="rotate_endpoint_secret",
)
async def rotate_endpoint_secret(request: Request, db: Db, driver_id: DriverId, endpoint_id: EndpointId) -> SecretOut:
    """Give an endpoint a new signing secret. The old one signs beside it for 24 hours."""
    async with db.begin() as session:
        secret = await rotation.rotate_endpoint_secret(session, _vault(request), driver_id, endpoint_id)
    return SecretOut(secret=secret)


@router.post("/driver/rotate-secret", operation_id="rotate_driver_secret")
async def rotate_driver_secret(request: Request, db: Db, driver_id: DriverId) -> SecretOut:
    """Give yourself a new secret for callback URLs. The old one signs beside it for 24 hours."""
    async with db.begin() as session:
        secret = await rotation.rotate_driver_secret(session, _vault(request), driver_id)
    return SecretOut(secret=secret)


@router.post("/driver/endpoints/{endpoint_id}/test", operation_id="test_endpoint", status_code=status.HTTP_202_ACCEPTED)
async def send_test(request: Request, db: Db, driver_id: DriverId, endpoint_id: EndpointId) -> None:
    """Have a test event posted to this endpoint alone, whatever its filters. 409 while it is disabled."""
    async with db.begin() as session:
        await endpoints.send_test(session, driver_id, endpoint_id)
    _wake(request)


@router.post(
    "/driver/endpoints/{endpoint_id}/recover",
    operation_id="recover_endpoint",
    status_code=status.HTTP_202_ACCEPTED,
)
async def recover_endpoint(
    request: Request, db: Db, driver_id: DriverId, endpoint_id: EndpointId, wanted: RecoverIn
) -> RecoveredOut:
    """Make due again, each once, the deliveries made since then that are dead or wait for another attempt."""
    async with db.begin() as session:
        await endpoints.find(session, driver_id, endpoint_id)
        recovered = await deliveries.recover(session, endpoint_id, wanted.since)
    reached(KillPoint.RECOVER_COMMITTED)
    _wake(request)
    return RecoveredOut(recovered=recovered)


@router.get("/deliveries", operation_id="list_deliveries")
async def list_deliveries(
    db: Db,
    driver_id: DriverId,
    status: Annotated[DeliveryStatus | None, Query()] = None,
    endpoint: Annotated[str | None, Query(max_length=64)] = None,
    after: After = None,
    limit: Limit = 50,
) -> DeliveriesPage:
    """Deliveries to your endpoints and callback URLs, newest first."""
    async with db.begin() as session:
        rows, cursor = await deliveries.page(
            session, driver_id, status=status, endpoint=endpoint, after=after, limit=limit
        )
    return DeliveriesPage(deliveries=[DeliveryOut(**row._mapping) for row in rows], next=cursor)


@router.post("/deliveries/{delivery_id}/retry", operation_id="retry_delivery", status_code=status.HTTP_202_ACCEPTED)
async def retry_delivery(request: Request, db: Db, driver_id: DriverId, delivery_id: DeliveryId) -> None:
    """Make a delivery due now, also one that is dead or was delivered: it is posted again, with the same id."""
    async with db.begin() as session:
        await deliveries.retry(session, driver_id, delivery_id)
    _wake(request)


@router.get("/deliveries/{delivery_id}/attempts", operation_id="list_attempts")
async def list_attempts(
    db: Db, driver_id: DriverId, delivery_id: DeliveryId, after: After = None, limit: Limit = 50
) -> AttemptsPage:
    """What came of each attempt, oldest first."""
    async with db.begin() as session:
        rows, cursor = await deliveries.attempts(session, driver_id, delivery_id, after, limit)
    shown = [AttemptOut(**{name: getattr(row, name) for name in AttemptOut.model_fields}) for row in rows]
    return AttemptsPage(attempts=shown, next=cursor)


def _wake(request: Request) -> None:
    wake: Wake = request.app.state.gateway.wake
    wake.poke(QUEUE)


def _wire(row: Endpoint) -> dict[str, Any]:
    return {name: getattr(row, name) for name in EndpointOut.model_fields}


def _vault(request: Request) -> Vault:
    vault: Vault = request.app.state.vault
    return vault


def _policy(request: Request) -> EgressPolicy:
    policy: EgressPolicy = request.app.state.egress
    return policy
