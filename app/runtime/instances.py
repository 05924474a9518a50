"""Reading instance rows: for one call, with everything that binds the plugin, in one statement."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg

from app.accounts.auth import Caller, CommunityRef, required_key, unknown_key
from app.core.crypto import UnreadableSecret, Vault, hash_api_key
from app.core.db import Pool
from app.core.errors import Conflict, NotFound
from app.host.binding import InstanceData

_COLUMNS = """
    i.id, i.plugin, i.community_id, c.slug, c.driver_id, i.community_platform_id, i.generation, i.status,
    i.deleted_at,
    i.config::text AS config, i.secrets, i.config_version, s.state::text AS state, s.state_version,
    clock_timestamp() AS now
"""
_FROM = """
    FROM instances i
    JOIN communities c ON c.id = i.community_id AND c.deleted_at IS NULL
    LEFT JOIN instance_states s ON s.instance_id = i.id
"""
# A deleted community's instances are still read here: their processes have to be closed.
_BY_ID = f"SELECT {_COLUMNS} {_FROM.replace('AND c.deleted_at IS NULL', '')} WHERE i.id = $1"
_BY_IDS = f"SELECT {_COLUMNS} {_FROM.replace('AND c.deleted_at IS NULL', '')} WHERE i.id = ANY($1::text[])"
_BY_COMMUNITY = f"""
    SELECT {_COLUMNS} {_FROM}
    WHERE i.community_id = $1 AND i.plugin = $2 AND i.status <> 'disabled' AND i.deleted_at IS NULL ORDER BY i.id
"""
_BY_SLUG = f"""
    SELECT {_COLUMNS} {_FROM}
    WHERE c.slug = $1 AND i.plugin = $2 AND i.status <> 'disabled' AND i.deleted_at IS NULL ORDER BY i.id
"""
# One row per instance that fits; one without an instance when none does; none when the key is wrong.
_BY_CALLER = f"""
    SELECT {_COLUMNS.replace("c.driver_id", "k.driver_id")}, c.id AS caller_community, c.readable_name
    FROM api_keys k
    LEFT JOIN communities c ON c.driver_id = k.driver_id AND c.slug = $2 AND c.deleted_at IS NULL
    LEFT JOIN instances i
        ON i.community_id = c.id AND i.plugin = $3 AND i.status <> 'disabled' AND i.deleted_at IS NULL
    LEFT JOIN instance_states s ON s.instance_id = i.id
    WHERE k.hash = $1 AND k.revoked_at IS NULL ORDER BY i.id
"""  # noqa: S608 -- constants only
_BY_PLATFORM = f"""
    SELECT {_COLUMNS} {_FROM}
    WHERE i.plugin = $1 AND i.community_platform_id = ANY($2::text[])
      AND i.status <> 'disabled' AND i.deleted_at IS NULL
    ORDER BY i.id
"""


async def by_id(pool: Pool, vault: Vault, instance_id: str) -> tuple[InstanceData, datetime] | None:
    """One instance and the database's time; None when it is gone."""
    row = await pool.fetchrow(_BY_ID, instance_id)
    return None if row is None else (_data(row, vault), row["now"])


async def by_ids(pool: Pool, vault: Vault, instance_ids: Iterable[str]) -> tuple[dict[str, InstanceData], datetime]:
    """Instances by their ids, without those that are gone or whose secrets cannot be opened; the database's time."""
    rows = await pool.fetch(_BY_IDS, list(instance_ids))
    found = {}
    for row in rows:
        with contextlib.suppress(UnreadableSecret):
            found[row["id"]] = _data(row, vault)
    return found, rows[0]["now"] if rows else datetime.now(UTC)


async def by_slug(pool: Pool, vault: Vault, slug: str, plugin: str) -> list[InstanceData]:
    """A community's instances of a plugin that are not disabled, whoever its driver is."""
    return [_data(row, vault) for row in await pool.fetch(_BY_SLUG, slug, plugin)]


async def by_platform_ids(pool: Pool, vault: Vault, plugin: str, ids: Sequence[str]) -> list[InstanceData]:
    """All communities' instances of a plugin with one of these platform ids."""
    return [_data(row, vault) for row in await pool.fetch(_BY_PLATFORM, plugin, list(ids))]


@dataclass(frozen=True, slots=True)
class Candidates:
    """A community's instances of one plugin that are not disabled."""

    plugin: str
    rows: Sequence[asyncpg.Record]

    def choose(self, vault: Vault, platform_id: str | None) -> tuple[InstanceData, datetime]:
        """The instance a request means, and the database's time when it was read.

        Raises NotFound when the plugin is not enabled, Conflict when several fit and none is named.
        """
        rows = self.rows
        if platform_id is not None:
            rows = [row for row in rows if row["community_platform_id"] == platform_id]
        if not rows:
            named = "" if platform_id is None else f" with community_platform_id {platform_id!r}"
            raise NotFound(f"the plugin {self.plugin!r} is not enabled for this community{named}")
        if len(rows) > 1:
            raise Conflict(
                f"the community has {len(rows)} instances of {self.plugin!r}; say which one with community_platform_id",
                slug="ambiguous-instance",
            )
        return _data(rows[0], vault), rows[0]["now"]


async def candidates(pool: Pool, community_id: str, plugin: str) -> Candidates:
    """What a request for a plugin of a community can mean."""
    return Candidates(plugin, await pool.fetch(_BY_COMMUNITY, community_id, plugin))


async def authenticate_with_candidates(
    pool: Pool, authorization: str | None, slug: str | None, plugin: str
) -> tuple[Caller, Candidates]:
    """`authenticate` and `candidates` in one statement. Raises Unauthenticated."""
    rows = await pool.fetch(_BY_CALLER, hash_api_key(required_key(authorization)), slug, plugin)
    if not rows:
        raise unknown_key()
    first = rows[0]
    found = first["caller_community"]
    community = None if found is None else CommunityRef(found, first["slug"], first["readable_name"])
    return Caller(first["driver_id"], community), Candidates(plugin, rows if first["id"] else [])


async def choose(
    pool: Pool, vault: Vault, community_id: str, plugin: str, platform_id: str | None
) -> tuple[InstanceData, datetime]:
    """The community's instance a request means, and the database's time. Raises as `Candidates.choose` does."""
    return (await candidates(pool, community_id, plugin)).choose(vault, platform_id)


def _data(row: asyncpg.Record, vault: Vault) -> InstanceData:
    state: Any = row["state"]
    return InstanceData(
        id=row["id"],
        plugin=row["plugin"],
        community_id=row["community_id"],
        community=row["slug"],
        driver_id=row["driver_id"],
        community_platform_id=row["community_platform_id"],
        generation=row["generation"],
        status=row["status"],
        plain=json.loads(row["config"]),
        secrets=vault.open(row["secrets"]) if row["secrets"] else {},
        config_version=row["config_version"],
        state=None if state is None else json.loads(state),
        state_version=row["state_version"] or 0,
        deleted=row["deleted_at"] is not None,
    )
