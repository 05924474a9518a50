"""HTTP for receipts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query, Request, status

from app.accounts.auth import DriverId, HeaderCommunity
from app.core.paging import After, Limit
from app.core.wake import Wake
from app.host.binding import Host
from app.inbound import receipts
from app.inbound.schemas import ReceiptOut, ReceiptsPage, ReceiptStatus, ReplayIn, ReplayOut

router = APIRouter(prefix="/api/internal/receipts", tags=["receipts"])


@router.get("", operation_id="list_receipts")
async def list_receipts(
    request: Request,
    caller: HeaderCommunity,
    plugin: Annotated[str | None, Query(max_length=64)] = None,
    status: Annotated[ReceiptStatus | None, Query()] = None,
    after: After = None,
    limit: Limit = 50,
) -> ReceiptsPage:
    """The webhooks the community has received, newest first."""
    page, cursor = await receipts.page(
        request.app.state.db.pool,
        _host(request),
        caller[1].id,
        plugin=plugin,
        status=status,
        after=after,
        limit=limit,
    )
    return ReceiptsPage(receipts=page, next=cursor)


@router.get("/{receipt_id}", operation_id="get_receipt")
async def get_receipt(
    request: Request, driver_id: DriverId, receipt_id: Annotated[str, Path(max_length=64)]
) -> ReceiptOut:
    """One received webhook."""
    return await receipts.find(request.app.state.db.pool, _host(request), driver_id, receipt_id)


@router.post("/replay", operation_id="replay_receipts", status_code=status.HTTP_202_ACCEPTED)
async def replay_receipts(
    request: Request, caller: HeaderCommunity, wanted: Annotated[ReplayIn, Body(default_factory=ReplayIn)]
) -> ReplayOut:
    """Hand the community's receipts to their handlers again; without a filter, those that are dead."""
    replayed = await receipts.replay_many(request.app.state.db.pool, caller[1].id, wanted)
    _poke(request)
    return ReplayOut(replayed=replayed)


@router.post("/{receipt_id}/replay", operation_id="replay_receipt", status_code=status.HTTP_202_ACCEPTED)
async def replay_receipt(
    request: Request, driver_id: DriverId, receipt_id: Annotated[str, Path(max_length=64)]
) -> ReceiptOut:
    """Hand a received webhook to its handler again. Events with a key are not sent twice; all else happens again."""
    receipt = await receipts.replay(request.app.state.db.pool, _host(request), driver_id, receipt_id)
    _poke(request)
    return receipt


def _poke(request: Request) -> None:
    wake: Wake = request.app.state.gateway.wake
    wake.poke("receipts")


def _host(request: Request) -> Host:
    host: Host = request.app.state.host
    return host
