"""HTTP for graphs: how they stand, builds and shares. What shares open is in `app.graphs.public`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response, status

from app.accounts.auth import HeaderCommunity
from app.graphs import service
from app.graphs.public import url_of
from app.graphs.schemas import GraphOut, GraphsOut, NewShareOut, ShareIn, wire
from app.graphs.service import Graphs
from app.graphs.shares import create_share, revoke_share

router = APIRouter(prefix="/api/internal/graph", tags=["graphs"])

Plugin = Annotated[str, Path(max_length=64)]
PlatformId = Annotated[
    str | None, Query(max_length=500, description="Which instance, where the community has several of the plugin.")
]
ShareId = Annotated[str, Path(pattern="^[A-Za-z0-9_-]{1,64}$")]


@router.get("", operation_id="list_graphs")
async def list_graphs(request: Request, caller: HeaderCommunity) -> GraphsOut:
    """The community's graphs: one for each rule set that is enabled, built or not."""
    found = await service.statuses(_graphs(request), caller[1].id)
    return GraphsOut(graphs=[wire(each) for each in found])


@router.post(
    "/{plugin}/build",
    operation_id="build_graph",
    status_code=status.HTTP_202_ACCEPTED,
    responses={409: {"description": "Which instance is not clear, or the deployment keeps no graphs."}},
)
async def build_graph(
    request: Request, caller: HeaderCommunity, plugin: Plugin, community_platform_id: PlatformId = None
) -> GraphOut:
    """Build the graph again from the archive's newest snapshot. It is built without being asked when that moves."""
    use = _graphs(request)
    instance = await service.find_instance(use, caller[1].id, plugin, community_platform_id)
    return wire(await service.ask_for_build(use, instance))


@router.post(
    "/{plugin}/shares",
    operation_id="share_graph",
    status_code=status.HTTP_201_CREATED,
    responses={409: {"description": "Which instance is not clear, or the deployment keeps no graphs."}},
)
async def share_graph(
    request: Request,
    response: Response,
    caller: HeaderCommunity,
    plugin: Plugin,
    body: ShareIn | None = None,
    community_platform_id: PlatformId = None,
) -> NewShareOut:
    """Make URLs by which anybody who has them can read the graph, until they expire or are revoked."""
    use = _graphs(request)
    instance = await service.find_instance(use, caller[1].id, plugin, community_platform_id)
    made = await create_share(use, instance, body.expires_at if body else None)
    response.headers["Cache-Control"] = "no-store"
    return NewShareOut(
        id=made.id,
        graph_url=url_of(use, made.token, "graph.json"),
        declaration_url=url_of(use, made.token, "declaration.json"),
        identity_proposals_url=url_of(use, made.token, "identityProposals.json"),
    )


@router.delete("/{plugin}/shares/{share_id}", operation_id="revoke_graph_share", status_code=status.HTTP_204_NO_CONTENT)
async def revoke_graph_share(
    request: Request,
    caller: HeaderCommunity,
    plugin: Plugin,
    share_id: ShareId,
    community_platform_id: PlatformId = None,
) -> None:
    """Take a share back: its URLs are not found from now on."""
    use = _graphs(request)
    instance = await service.find_instance(use, caller[1].id, plugin, community_platform_id)
    await revoke_share(use, instance, share_id)


def _graphs(request: Request) -> Graphs:
    use: Graphs = request.app.state.graphs
    return use
