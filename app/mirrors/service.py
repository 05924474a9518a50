"""What drivers ask of mirrors."""

from __future__ import annotations

from app.core.errors import Conflict, NotFound
from app.host.binding import InstanceData
from app.mirrors.mirrors import Mirrors
from app.mirrors.runs import QUEUE, ask_for_run
from app.mirrors.status import MirrorStatus, read_status
from app.runtime import instances
from metagov_sdk.provider import ProviderSpec

# Locked in the order in which pages lock what they name.
_ASK_AGAIN = """
WITH refused AS (
    SELECT id FROM mirror_partitions WHERE instance_id = $1 AND ask_again_at IS NOT NULL ORDER BY walk, key FOR UPDATE)
UPDATE mirror_partitions p SET ask_again_at = NULL FROM refused WHERE p.id = refused.id
"""


async def find_instance(
    use: Mirrors, community_id: str, plugin: str, platform_id: str | None
) -> tuple[InstanceData, ProviderSpec]:
    """The community's instance that is meant. Raises NotFound, Conflict when several fit."""
    spec = use.spec(plugin)
    if spec is None:
        raise NotFound(f"there is no plugin {plugin!r} that mirrors its platform; `metagov plugins` lists them")
    instance, _ = await instances.choose(use.db.pool, use.vault, community_id, plugin, platform_id)
    return instance, spec


async def sync(use: Mirrors, community_id: str, plugin: str, platform_id: str | None, *, sweep: bool) -> MirrorStatus:
    """Have the platform read. Raises NotFound, and Conflict while it cannot be."""
    instance, spec = await find_instance(use, community_id, plugin, platform_id)
    if instance.status != "enabled":
        raise Conflict(f"the instance is {instance.status}; it is mirrored once it is enabled", slug=instance.status)
    if (reason := await use.pending(spec.name)) is not None:
        raise Conflict(reason, slug="migration-pending")
    # Whoever asks may have let us in just now.
    await use.db.pool.execute(_ASK_AGAIN, instance.id)
    async with use.db.begin() as session:
        await ask_for_run(session, instance, spec, sweep=sweep)
        status = await read_status(session, instance.id, spec)
    use.wake.poke(QUEUE)
    return status


async def status(use: Mirrors, community_id: str, plugin: str, platform_id: str | None) -> MirrorStatus:
    """How the mirror stands. Raises NotFound."""
    instance, spec = await find_instance(use, community_id, plugin, platform_id)
    async with use.db.begin() as session:
        return await read_status(session, instance.id, spec)


async def find_instances(use: Mirrors, plugin: str, community: str | None) -> list[InstanceData]:
    """A plugin's instances, disabled ones too: of one community by its slug, or of all. Raises NotFound for none."""
    rows = await use.db.pool.fetch(
        "SELECT i.id FROM instances i JOIN communities c ON c.id = i.community_id "
        "WHERE i.plugin = $1 AND ($2::text IS NULL OR c.slug = $2) ORDER BY i.id",
        plugin,
        community,
    )
    found, _ = await instances.by_ids(use.db.pool, use.vault, [row["id"] for row in rows])
    if not found:
        where = "" if community is None else f" in a community with the slug {community!r}"
        raise NotFound(f"there is no instance of {plugin!r}{where}")
    return [found[row["id"]] for row in rows if row["id"] in found]
