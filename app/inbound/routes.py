"""HTTP for receipts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from app.accounts.auth import DriverId, HeaderCommunity
from app.core.paging import After, Limit
from app.host.binding import Host
from app.inbound import receipts
from app.inbound.schemas import ReceiptOut, ReceiptsPage, ReceiptStatus

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


def _host(request: Request) -> Host:
    host: Host = request.app.state.host
    return host
