"""From what a driver wants to what has to change: reading and checking only, no I/O to platforms, no writes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.auth import CommunityRef
from app.core.crypto import Vault
from app.core.errors import Conflict, Invalid, NotFound
from app.core.ids import new_id
from app.host.binding import Host, InstanceData, UnreadableInstance, upgraded
from app.host.config import CheckedConfig, check_config
from app.installs.graph_inputs import check_inputs
from app.runtime.models import Instance, PlatformBinding
from metagov_sdk import Config, Manifest, Unsigned


@dataclass(frozen=True, slots=True)
class Wanted:
    """One plugin as a driver wants it. `path` is where it stands in the request, for error pointers.

    With `instance_id` that very instance is meant, and `config` is merged into its own. `enabled` None: as it is.
    `renewed`: its credentials are new, so that it is set up and written even where nothing else differs.
    """

    plugin: str
    config: dict[str, Any] = field(repr=False)
    platform_id: str | None
    path: tuple[str | int, ...] = ()
    name_path: tuple[str | int, ...] = ()
    instance_id: str | None = None
    enabled: bool | None = True
    renewed: bool = False


@dataclass(frozen=True, slots=True)
class _Stored:
    """An instance's row with its secrets in clear."""

    row: Instance
    secrets: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Planned:
    """One instance as it will be. `before` is its row as it stands (None: new)."""

    after: InstanceData
    before: Instance | None
    before_secrets: dict[str, Any] = field(repr=False)
    config: CheckedConfig
    path: tuple[str | int, ...]
    renewed: bool = False

    @property
    def changed(self) -> bool:
        """Whether anything differs from the row as it stands; an equal PUT changes nothing."""
        row = self.before
        return (row is None or self.renewed) or (
            (row.config, self.before_secrets, row.config_version, row.status == "disabled")
            != (self.config.plain, self.config.secrets, self.config.value.version, self.after.status == "disabled")
        )

    @property
    def was_in_use(self) -> bool:
        """Whether it had been set up, and not torn down since."""
        return self.before is not None and self.before.status != "disabled"

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
    *,
    whole_set: bool = False,
) -> list[Planned]:
    """Check every wanted plugin against its schema and match it with the community's rows.

    whole_set: what is not wanted goes. Raises Invalid with pointers, Conflict where it cannot be told which instance is
    meant.
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
    _check_graphs(host, rows, planned, whole_set=whole_set)
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
    own = [_Stored(row, vault.open(row.secrets) if row.secrets else {}) for row in rows if row.plugin == item.plugin]
    stored = _meant(manifest, own, item, config_path)
    row, secrets = (stored.row, stored.secrets) if stored else (None, {})
    sent = item.config if item.instance_id is None or stored is None else _merged(manifest.config, stored, item.config)
    checked = check_config(manifest.config, sent, secrets, config_path)
    platform_id = _platform_id(manifest.plugin.platform_id(checked.value), row, item, config_path)
    if any(other.row is not row and other.row.community_platform_id == platform_id for other in own):
        raise Conflict(
            f"the community has another instance of {item.plugin!r} for {platform_id!r}", slug="instance-exists"
        )
    in_use = item.enabled if item.enabled is not None else row is None or row.status != "disabled"
    after = InstanceData(
        id=row.id if row else new_id("ins"),
        plugin=item.plugin,
        community_id=community.id,
        community=community.slug,
        driver_id=driver_id,
        community_platform_id=platform_id,
        generation=(row.generation if row else 0) + 1,
        status="enabled" if in_use else "disabled",
        plain=checked.plain,
        secrets=checked.secrets,
        config_version=manifest.config.version,
        state=None,
        state_version=manifest.state.version,
    )
    return Planned(after, row, secrets, checked, config_path, item.renewed)


def _meant(manifest: Manifest, own: Sequence[_Stored], item: Wanted, path: tuple[str | int, ...]) -> _Stored | None:
    """The stored instance that is meant; None for a new one. Raises NotFound, or Conflict when it cannot be told."""
    if item.instance_id is not None:
        for stored in own:
            if stored.row.id == item.instance_id:
                return stored
        raise NotFound(f"the community has no instance {item.instance_id!r} of {item.plugin!r}")
    if item.platform_id is not None:
        return next((stored for stored in own if stored.row.community_platform_id == item.platform_id), None)
    # Which instance is meant can hang on the config, and unmasking the config on the instance: each is tried.
    derived: list[str | None] = []
    for stored in own:
        with contextlib.suppress(Invalid):
            value = check_config(manifest.config, item.config, stored.secrets, path).value
            derived.append(manifest.plugin.platform_id(value))
            if derived[-1] is not None and derived[-1] == stored.row.community_platform_id:
                return stored
    if len(own) > 1 and None in derived:
        raise Conflict(
            f"the community has {len(own)} instances of {item.plugin!r}; say which with community_platform_id",
            slug="ambiguous-instance",
        )
    return own[0] if len(own) == 1 and derived in ([], [None]) else None


def _merged(kind: type[Config], stored: _Stored, patch: dict[str, Any]) -> dict[str, Any]:
    """A patch over the whole stored config, secrets included."""
    try:
        whole = upgraded(kind, {**stored.row.config, **stored.secrets}, stored.row.config_version)
    except UnreadableInstance as error:
        raise Conflict(str(error), slug="parked") from error
    return merge(whole, patch)


def merge(stored: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """RFC 7396 over JSON objects: null removes a field, objects are merged, anything else replaces."""
    merged = dict(stored)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            below = merged.get(name)
            merged[name] = merge(below if isinstance(below, dict) else {}, value)
        else:
            merged[name] = value
    return merged


def _platform_id(derived: str | None, row: Instance | None, item: Wanted, path: tuple[str | int, ...]) -> str:
    """The instance's platform id, "" for none. Raises Invalid when the config names another than it has."""
    named = item.platform_id or (row.community_platform_id if row and item.instance_id else None)
    if named and derived is not None and derived != named:
        raise Invalid.found([(path, f"the config is for {derived!r}, and the instance's id is {named!r}")])
    return named or derived or (row.community_platform_id if row else "")


def _check_graphs(host: Host, rows: Sequence[Instance], planned: Sequence[Planned], *, whole_set: bool) -> None:
    """Whether what rule sets take in can be, with those of the community that stay as they are."""
    rule_sets = {name for name, loaded in host.plugins.loaded.items() if loaded.manifest.graph is not None}
    changed = [
        (one.after.plugin, one.config.value, one.path)
        for one in planned
        if one.after.plugin in rule_sets and one.after.status != "disabled"
    ]
    if not changed:
        return
    ids = {one.after.id for one in planned}
    staying: list[tuple[str, object]] = []
    for row in rows:
        if row.plugin in rule_sets and row.id not in ids and row.status != "disabled" and not whole_set:
            kind = host.plugins.loaded[row.plugin].manifest.config
            # One that cannot be read any more is no part of a circle: its graph is not built either.
            with contextlib.suppress(ValueError, UnreadableInstance):
                staying.append((row.plugin, kind.model_validate(upgraded(kind, row.config, row.config_version))))
    check_inputs(host, [*staying, *((plugin, config) for plugin, config, _ in changed)], changed)


async def _check_bindings(session: AsyncSession, host: Host, planned: Sequence[Planned]) -> None:
    for one in planned:
        manifest = host.plugins.loaded[one.after.plugin].manifest
        if not one.after.community_platform_id:
            continue
        if not manifest.plugin.needs_binding(one.config.value) and not _leans(host, manifest, one.after):
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


def _leans(host: Host, manifest: Manifest, data: InstanceData) -> bool:
    """Whether webhooks of a shared URL would be taken for the instance's by the operator's secret."""
    return any(
        hook.shared and not isinstance(hook.verify, Unsigned) and not host.owns_secret(data, hook.verify.secret)
        for hook in manifest.webhooks.values()
    )


def with_state(data: InstanceData, state: dict[str, Any] | None, version: int) -> InstanceData:
    """The same instance with its stored state."""
    return replace(data, state=state, state_version=version)
