"""Instances that go out of use, torn down on their platform as well as it lets us."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from app.accounts.auth import CommunityRef
from app.core.crypto import UnreadableSecret
from app.core.db import current_time
from app.host.binding import Host, InstanceData, UnreadableInstance
from app.installs.installer import Installer
from app.installs.plan import with_state
from app.runtime.calls import PluginCrashed, run
from app.runtime.models import Instance, InstanceState
from metagov_sdk import Plugin, PluginError

_log = structlog.get_logger(__name__)


def in_use(
    installer: Installer, driver_id: str, community: CommunityRef, rows: Sequence[Instance]
) -> list[InstanceData]:
    """Those of the rows that are in use and whose plugin has something to tear down, as they are stored."""
    found = []
    for row in rows:
        if row.status == "disabled" or row.plugin not in installer.host.plugins.loaded:
            continue
        if not defines(installer.host, row.plugin, "teardown"):
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


async def tear_down(installer: Installer, leaving: Sequence[InstanceData]) -> None:
    """Tear each of them down, with its stored state. What goes wrong is logged, and stops nothing."""
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
            await tear_down_quietly(plugin, installer, data)


async def tear_down_quietly(plugin: Plugin[Any, Any, Any], installer: Installer, data: InstanceData) -> None:
    """Tear down as well as the platform lets us: an instance must be removable while its platform is away."""
    try:
        await run(plugin.teardown(), seconds=installer.timeout, what="teardown", instance=data)
    except (PluginError, PluginCrashed) as error:
        _log.warning("teardown failed; going on", plugin=data.plugin, instance=data.id, reason=str(error))


def defines(host: Host, plugin: str, method: str) -> bool:
    """Whether a plugin has a `setup` or `teardown` of its own."""
    return getattr(host.plugins.loaded[plugin].manifest.plugin, method) is not getattr(Plugin, method)
