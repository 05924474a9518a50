"""From what a driver wants to what has to change: reading and checking only, no I/O to platforms, no writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.auth import CommunityRef
from app.core.crypto import Vault
from app.core.errors import Conflict, Invalid
from app.core.ids import new_id
from app.host.binding import Host, InstanceData
from app.host.config import CheckedConfig, check_config
from app.runtime.models import Instance, PlatformBinding


@dataclass(frozen=True, slots=True)
class Wanted:
    """One plugin as a driver wants it. `path` is where it stands in the request, for error pointers."""

    plugin: str
    config: dict[str, Any]
    platform_id: str | None
    path: tuple[str | int, ...] = ()
    name_path: tuple[str | int, ...] = ()


@dataclass(frozen=True, slots=True)
class Planned:
    """One instance as it will be. `before` is its row as it stands (None: new)."""

    after: InstanceData
    before: Instance | None
    before_secrets: dict[str, Any]
    config: CheckedConfig
    path: tuple[str | int, ...]

    @property
    def changed(self) -> bool:
        """Whether anything differs from the row as it stands; an equal PUT changes nothing."""
        row = self.before
        return row is None or (
            (row.config, self.before_secrets, row.config_version, row.status == "disabled")
            != (self.config.plain, self.config.secrets, self.config.value.version, False)
        )

    @property
    def identity(self) -> str:
        """What its `setup` is about: plugin, platform id and config."""
        return json.dumps(
            [self.after.plugin, self.after.community_platform_id, self.config.plain, self.config.secrets],
            sort_keys=True,
        )


async def plan(
    session: AsyncSession,
    host: Host,
    vault: Vault,
    driver_id: str,
    community: CommunityRef,
    rows: Sequence[Instance],
    wanted: Sequence[Wanted],
) -> list[Planned]:
    """Check every wanted plugin against its schema and match it with the community's rows.

    Raises Invalid with pointers, Conflict where it cannot be told which instance is meant.
    """
    planned: list[Planned] = []
    taken: set[tuple[str, str]] = set()
    for item in wanted:
        one = _plan_one(host, vault, driver_id, community, rows, item)
        identity = (one.after.plugin, one.after.community_platform_id)
        if identity in taken:
            raise Invalid.found([(item.path, "names the same plugin and community_platform_id twice")])
        taken.add(identity)
        planned.append(one)
    await _check_bindings(session, host, planned)
    return planned


def _plan_one(
    host: Host,
    vault: Vault,
    driver_id: str,
    community: CommunityRef,
    rows: Sequence[Instance],
    item: Wanted,
) -> Planned:
    loaded = host.plugins.loaded.get(item.plugin)
    if loaded is None:
        raise Invalid.found([(item.name_path, f"there is no plugin named {item.plugin!r}")])
    manifest = loaded.manifest
    config_path = (*item.path, "config") if item.path else ()
    own = [row for row in rows if row.plugin == item.plugin]
    # Which row is meant can hang on the config, and unmasking the config on the row: the id is derived first.
    row = _match(own, item, item.platform_id)
    stored = vault.open(row.secrets) if row and row.secrets else {}
    checked = check_config(manifest.config, item.config, stored, config_path)
    derived = manifest.plugin.platform_id(checked.value)
    if item.platform_id is None and derived is not None:
        exact = next((other for other in own if other.community_platform_id == derived), None)
        if exact is not row:
            row = exact
            stored = vault.open(row.secrets) if row and row.secrets else {}
            checked = check_config(manifest.config, item.config, stored, config_path)
    elif item.platform_id is not None and derived is not None and derived != item.platform_id:
        raise Invalid.found(
            [(config_path, f"the config is for {derived!r}, community_platform_id says {item.platform_id!r}")]
        )
    if item.platform_id is None and derived is None and row is None and len(own) > 1:
        raise Conflict(
            f"the community has {len(own)} instances of {item.plugin!r}; say which with community_platform_id",
            slug="ambiguous-instance",
        )
    platform_id = item.platform_id or derived or (row.community_platform_id if row else "")
    after = InstanceData(
        id=row.id if row else new_id("ins"),
        plugin=item.plugin,
        community_id=community.id,
        community=community.slug,
        driver_id=driver_id,
        community_platform_id=platform_id,
        generation=(row.generation if row else 0) + 1,
        status="enabled",
        plain=checked.plain,
        secrets=checked.secrets,
        config_version=manifest.config.version,
        state=None,
        state_version=manifest.state.version,
    )
    return Planned(after, row, stored, checked, config_path)


def _match(own: Sequence[Instance], item: Wanted, platform_id: str | None) -> Instance | None:
    if platform_id is not None:
        return next((row for row in own if row.community_platform_id == platform_id), None)
    return own[0] if len(own) == 1 else None


async def _check_bindings(session: AsyncSession, host: Host, planned: Sequence[Planned]) -> None:
    for one in planned:
        manifest = host.plugins.loaded[one.after.plugin].manifest
        if not one.after.community_platform_id or not manifest.plugin.needs_binding(one.config.value):
            continue
        bound = await session.scalar(
            select(PlatformBinding.plugin).where(
                PlatformBinding.community_id == one.after.community_id,
                PlatformBinding.plugin == one.after.plugin,
                PlatformBinding.community_platform_id == one.after.community_platform_id,
            )
        )
        if bound is None:
            raise Invalid.found(
                [
                    (
                        one.path,
                        f"{one.after.community_platform_id!r} is not bound to this community: give the platform's own "
                        "credentials in the config, complete the OAuth install, or have the operator run "
                        f"`metagov instance bind {one.after.community} {one.after.plugin} "
                        f"{one.after.community_platform_id}`",
                    )
                ]
            )


def with_state(data: InstanceData, state: dict[str, Any] | None, version: int) -> InstanceData:
    """The same instance with its stored state."""
    return replace(data, state=state, state_version=version)
