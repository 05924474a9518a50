"""Installing: PUT a community with its plugins, enable, change and remove instances."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.auth import CommunityRef
from app.accounts.models import Community
from app.core.errors import NotFound
from app.host.binding import InstanceData
from app.identity.service import forget_community
from app.installs.communities import live_rows, lock, lock_or_create, mark
from app.installs.installer import Installer
from app.installs.oauth.revocation import release
from app.installs.passes import Prepared, apply_wanted, in_passes
from app.installs.plan import Planned, Wanted
from app.installs.teardown import in_use, tear_down
from app.runtime.models import Instance


async def put_community(
    installer: Installer,
    driver_id: str,
    slug: str,
    readable_name: str,
    wanted: Sequence[Wanted] | None,
) -> tuple[CommunityRef, bool]:
    """Create or update a community; `wanted` (if given) becomes its whole set of plugins.

    Returns the community and whether it is new. Raises Conflict `slug-taken` for another driver's slug.
    """

    async def write(session: AsyncSession, prepared: Prepared) -> tuple[CommunityRef, bool, list[InstanceData]]:
        community, created = await lock_or_create(session, driver_id, slug, readable_name)
        leaving: list[InstanceData] = []
        if wanted is not None:
            _, leaving = await apply_wanted(session, installer, driver_id, community, wanted, prepared, whole_set=True)
        return community, created, leaving

    community, created, leaving = await in_passes(installer, write)
    await tear_down(installer, leaving)
    if wanted is not None:
        await release(installer.db, installer.host, community.id)
    return community, created


async def put_plugin(installer: Installer, driver_id: str, community: CommunityRef, wanted: Wanted) -> tuple[str, bool]:
    """Enable one plugin, or change the instance that is meant. Returns the instance's id and whether it is new."""

    async def write(session: AsyncSession, prepared: Prepared) -> tuple[Planned, list[InstanceData]]:
        await lock(session, community.id)
        planned, leaving = await apply_wanted(
            session, installer, driver_id, community, [wanted], prepared, whole_set=False
        )
        return planned[0], leaving

    planned, leaving = await in_passes(installer, write)
    await tear_down(installer, leaving)
    if planned.after.status == "disabled":
        await release(installer.db, installer.host, community.id)
    return planned.after.id, planned.before is None


async def disable(installer: Installer, driver_id: str, community: CommunityRef, instance: Instance) -> None:
    """Take an instance out of use; its config, state and processes stay."""
    await tear_down(installer, in_use(installer, driver_id, community, [instance]))
    async with installer.db.begin() as session:
        await lock(session, community.id)
        await mark(session, driver_id, community, [instance.id], status="disabled")
    await release(installer.db, installer.host, community.id)


async def remove(installer: Installer, driver_id: str, community: CommunityRef, instance: Instance) -> None:
    """Delete an instance; its processes close with "deleted"."""
    await tear_down(installer, in_use(installer, driver_id, community, [instance]))
    async with installer.db.begin() as session:
        await lock(session, community.id)
        await mark(session, driver_id, community, [instance.id], status="disabled", deleted_at=func.now())
    await release(installer.db, installer.host, community.id)


async def remove_community(installer: Installer, driver_id: str, community: CommunityRef) -> None:
    """Delete a community with its instances and identities. Its slug stays reserved for its driver."""
    async with installer.db.begin() as session:
        rows = await live_rows(session, community.id)
    await tear_down(installer, in_use(installer, driver_id, community, rows))
    async with installer.db.begin() as session:
        await lock(session, community.id)
        ids = [row.id for row in await live_rows(session, community.id)]
        await mark(session, driver_id, community, ids, status="disabled", deleted_at=func.now())
        await forget_community(session, community.id)
        await session.execute(update(Community).where(Community.id == community.id).values(deleted_at=func.now()))
    await release(installer.db, installer.host, community.id)


async def find_instance(session: AsyncSession, community_id: str, plugin: str, instance_id: str) -> Instance:
    """One of a community's instances. Raises NotFound."""
    row = await session.get(Instance, instance_id)
    if row is None or row.community_id != community_id or row.plugin != plugin or row.deleted_at is not None:
        raise NotFound(f"the community has no instance {instance_id!r} of {plugin!r}")
    return row
