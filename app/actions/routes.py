"""HTTP for actions: one generic route; the OpenAPI document spells it out per action.

Plain Starlette routes: nothing of FastAPI's is needed here, and what it does per request costs as much as the rest.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from app.accounts.auth import COMMUNITY_HEADER, Caller, find_public, wrong_header
from app.accounts.idempotency import derived_key
from app.actions.schemas import ActionCall
from app.actions.service import Performer, find_action, perform
from app.core.errors import BadRequest, Invalid
from app.core.http import PlainRoute
from app.core.ids import new_id
from app.runtime.instances import Candidates, authenticate_with_candidates, candidates
from metagov_sdk import ActionSpec


async def perform_action(request: Request) -> Response:
    """Perform `<plugin>.<action>` for the community in the header."""
    name = request.path_params["name"]
    use: Performer = request.app.state.performer
    caller, found = await _caller(request, use, name)
    _, spec = find_action(use.host, name)
    if caller.community is None:
        raise BadRequest(wrong_header(request.headers.get(COMMUNITY_HEADER)))
    try:
        call = ActionCall.model_validate(await _json(request))
    except ValidationError as error:
        raise Invalid.schema(error) from None
    given = request.headers.get("idempotency-key")
    key = derived_key(caller.driver_id, given) if given else new_id("act")
    result = await perform(use, found, spec, call.parameters, call.community_platform_id, key)
    return Response(result, media_type="application/json")


async def _caller(request: Request, use: Performer, name: str) -> tuple[Caller, Candidates]:
    """Who calls, and the instances that can be meant. A public action needs no key, and then counts against a rate."""
    plugin = name.partition(".")[0]
    slug = request.headers.get(COMMUNITY_HEADER)
    authorization = request.headers.get("authorization")
    if authorization is not None or not _is_public(use, name):
        return await authenticate_with_candidates(use.db.pool, authorization, slug, plugin)
    request.app.state.public_calls.take(request.client.host if request.client else "?")
    caller = await find_public(use.db, slug)
    if caller.community is None:
        return caller, Candidates(plugin, [])
    return caller, await candidates(use.db.pool, caller.community.id, plugin)


def _is_public(use: Performer, name: str) -> bool:
    plugin, _, slug = name.partition(".")
    loaded = use.host.plugins.loaded.get(plugin)
    spec: ActionSpec | None = loaded.manifest.actions.get(slug) if loaded else None
    return spec is not None and spec.public


async def _json(request: Request) -> Any:
    """The body as JSON; nothing at all counts as {}."""
    return await request.json() if await request.body() else {}


ROUTES = (
    PlainRoute("/api/action/{name}", perform_action, methods=["POST"]),
    PlainRoute("/api/internal/action/{name}", perform_action, methods=["POST"]),
)
