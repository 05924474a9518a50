"""Writing what is wanted of a community's plugins, all or nothing, in as many passes as it takes.

Plugins' `setup` talks to platforms and therefore runs outside the transaction: plan, set up, then plan again under the
community's lock and write if the plan still holds. Plugins without a `setup` need one pass. When it cannot be written
in the end, what was set up for it is torn down again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.auth import CommunityRef
from app.core.errors import Conflict
from app.host.binding import Host, InstanceData, UnreadableInstance
from app.installs.communities import live_rows, mark
from app.installs.installer import Installer
from app.installs.plan import Planned, Wanted, plan, with_state
from app.installs.teardown import defines, in_use, tear_down_quietly
from app.runtime.calls import PluginCrashed, as_problem, run
from app.runtime.emissions import Emission, commit
from app.runtime.models import Instance, InstanceState
from metagov_sdk import Credentials, Emitted, Plugin, PluginError

ResultT = TypeVar("ResultT")

_PASSES = 5


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
            await tear_down_quietly(plugin, installer, data)
        raise


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
    torn_down = in_use(installer, driver_id, community, leaving)
    await mark(session, driver_id, community, [row.id for row in leaving], status="disabled")
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
    return one.changed and one.after.status != "disabled" and defines(host, one.after.plugin, "setup")


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
