"""A community's row and those of its instances: made, locked, read, taken out of use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.auth import CommunityRef
from app.accounts.models import Community
from app.core.errors import Conflict, NotFound
from app.core.ids import new_id
from app.events.service import core_event, record
from app.runtime.models import Instance


async def lock_or_create(
    session: AsyncSession, driver_id: str, slug: str, readable_name: str
) -> tuple[CommunityRef, bool]:
    """The driver's community of this slug, and whether it is new. Raises Conflict `slug-taken`."""
    added = await session.scalar(
        insert(Community)
        .values(id=new_id("com"), driver_id=driver_id, slug=slug, readable_name=readable_name)
        .on_conflict_do_nothing(index_elements=["slug"])
        .returning(Community.id)
    )
    row = (await session.scalars(select(Community).where(Community.slug == slug).with_for_update())).one()
    if row.driver_id != driver_id:
        raise Conflict("this slug belongs to another driver; choose another", slug="slug-taken")
    created = added is not None or row.deleted_at is not None
    row.readable_name = readable_name
    row.deleted_at = None
    return CommunityRef(row.id, row.slug, readable_name), created


async def lock(session: AsyncSession, community_id: str) -> CommunityRef:
    """One writer per community at a time. Raises NotFound when the community was deleted meanwhile."""
    row = await session.scalar(select(Community).where(Community.id == community_id).with_for_update())
    if row is None or row.deleted_at is not None:
        raise NotFound("the community has just been deleted")
    return CommunityRef(row.id, row.slug, row.readable_name)


async def live_rows(session: AsyncSession, community_id: str) -> Sequence[Instance]:
    """A community's instances, detached."""
    query = select(Instance).where(Instance.community_id == community_id, Instance.deleted_at.is_(None))
    rows = (await session.scalars(query.order_by(Instance.id))).all()
    for row in rows:
        # They are still read when a pass has been rolled back, which would empty attached ones.
        session.expunge(row)
    return rows


async def mark(
    session: AsyncSession, driver_id: str, community: CommunityRef, ids: Sequence[str], **values: Any
) -> None:
    """Change the status of instances and tell the driver of those that were in use until now."""
    if not ids:
        return
    in_use = await session.scalars(
        select(Instance).where(Instance.id.in_(ids), Instance.status != "disabled").with_for_update()
    )
    leaving = [(row.id, row.plugin) for row in in_use]
    await session.execute(
        update(Instance)
        .where(Instance.id.in_(ids))
        .values(generation=Instance.generation + 1, updated_at=func.now(), **values)
        .execution_options(synchronize_session=False)
    )
    await record(
        session,
        [
            core_event(
                driver_id,
                community.id,
                community.slug,
                instance_id,
                "instance.disabled",
                {"plugin": plugin, "instance": instance_id, "reason": "by its driver"},
            )
            for instance_id, plugin in leaving
        ],
    )
