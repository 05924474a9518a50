"""Reading and closing processes, for drivers."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import current_time
from app.core.errors import Conflict, NotAllowed, NotFound
from app.core.paging import cut, decode_cursor, encode_cursor
from app.processes.models import ProcessRow
from app.processes.start import Runner
from app.processes.step import Parked, fold
from app.runtime import instances
from metagov_sdk import ProcessSpec


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
    """Close a process now, counting every signal stored so far.

    Raises NotFound, Conflict (already completed, or still starting), NotAllowed (its kind cannot be closed).
    """
    async with use.db.begin() as session:
        row = await find(session, community_id, plugin, spec.name, process_id)
        await session.refresh(row, with_for_update=True)
        if row.status == "completed":
            raise Conflict("the process has completed already", slug="completed")
        if not spec.cls.closable:
            raise NotAllowed("processes of this kind cannot be closed early")
        if row.status == "created":
            raise Conflict("the process is still starting; close it once it is pending", slug="starting")
        found = await instances.by_id(use.db.pool, use.vault, row.instance_id)
        if found is None:
            raise NotFound("the process's instance is gone")
        now = await current_time(session)
        try:
            while row.status == "pending":
                await fold(session, spec, found[0], row, now, close="driver")
        except Parked as error:
            raise Conflict(str(error), slug="parked") from error
        row.next_at = func.clock_timestamp()
        await session.flush()
        await session.refresh(row)
    use.wake.poke("processes", "deliveries", "effects")
    return row
