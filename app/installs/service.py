"""Installing: PUT a community with its plugins, enable, change and remove instances. All or nothing.

Plugins' `setup` talks to platforms and therefore runs outside the transaction: plan, set up, then plan again under the
community's lock and write if the plan still holds. Plugins without a `setup` need one pass. When it cannot be written
in the end, what was set up for it is torn down again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.auth import CommunityRef
from app.accounts.models import Community
from app.core.crypto import UnreadableSecret, Vault
from app.core.db import Database, current_time
from app.core.errors import Conflict, NotFound
from app.core.ids import new_id
from app.events.service import core_event, record
from app.host.binding import Host, InstanceData, UnreadableInstance
from app.identity.service import forget_community
from app.installs.oauth.revocation import release
from app.installs.plan import Planned, Wanted, plan, with_state
from app.runtime.calls import PluginCrashed, as_problem, run
from app.runtime.emissions import Emission, commit
from app.runtime.models import Instance, InstanceState
from metagov_sdk import Credentials, Emitted, Plugin, PluginError

ResultT = TypeVar("ResultT")

_PASSES = 5

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Installer:
    """What installing needs: the database, the plugins, the keys, and how long a platform may take."""

    db: Database
    host: Host
    vault: Vault
    timeout: float


@dataclass(slots=True)
class Prepared:
    """What `setup` has done so far in one request, by identity; `made` are those that were not in use before.

    `credentials` are what it finds instead of the stored ones.
    """

    credentials: Callable[[InstanceData], Credentials] | None = None
    emitted: dict[str, Emitted] = field(default_factory=dict)
    ids: dict[tuple[str, str], str] = field(default_factory=dict)
    made: list[tuple[Plugin[Any, Any, Any], InstanceData]] = field(default_factory=list)


class _SetupFirst(Exception):
    """Rolls a pass back: these instances have to be set up on their platform before anything is written."""

    def __init__(self, planned: Sequence[Planned]) -> None:
        self.planned = planned


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
    await _tear_down(installer, leaving)
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
    await _tear_down(installer, leaving)
    if planned.after.status == "disabled":
        await release(installer.db, installer.host, community.id)
    return planned.after.id, planned.before is None


async def in_passes(
    installer: Installer,
    write: Callable[[AsyncSession, Prepared], Awaitable[ResultT]],
    prepared: Prepared | None = None,
) -> ResultT:
    """Try to write, and do what `setup` it asks for in between. A failure leaves nothing newly set up behind."""
    prepared = prepared or Prepared()
    try:
        for _ in range(_PASSES):
            try:
                async with installer.db.begin() as session:
                    return await write(session, prepared)
            except _SetupFirst as pending:
                await _set_up(installer, pending.planned, prepared)
        raise Conflict("the community is being changed by others at the same time; try again")
    except BaseException:
        for plugin, data in reversed(prepared.made):
            await _quietly(plugin, installer, data)
        raise


async def disable(installer: Installer, driver_id: str, community: CommunityRef, instance: Instance) -> None:
    """Take an instance out of use; its config, state and processes stay."""
    await _tear_down(installer, _in_use(installer, driver_id, community, [instance]))
    async with installer.db.begin() as session:
        await lock(session, community.id)
        await _mark(session, driver_id, community, [instance.id], status="disabled")
    await release(installer.db, installer.host, community.id)


async def remove(installer: Installer, driver_id: str, community: CommunityRef, instance: Instance) -> None:
    """Delete an instance; its processes close with "deleted"."""
    await _tear_down(installer, _in_use(installer, driver_id, community, [instance]))
    async with installer.db.begin() as session:
        await lock(session, community.id)
        await _mark(session, driver_id, community, [instance.id], status="disabled", deleted_at=func.now())
    await release(installer.db, installer.host, community.id)


async def remove_community(installer: Installer, driver_id: str, community: CommunityRef) -> None:
    """Delete a community with its instances and identities. Its slug stays reserved for its driver."""
    async with installer.db.begin() as session:
        rows = await live_rows(session, community.id)
    await _tear_down(installer, _in_use(installer, driver_id, community, rows))
    async with installer.db.begin() as session:
        await lock(session, community.id)
        ids = [row.id for row in await live_rows(session, community.id)]
        await _mark(session, driver_id, community, ids, status="disabled", deleted_at=func.now())
        await forget_community(session, community.id)
        await session.execute(update(Community).where(Community.id == community.id).values(deleted_at=func.now()))
    await release(installer.db, installer.host, community.id)


async def find_instance(session: AsyncSession, community_id: str, plugin: str, instance_id: str) -> Instance:
    """One of a community's instances. Raises NotFound."""
    row = await session.get(Instance, instance_id)
    if row is None or row.community_id != community_id or row.plugin != plugin or row.deleted_at is not None:
        raise NotFound(f"the community has no instance {instance_id!r} of {plugin!r}")
    return row


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


async def apply_wanted(
    session: AsyncSession,
    installer: Installer,
    driver_id: str,
    community: CommunityRef,
    wanted: Sequence[Wanted],
    prepared: Prepared,
    *,
    whole_set: bool,
) -> tuple[list[Planned], list[InstanceData]]:
    """Under the community's lock: plan, and write when every needed `setup` has been done, else raise _SetupFirst.

    Returns what was planned, and the instances that go out of use, to be torn down once this is committed.
    """
    rows = await live_rows(session, community.id)
    planned = await plan(
        session, installer.host, installer.vault, driver_id, community, rows, wanted, whole_set=whole_set
    )
    planned = [_keep_id(one, prepared) for one in planned]
    missing = [one for one in planned if _needs_setup(installer.host, one) and one.identity not in prepared.emitted]
    if missing:
        # The rollback would empty the rows that the plan holds.
        session.expunge_all()
        raise _SetupFirst(missing)
    staying = {one.after.id for one in planned if one.after.status != "disabled"}
    meant = {row.id for row in rows} if whole_set else {one.after.id for one in planned}
    leaving = [row for row in rows if row.id in meant - staying and row.status != "disabled"]
    # Taken down before anything is written: they are torn down as they were.
    torn_down = _in_use(installer, driver_id, community, leaving)
    await _mark(session, driver_id, community, [row.id for row in leaving], status="disabled")
    for one in planned:
        if one.changed:
            await _write(session, installer, one, prepared.emitted.get(one.identity))
    return planned, torn_down


def _keep_id(one: Planned, prepared: Prepared) -> Planned:
    """A new instance keeps, through all passes, the id its `setup` was told."""
    if one.before is not None:
        return one
    kept = prepared.ids.setdefault((one.after.plugin, one.after.community_platform_id), one.after.id)
    return replace(one, after=replace(one.after, id=kept))


def _needs_setup(host: Host, one: Planned) -> bool:
    return one.changed and one.after.status != "disabled" and _defines(host, one.after.plugin, "setup")


def _defines(host: Host, plugin: str, method: str) -> bool:
    return getattr(host.plugins.loaded[plugin].manifest.plugin, method) is not getattr(Plugin, method)


async def _write(session: AsyncSession, installer: Installer, one: Planned, emitted: Emitted | None) -> None:
    after = one.after
    values: dict[str, Any] = {
        "community_platform_id": after.community_platform_id,
        "config": dict(after.plain),
        "secrets": installer.vault.seal(dict(after.secrets)) if after.secrets else "",
        "config_version": after.config_version,
        "generation": after.generation,
        "status": after.status,
        "updated_at": func.now(),
    }
    if one.before is None:
        await session.execute(
            insert(Instance).values(id=after.id, community_id=after.community_id, plugin=after.plugin, **values)
        )
    else:
        await session.execute(update(Instance).where(Instance.id == after.id).values(**values))
    if emitted:
        await commit(session, installer.host, [Emission(after, emitted)])


async def _mark(
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


async def _set_up(installer: Installer, planned: Sequence[Planned], prepared: Prepared) -> None:
    """Run `setup` of each, keeping what it emitted for the pass that writes."""
    for one in planned:
        after, old = await _with_stored(installer, one)
        now = await installer.db.now()
        try:
            plugin = installer.host.bind(
                after,
                now=now,
                idempotency_key=f"setup:{after.id}:{after.generation}",
                credentials=prepared.credentials(after) if prepared.credentials else None,
            )
            await run(plugin.setup(old), seconds=installer.timeout, what="setup", instance=after)
        except (PluginError, PluginCrashed) as error:
            raise as_problem(error, after.plugin) from error
        except UnreadableInstance as error:
            raise Conflict(str(error), slug="parked") from error
        if not one.was_in_use:
            prepared.made.append((plugin, after))
        prepared.emitted[one.identity] = plugin.emitted


async def _with_stored(installer: Installer, one: Planned) -> tuple[InstanceData, Any]:
    """The instance with its stored state, and the config it is set up with (None: it is not, or unreadable)."""
    row = one.before
    if row is None:
        return one.after, None
    async with installer.db.begin() as session:
        state = await session.get(InstanceState, row.id)
    after = with_state(one.after, state.state, state.state_version) if state else one.after
    if not one.was_in_use:
        return after, None
    before = replace(after, plain=row.config, secrets=one.before_secrets, config_version=row.config_version)
    try:
        return after, installer.host.read_config(before)
    except UnreadableInstance:
        return after, None


def _in_use(
    installer: Installer, driver_id: str, community: CommunityRef, rows: Sequence[Instance]
) -> list[InstanceData]:
    """Those of the rows that are in use and whose plugin has something to tear down, as they are stored."""
    found = []
    for row in rows:
        if row.status == "disabled" or row.plugin not in installer.host.plugins.loaded:
            continue
        if not _defines(installer.host, row.plugin, "teardown"):
            continue
        try:
            secrets = installer.vault.open(row.secrets) if row.secrets else {}
        except UnreadableSecret as error:
            _log.warning("cannot be torn down; going on", plugin=row.plugin, instance=row.id, reason=str(error))
            continue
        found.append(
            InstanceData(
                id=row.id,
                plugin=row.plugin,
                community_id=community.id,
                community=community.slug,
                driver_id=driver_id,
                community_platform_id=row.community_platform_id,
                generation=row.generation,
                status=row.status,
                plain=dict(row.config),
                secrets=secrets,
                config_version=row.config_version,
                state=None,
                state_version=0,
            )
        )
    return found


async def _tear_down(installer: Installer, leaving: Sequence[InstanceData]) -> None:
    for data in leaving:
        async with installer.db.begin() as session:
            state = await session.get(InstanceState, data.id)
            now = await current_time(session)
        stored = with_state(data, state.state, state.state_version) if state else data
        try:
            plugin = installer.host.bind(stored, now=now, idempotency_key=f"teardown:{data.id}:{data.generation}")
        except UnreadableInstance as error:
            _log.warning("cannot be torn down; going on", plugin=data.plugin, instance=data.id, reason=str(error))
        else:
            await _quietly(plugin, installer, data)


async def _quietly(plugin: Plugin[Any, Any, Any], installer: Installer, data: InstanceData) -> None:
    """Tear down as well as the platform lets us: an instance must be removable while its platform is away."""
    try:
        await run(plugin.teardown(), seconds=installer.timeout, what="teardown", instance=data)
    except (PluginError, PluginCrashed) as error:
        _log.warning("teardown failed; going on", plugin=data.plugin, instance=data.id, reason=str(error))
