"""HTTP for mirrors."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, status

from app.accounts.auth import HeaderCommunity
from app.mirrors import service
from app.mirrors.mirrors import Mirrors
from app.mirrors.schemas import MirrorOut, SyncIn, wire

router = APIRouter(prefix="/api/internal/mirror", tags=["mirrors"])

Plugin = Annotated[str, Path(max_length=64)]
PlatformId = Annotated[
    str | None, Query(max_length=500, description="Which instance, where the community has several of the plugin.")
]


@router.post("/{plugin}/sync", operation_id="sync_mirror", status_code=status.HTTP_202_ACCEPTED)
async def sync_mirror(
    request: Request,
    caller: HeaderCommunity,
    plugin: Plugin,
    body: SyncIn | None = None,
    community_platform_id: PlatformId = None,
) -> MirrorOut:
    """Read what is new on the platform, or with `sweep` everything; the mirror is read on its schedule from then on."""
    _, community = caller
    sweep = body is not None and body.sweep
    return wire(await service.sync(_mirrors(request), community.id, plugin, community_platform_id, sweep=sweep))


@router.get("/{plugin}", operation_id="get_mirror")
async def get_mirror(
    request: Request, caller: HeaderCommunity, plugin: Plugin, community_platform_id: PlatformId = None
) -> MirrorOut:
    """How the mirror of the community's instance stands."""
    _, community = caller
    return wire(await service.status(_mirrors(request), community.id, plugin, community_platform_id))


def _mirrors(request: Request) -> Mirrors:
    use: Mirrors = request.app.state.mirrors
    return use
