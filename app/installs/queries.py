"""Reading communities with their instances, one statement per answer."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import asyncpg

from app.accounts.auth import NO_COMMUNITY, CommunityRef, required_key, unknown_key
from app.core.crypto import Vault, hash_api_key
from app.core.db import Pool
from app.core.errors import NotFound
from app.core.paging import decode_cursor, encode_cursor
from app.host.binding import Host
from app.host.config import masked
from app.installs.schemas import CommunityOut, InstanceOut

_COLUMNS = "i.id, i.plugin, i.config::text AS config, i.secrets, i.community_platform_id, i.status"
_INSTANCES = f"""
    SELECT {_COLUMNS} FROM instances i
    WHERE i.community_id = $1 AND i.deleted_at IS NULL AND i.id > $2 ORDER BY i.id LIMIT $3
"""  # noqa: S608 -- constants only
_ONE = f"""
    SELECT {_COLUMNS} FROM instances i
    WHERE i.community_id = $1 AND i.plugin = $2 AND i.id = $3 AND i.deleted_at IS NULL
"""  # noqa: S608 -- constants only
# One row per instance; one without an instance when there is none; none when the key is wrong.
_OWN_COMMUNITY = f"""
    SELECT c.slug, c.readable_name, {_COLUMNS}
    FROM api_keys k
    LEFT JOIN communities c ON c.driver_id = k.driver_id AND c.slug = $2 AND c.deleted_at IS NULL
    LEFT JOIN instances i ON i.community_id = c.id AND i.deleted_at IS NULL
    WHERE k.hash = $1 AND k.revoked_at IS NULL ORDER BY i.id
"""  # noqa: S608 -- constants only
_COMMUNITIES = f"""
    SELECT c.slug, c.readable_name, {_COLUMNS}
    FROM (
        SELECT id, slug, readable_name FROM communities
        WHERE driver_id = $1 AND deleted_at IS NULL AND slug > $2 ORDER BY slug LIMIT $3
    ) c
    LEFT JOIN instances i ON i.community_id = c.id AND i.deleted_at IS NULL
    ORDER BY c.slug, i.id
"""  # noqa: S608 -- constants only
_ALL = 10_000


async def read_community(pool: Pool, host: Host, vault: Vault, community: CommunityRef) -> CommunityOut:
    """A community as drivers see it."""
    rows = await pool.fetch(_INSTANCES, community.id, "", _ALL)
    return _community(host, vault, community.slug, community.readable_name, rows)


async def read_own_community(
    pool: Pool, host: Host, vault: Vault, authorization: str | None, slug: str
) -> CommunityOut:
    """The calling driver's community of this slug, in one statement. Raises Unauthenticated or NotFound."""
    rows = await pool.fetch(_OWN_COMMUNITY, hash_api_key(required_key(authorization)), slug)
    if not rows:
        raise unknown_key()
    if rows[0]["slug"] is None:
        raise NotFound(NO_COMMUNITY)
    return _community(host, vault, slug, rows[0]["readable_name"], rows)


async def page_communities(
    pool: Pool, host: Host, vault: Vault, driver_id: str, after: str | None, limit: int
) -> tuple[list[CommunityOut], str | None]:
    """A page of a driver's communities, by slug."""
    position = decode_cursor(after, (str,), of="communities") or [""]
    grouped: dict[str, list[asyncpg.Record]] = {}
    for row in await pool.fetch(_COMMUNITIES, driver_id, position[0], limit + 1):
        grouped.setdefault(row["slug"], []).append(row)
    slugs = list(grouped)
    page = [_community(host, vault, slug, grouped[slug][0]["readable_name"], grouped[slug]) for slug in slugs[:limit]]
    return page, encode_cursor([slugs[limit - 1]], of="communities") if len(slugs) > limit else None


async def page_instances(
    pool: Pool, host: Host, vault: Vault, community: CommunityRef, after: str | None, limit: int
) -> tuple[list[InstanceOut], str | None]:
    """A page of a community's instances."""
    position = decode_cursor(after, (str,), of="plugins") or [""]
    rows = await pool.fetch(_INSTANCES, community.id, position[0], limit + 1)
    page = [_instance(host, vault, community.slug, row) for row in rows[:limit]]
    return page, encode_cursor([page[-1].id], of="plugins") if len(rows) > limit else None


async def read_instance(
    pool: Pool, host: Host, vault: Vault, community: CommunityRef, plugin: str, instance_id: str
) -> InstanceOut:
    """One of a community's instances. Raises NotFound."""
    row = await pool.fetchrow(_ONE, community.id, plugin, instance_id)
    if row is None:
        raise NotFound(f"the community has no instance {instance_id!r} of {plugin!r}")
    return _instance(host, vault, community.slug, row)


def _community(host: Host, vault: Vault, slug: str, readable_name: str, rows: Iterable[asyncpg.Record]) -> CommunityOut:
    plugins = [_instance(host, vault, slug, row) for row in rows if row["id"] is not None]
    return CommunityOut(slug=slug, name=slug, readable_name=readable_name, plugins=plugins)


def _instance(host: Host, vault: Vault, slug: str, row: asyncpg.Record) -> InstanceOut:
    loaded = host.plugins.loaded.get(row["plugin"])
    secrets: dict[str, Any] = vault.open(row["secrets"]) if row["secrets"] else {}
    return InstanceOut.model_validate(
        {
            "id": row["id"],
            "name": row["plugin"],
            "config": masked(json.loads(row["config"]), secrets),
            "community": slug,
            "community_platform_id": row["community_platform_id"] or None,
            "auth_type": loaded.manifest.auth_type if loaded else "none",
            # A row whose plugin is no longer installed can do nothing, and says so.
            "status": row["status"] if loaded or row["status"] == "disabled" else "error",
        }
    )
