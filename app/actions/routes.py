"""HTTP for actions: one generic route; the OpenAPI document spells it out per action."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from app.accounts.auth import COMMUNITY_HEADER, Caller, authenticate, find_public, wrong_header
from app.accounts.idempotency import derived_key
from app.actions.schemas import ActionCall
from app.actions.service import Performer, find_action, perform
from app.core.errors import BadRequest, Invalid
from app.core.ids import new_id
from metagov_sdk import ActionSpec

router = APIRouter(include_in_schema=False)


@router.post("/api/action/{name}")
@router.post("/api/internal/action/{name}")
async def perform_action(request: Request, name: str) -> Response:
    """Perform `<plugin>.<action>` for the community in the header."""
    use: Performer = request.app.state.performer
    caller, problem = await _caller(request, use, name)
    plugin, spec = find_action(use.host, name)
    if caller.community is None:
        raise problem
    try:
        call = ActionCall.model_validate(await _json(request))
    except ValidationError as error:
        raise Invalid.schema(error) from None
    given = request.headers.get("idempotency-key")
    key = derived_key(caller.driver_id, given) if given else new_id("act")
    result = await perform(use, caller.community.id, plugin, spec, call.parameters, call.community_platform_id, key)
    return Response(result, media_type="application/json")


async def _caller(request: Request, use: Performer, name: str) -> tuple[Caller, BadRequest]:
    """Who calls. A public action needs no key, and then counts against its caller's rate."""
    slug = request.headers.get(COMMUNITY_HEADER)
    authorization = request.headers.get("authorization")
    problem = BadRequest(wrong_header(slug))
    if authorization is None and _is_public(use, name):
        request.app.state.public_calls.take(request.client.host if request.client else "?")
        return await find_public(use.db, slug), problem
    return await authenticate(use.db, authorization, slug), problem


def _is_public(use: Performer, name: str) -> bool:
    plugin, _, slug = name.partition(".")
    loaded = use.host.plugins.loaded.get(plugin)
    spec: ActionSpec | None = loaded.manifest.actions.get(slug) if loaded else None
    return spec is not None and spec.public


async def _json(request: Request) -> Any:
    """The body as JSON; nothing at all counts as {}."""
    return await request.json() if await request.body() else {}
