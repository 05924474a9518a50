"""HTTP for communities and plugin instances."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response, status

from app.accounts.auth import CommunityRef, DriverId, HeaderCommunity, PathCommunity
from app.core.errors import Conflict, Invalid
from app.core.ids import new_id
from app.core.paging import After, Limit
from app.installs import queries, service
from app.installs.installer import Installer
from app.installs.plan import Wanted
from app.installs.schemas import (
    CommunitiesPage,
    CommunityIn,
    CommunityOut,
    HooksOut,
    InstanceOut,
    InstancePatch,
    PluginsPage,
    Slug,
)
from app.runtime.models import Instance
from app.runtime.schemas import PlatformId

router = APIRouter(prefix="/api/internal", tags=["communities"])

_SETS_UP: dict[int | str, dict[str, Any]] = {
    409: {"description": "Not clear which instance is meant, or the platform refuses its credentials."},
    502: {"description": "The platform refused the setup."},
}

PluginName = Annotated[str, Path(max_length=64, description="The plugin's name.")]
InstanceId = Annotated[str, Path(max_length=64)]


@router.put(
    "/community/{slug}",
    operation_id="put_community",
    responses={
        **_SETS_UP,
        201: {"model": CommunityOut, "description": "Created"},
        409: {"description": "The slug is another driver's, or it is not clear which instance is meant."},
    },
)
async def put_community(
    request: Request, response: Response, driver_id: DriverId, slug: Slug, wanted: CommunityIn
) -> CommunityOut:
    """Create or update a community. `plugins`, if present, becomes its whole set: all of it, or on any error none."""
    for name in ("name", "slug"):
        if getattr(wanted, name) not in (None, slug):
            raise Invalid.field(f"/{name}", "should be equal to the slug in the path")
    return await _put(request, response, driver_id, slug, wanted)


@router.post(
    "/community",
    operation_id="create_community",
    status_code=status.HTTP_201_CREATED,
    responses={**_SETS_UP, 409: {"description": "The slug is another driver's."}},
)
async def create_community(
    request: Request, response: Response, driver_id: DriverId, wanted: CommunityIn
) -> CommunityOut:
    """Create a community, with a generated slug when none is given."""
    if wanted.name and wanted.slug and wanted.name != wanted.slug:
        raise Invalid.field("/name", "should be equal to the slug")
    slug = wanted.slug or wanted.name or new_id("community").replace("_", "-")
    answer = await _put(request, response, driver_id, slug, wanted)
    response.status_code = status.HTTP_201_CREATED
    return answer


async def _put(request: Request, response: Response, driver_id: str, slug: str, wanted: CommunityIn) -> CommunityOut:
    plugins = (
        None
        if wanted.plugins is None
        else [
            Wanted(
                plugin.name,
                plugin.config,
                plugin.community_platform_id,
                ("plugins", index),
                ("plugins", index, "name"),
            )
            for index, plugin in enumerate(wanted.plugins)
        ]
    )
    installer = _installer(request)
    community, created = await service.put_community(installer, driver_id, slug, wanted.readable_name, plugins)
    response.status_code = status.HTTP_201_CREATED if created else status.HTTP_200_OK
    return await queries.read_community(installer.db.pool, installer.host, installer.vault, community)


@router.get("/community", operation_id="list_communities")
async def list_communities(
    request: Request, driver_id: DriverId, after: After = None, limit: Limit = 50
) -> CommunitiesPage:
    """Your communities, by slug."""
    use = _installer(request)
    page, cursor = await queries.page_communities(use.db.pool, use.host, use.vault, driver_id, after, limit)
    return CommunitiesPage(communities=page, next=cursor)


@router.get("/community/{slug}", operation_id="get_community", response_model=CommunityOut)
async def get_community(request: Request, slug: str) -> Response:
    """One community with its plugin instances."""
    use = _installer(request)
    authorization = request.headers.get("authorization")
    found = await queries.read_own_community(use.db.pool, use.host, use.vault, authorization, slug)
    # Asked for often: neither a dependency nor a second validation of what was made here.
    return Response(found.model_dump_json(), media_type="application/json")


@router.delete("/community/{slug}", operation_id="delete_community", status_code=status.HTTP_204_NO_CONTENT)
async def delete_community(request: Request, caller: PathCommunity) -> None:
    """Delete a community and its instances. The slug stays yours."""
    await service.remove_community(_installer(request), *caller)


@router.get("/community/{slug}/hooks", operation_id="list_hooks")
async def list_hooks(request: Request, caller: PathCommunity) -> HooksOut:
    """The paths to give to the platforms of the community's plugins."""
    use = _installer(request)
    _, community = caller
    page, _ = await queries.page_instances(use.db.pool, use.host, use.vault, community, None, 500)
    names = sorted({instance.name for instance in page if instance.status != "disabled"})
    hooks = [
        f"/api/hooks/{community.slug}/{name}" + (f"/{slug}" if slug else "")
        for name in names
        if name in use.host.plugins.loaded
        for slug in sorted(use.host.plugins.loaded[name].manifest.webhooks)
    ]
    return HooksOut(hooks=hooks)


@router.get("/plugin", operation_id="list_instances")
async def list_instances(
    request: Request, caller: HeaderCommunity, after: After = None, limit: Limit = 50
) -> PluginsPage:
    """The community's plugin instances."""
    use = _installer(request)
    page, cursor = await queries.page_instances(use.db.pool, use.host, use.vault, caller[1], after, limit)
    return PluginsPage(plugins=page, next=cursor)


@router.post(
    "/plugin/{plugin}",
    operation_id="enable_plugin",
    status_code=status.HTTP_201_CREATED,
    responses={**_SETS_UP, 200: {"model": InstanceOut, "description": "Updated in place"}},
)
async def enable_plugin(
    request: Request,
    response: Response,
    caller: HeaderCommunity,
    plugin: PluginName,
    config: dict[str, Any],
    community_platform_id: Annotated[PlatformId | None, Query()] = None,
) -> InstanceOut:
    """Enable a plugin with a bare config, or update the instance it means."""
    use = _installer(request)
    use.host.loaded(plugin)
    wanted = Wanted(plugin, config, community_platform_id)
    instance_id, created = await service.put_plugin(use, *caller, wanted)
    response.status_code = status.HTTP_201_CREATED if created else status.HTTP_200_OK
    return await queries.read_instance(use.db.pool, use.host, use.vault, caller[1], plugin, instance_id)


@router.get("/plugin/{plugin}/{instance_id}", operation_id="get_instance")
async def get_instance(
    request: Request, caller: HeaderCommunity, plugin: PluginName, instance_id: InstanceId
) -> InstanceOut:
    """One instance."""
    use = _installer(request)
    return await queries.read_instance(use.db.pool, use.host, use.vault, caller[1], plugin, instance_id)


@router.patch("/plugin/{plugin}/{instance_id}", operation_id="update_instance", responses=_SETS_UP)
async def update_instance(
    request: Request, caller: HeaderCommunity, plugin: PluginName, instance_id: InstanceId, patch: InstancePatch
) -> InstanceOut:
    """Merge into an instance's config, enable or disable it. State and processes stay."""
    use = _installer(request)
    driver_id, community = caller
    row = await _find(use, community, plugin, instance_id)
    if patch.config is None and patch.enabled is False:
        # Whatever its config is worth to the plugin by now, it can be disabled.
        await service.disable(use, driver_id, community, row)
    elif patch.config is not None or patch.enabled:
        wanted = Wanted(plugin, patch.config or {}, None, instance_id=row.id, enabled=patch.enabled)
        if plugin not in use.host.plugins.loaded:
            raise Conflict(f"the plugin {plugin!r} is not installed any more", slug="parked")
        await service.put_plugin(use, driver_id, community, wanted)
    return await queries.read_instance(use.db.pool, use.host, use.vault, community, plugin, instance_id)


@router.delete("/plugin/{plugin}/{instance_id}", operation_id="delete_instance", status_code=status.HTTP_204_NO_CONTENT)
async def delete_instance(
    request: Request, caller: HeaderCommunity, plugin: PluginName, instance_id: InstanceId
) -> None:
    """Delete an instance with its state; its processes close."""
    use = _installer(request)
    await service.remove(use, *caller, await _find(use, caller[1], plugin, instance_id))


async def _find(use: Installer, community: CommunityRef, plugin: str, instance_id: str) -> Instance:
    async with use.db.begin() as session:
        return await service.find_instance(session, community.id, plugin, instance_id)


def _installer(request: Request) -> Installer:
    installer: Installer = request.app.state.installer
    return installer
