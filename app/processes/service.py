"""Reading and closing processes, for drivers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import Conflict, NotAllowed, NotFound, Unavailable
from app.core.paging import cut, decode_cursor, encode_cursor
from app.processes.fold import Parked, read_state
from app.processes.models import ProcessRow
from app.processes.runner import Runner
from app.processes.step import Turn, take_steps
from app.runtime import instances
from metagov_sdk import ProcessSpec

_CLOSE_SECONDS = 10.0
"""How long a request waits for votes on their way; the worker waits on."""
_PAUSE = 0.02


async def find(session: AsyncSession, community_id: str, plugin: str, name: str, process_id: str) -> ProcessRow:
    """One of a community's processes. Raises NotFound."""
    row = await session.get(ProcessRow, process_id)
    if row is None or (row.community_id, row.plugin, row.name) != (community_id, plugin, name):
        raise NotFound(f"the community has no process {process_id!r} of {plugin}.{name}")
    return row


async def page(
    session: AsyncSession,
    community_id: str,
    *,
    status: str | None,
    plugin: str | None,
    after: str | None,
    limit: int,
) -> tuple[Sequence[ProcessRow], str | None]:
    """A page of a community's processes, newest first."""
    position = decode_cursor(after, (str,), of="processes")
    query = select(ProcessRow).where(ProcessRow.community_id == community_id)
    if status is not None:
        query = query.where(ProcessRow.status == status)
    if plugin is not None:
        query = query.where(ProcessRow.plugin == plugin)
    if position:
        query = query.where(ProcessRow.id < position[0])
    rows, more = cut((await session.scalars(query.order_by(ProcessRow.id.desc()).limit(limit + 1))).all(), limit)
    return rows, encode_cursor([rows[-1].id], of="processes") if more else None


async def close(use: Runner, community_id: str, plugin: str, spec: ProcessSpec, process_id: str) -> ProcessRow:
    """Close a process now, counting every signal that was accepted before.

    Raises NotFound, Conflict (completed, closing, or still starting), NotAllowed (its kind cannot be closed), and
    Unavailable when a transaction that may bring a signal stays open: the worker closes it as soon as that is over.
    """
    await _ask(use, community_id, plugin, spec, process_id)
    loop = asyncio.get_running_loop()
    give_up = loop.time() + _CLOSE_SECONDS
    while True:
        async with use.db.begin() as session:
            row = await find(session, community_id, plugin, spec.name, process_id)
        if row.status == "completed":
            break
        if loop.time() > give_up:
            raise Unavailable("votes are still on their way; the process closes as soon as they are in", retry_after=5)
        found = await instances.by_id(use.db.pool, use.vault, row.instance_id)
        if found is None:
            raise NotFound("the process's instance is gone")
        (step,) = await take_steps(use, [Turn(row, spec, *found, holds=False)])
        if step.transition is None:
            # A worker has it, or not all is in.
            await asyncio.sleep(_PAUSE)
    use.wake.poke("processes")
    return row


async def _ask(use: Runner, community_id: str, plugin: str, spec: ProcessSpec, process_id: str) -> None:
    """Write down that the driver closes it, at this time: from the commit on nothing more is accepted for it."""
    async with use.db.begin() as session:
        row = await find(session, community_id, plugin, spec.name, process_id)
        await session.refresh(row, with_for_update=True)
        if row.status == "completed":
            raise Conflict("the process has completed already", slug="completed")
        if not spec.cls.closable:
            raise NotAllowed("processes of this kind cannot be closed early")
        if row.status == "created":
            raise Conflict("the process is still starting; close it once it is pending", slug="starting")
        now = (await session.execute(select(func.clock_timestamp()))).scalar_one()
        if row.close_reason is not None or (row.closing_at is not None and row.closing_at <= now):
            raise Conflict("the process is being closed already", slug="closing")
        try:
            read_state(spec, row.state, row.state_version)
        except Parked as error:
            raise Conflict(str(error), slug="parked") from error
        row.close_reason, row.closing_at = "driver", now
        row.closing_xid = row.closing_since = None
        row.next_at = now
