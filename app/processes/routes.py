"""HTTP for governance processes. Starting is one generic route; the OpenAPI document spells it out per process."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, BackgroundTasks, Path, Query, Request, Response, status

from app.accounts.auth import HeaderCommunity
from app.accounts.idempotency import derived_key
from app.core.ids import new_id
from app.core.paging import After, Limit
from app.processes import history, service
from app.processes.runner import Runner
from app.processes.schemas import ProcessesPage, ProcessOut, TransitionsPage, wire, wire_transition
from app.processes.start import find_spec, release, split_body, start

router = APIRouter(prefix="/api/internal/process", tags=["processes"])

Name = Annotated[str, Path(max_length=150, description="`<plugin>.<process>`")]
ProcessId = Annotated[str, Path(max_length=64)]

_KEYED_ANSWER = timedelta(milliseconds=200)


@router.post("/{name}", include_in_schema=False, status_code=status.HTTP_202_ACCEPTED)
async def start_process(
    request: Request, response: Response, after: BackgroundTasks, caller: HeaderCommunity, name: Name
) -> ProcessOut:
    """Start a process for the community in the header."""
    use = _runner(request)
    driver_id, community = caller
    plugin, spec = find_spec(use.host, name)
    options, params = split_body(await request.json() if await request.body() else {}, spec)
    given = request.headers.get("idempotency-key")
    started = await start(
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
    if started.held:
        # With a key, the answer is stored before it goes out, and that comes after this.
        after.add_task(release, use, started.row, _KEYED_ANSWER if given else timedelta(0))
    response.headers["location"] = f"/api/internal/process/{name}/{started.row.id}"
    return wire(started.row, community.slug)


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
        409: {"description": "It has completed already, is being closed, or is still starting."},
        503: {"description": "It closes as soon as votes that are on their way are in."},
    },
)
async def close_process(request: Request, caller: HeaderCommunity, name: Name, process_id: ProcessId) -> ProcessOut:
    """Close a process now; answers its outcome."""
    use = _runner(request)
    _, community = caller
    plugin, spec = find_spec(use.host, name)
    return wire(await service.close(use, community.id, plugin, spec, process_id), community.slug)


@router.get("/{name}/{process_id}/history", operation_id="get_process_history")
async def get_history(
    request: Request,
    caller: HeaderCommunity,
    name: Name,
    process_id: ProcessId,
    after: After = None,
    limit: Limit = 50,
) -> TransitionsPage:
    """The committed steps of a process, oldest first."""
    _, community = caller
    plugin, _, kind = name.partition(".")
    async with _runner(request).db.begin() as session:
        row = await service.find(session, community.id, plugin, kind, process_id)
        rows, cursor = await history.page(session, row.id, after, limit)
    return TransitionsPage(transitions=[wire_transition(each) for each in rows], next=cursor)


def _runner(request: Request) -> Runner:
    runner: Runner = request.app.state.runner
    return runner
