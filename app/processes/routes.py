"""HTTP for governance processes. Starting is one generic route; the OpenAPI document spells it out per process."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response, status

from app.accounts.auth import HeaderCommunity
from app.accounts.idempotency import derived_key
from app.core.ids import new_id
from app.core.paging import After, Limit
from app.processes import service
from app.processes.schemas import ProcessesPage, ProcessOut, wire
from app.processes.start import Runner, find_spec, split_body, start

router = APIRouter(prefix="/api/internal/process", tags=["processes"])

Name = Annotated[str, Path(max_length=150, description="`<plugin>.<process>`")]
ProcessId = Annotated[str, Path(max_length=64)]


@router.post("/{name}", include_in_schema=False, status_code=status.HTTP_202_ACCEPTED)
async def start_process(request: Request, response: Response, caller: HeaderCommunity, name: Name) -> ProcessOut:
    """Start a process for the community in the header."""
    use = _runner(request)
    driver_id, community = caller
    plugin, spec = find_spec(use.host, name)
    options, params = split_body(await request.json() if await request.body() else {}, spec)
    given = request.headers.get("idempotency-key")
    row, _ = await start(
        use,
        driver_id,
        community.id,
        plugin,
        spec,
        options,
        params,
        idempotency_key=derived_key(driver_id, given) if given else new_id("start"),
        inline="respond-async" not in request.headers.get("prefer", "").lower(),
    )
    response.headers["location"] = f"/api/internal/process/{name}/{row.id}"
    return wire(row, community.slug)


@router.get("", operation_id="list_processes")
async def list_processes(
    request: Request,
    caller: HeaderCommunity,
    status: Annotated[Literal["created", "pending", "completed"] | None, Query()] = None,
    plugin: Annotated[str | None, Query(max_length=64)] = None,
    after: After = None,
    limit: Limit = 50,
) -> ProcessesPage:
    """The community's processes, newest first."""
    _, community = caller
    async with _runner(request).db.begin() as session:
        rows, cursor = await service.page(session, community.id, status=status, plugin=plugin, after=after, limit=limit)
    return ProcessesPage(processes=[wire(row, community.slug) for row in rows], next=cursor)


@router.get("/{name}/{process_id}", operation_id="get_process")
async def get_process(request: Request, caller: HeaderCommunity, name: Name, process_id: ProcessId) -> ProcessOut:
    """One process, its outcome so far included."""
    _, community = caller
    plugin, _, kind = name.partition(".")
    async with _runner(request).db.begin() as session:
        return wire(await service.find(session, community.id, plugin, kind, process_id), community.slug)


@router.delete(
    "/{name}/{process_id}",
    operation_id="close_process",
    responses={
        405: {"description": "Processes of this kind cannot be closed early."},
        409: {"description": "It has completed already, or is still starting."},
    },
)
async def close_process(request: Request, caller: HeaderCommunity, name: Name, process_id: ProcessId) -> ProcessOut:
    """Close a process now; answers its outcome."""
    use = _runner(request)
    _, community = caller
    plugin, spec = find_spec(use.host, name)
    return wire(await service.close(use, community.id, plugin, spec, process_id), community.slug)


def _runner(request: Request) -> Runner:
    runner: Runner = request.app.state.runner
    return runner
