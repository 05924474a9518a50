"""HTTP for OAuth: two pages for people, one call for drivers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.accounts.auth import DriverId
from app.core.http import PlainRoute
from app.installs.oauth import visits
from app.installs.oauth.exchange import exchange
from app.installs.oauth.pages import Stop, page, send_to
from app.installs.oauth.schemas import ExchangeIn, ExchangeOut
from app.installs.oauth.visits import OAuthFlow

router = APIRouter(prefix="/api/internal/oauth", tags=["oauth"])

_EXCHANGE: dict[int | str, dict[str, Any]] = {
    404: {"description": "The code is unknown, another driver's, used or too old."},
    409: {"description": "The community is connected with another workspace, or the code is being exchanged already."},
    502: {"description": "The platform refused the setup; the code is still good."},
}


@router.post("/exchange", operation_id="exchange_oauth_code", responses=_EXCHANGE)
async def exchange_code(request: Request, driver_id: DriverId, wanted: ExchangeIn) -> ExchangeOut:
    """Exchange the code that came to your redirect URI: only now the plugin is enabled, or the account linked."""
    flow: OAuthFlow = request.app.state.oauth
    return await exchange(flow, driver_id, wanted.code)


async def authorize(request: Request) -> Response:
    """Send a person to the platform."""
    return await _visit(request, visits.authorize)


async def come_back(request: Request) -> Response:
    """Take a person back from the platform, and send them on to the driver."""
    return await _visit(request, visits.come_back)


async def _visit(
    request: Request, lead: Callable[[OAuthFlow, str, Mapping[str, Sequence[str]]], Awaitable[str]]
) -> Response:
    flow: OAuthFlow = request.app.state.oauth
    asked = request.query_params
    query = {name: asked.getlist(name) for name in asked}
    try:
        address = request.client.host if request.client else "?"
        if not request.app.state.public_calls.try_take(address):
            raise Stop(429, "Too many visits from your network.", "Wait a moment and try again.")
        return send_to(await lead(flow, request.path_params["plugin"], query))
    except Stop as stop:
        return page(stop)


ROUTES = (
    PlainRoute("/auth/{plugin}/authorize", authorize, methods=["GET"], include_in_schema=False),
    PlainRoute("/auth/{plugin}/callback", come_back, methods=["GET"], include_in_schema=False),
)
for _route in ROUTES:
    # Starlette's own addition to GET. Who only asks for the head of the way back must not use up the state.
    (_route.methods or set()).discard("HEAD")
