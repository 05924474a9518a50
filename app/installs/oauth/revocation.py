"""Tokens that nobody needs any more: removed here, and revoked at the platform as well as it lets us."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import structlog

from app.core.batches import delete_in_batches
from app.core.crypto import UnreadableSecret
from app.core.db import Database
from app.host.binding import Host
from app.installs.oauth.grants import read_given
from app.runtime.calls import PluginCrashed, ask
from app.runtime.credentials import read_token
from metagov_sdk import Installed, PluginError, Token

_TIMEOUT = 10.0
_AT_ONCE = 50
_log = structlog.get_logger(__name__)

_RELEASE = """
DELETE FROM credentials c USING instances i
WHERE c.instance_id = i.id AND (i.status = 'disabled' OR i.deleted_at IS NOT NULL)
  AND ($1::text IS NULL OR i.community_id = $1)
RETURNING i.plugin, i.community_platform_id, c.source, c.sealed
"""
_DROP_GRANTS = """
DELETE FROM oauth_grants WHERE state_hash = ANY(ARRAY(
    SELECT state_hash FROM oauth_grants
    WHERE expires_at < clock_timestamp() AND (lease_until IS NULL OR lease_until < clock_timestamp())
    LIMIT $1 FOR UPDATE SKIP LOCKED
))
RETURNING plugin, community_platform_id, type, sealed
"""
# Platforms give the same token for the same workspace again: what is void for one would be void for all.
_IN_USE = """
SELECT EXISTS (
    SELECT FROM instances
    WHERE plugin = $1 AND community_platform_id = $2 AND deleted_at IS NULL AND status <> 'disabled'
) OR EXISTS (
    SELECT FROM oauth_grants
    WHERE plugin = $1 AND community_platform_id = $2 AND type = 'app' AND sealed IS NOT NULL
      AND expires_at > clock_timestamp()
)
"""


async def revoke(db: Database, host: Host, plugin: str, platform_id: str, tokens: Iterable[Token]) -> None:
    """Revoke tokens of a workspace, unless an instance or a waiting grant has the same workspace. Raises nothing."""
    loaded = host.plugins.loaded.get(plugin)
    if loaded is None or loaded.manifest.oauth is None or await db.pool.fetchval(_IN_USE, plugin, platform_id):
        return
    for token in tokens:
        try:
            await ask(host.oauth(plugin).revoke(token), seconds=_TIMEOUT, what="revoking a token", plugin=plugin)
        except (PluginError, PluginCrashed) as error:
            _log.warning("a token could not be revoked; going on", plugin=plugin, reason=str(error))


async def release(db: Database, host: Host, community_id: str | None = None) -> None:
    """Remove the credentials of disabled and deleted instances (of one community), and revoke what OAuth gave."""
    by_workspace: dict[tuple[str, str], list[Token]] = {}
    for row in await db.pool.fetch(_RELEASE, community_id):
        if row["source"] == "oauth" and (stored := _open(host, row["sealed"])) is not None:
            by_workspace.setdefault((row["plugin"], row["community_platform_id"]), []).append(read_token(stored))
    for (plugin, platform_id), tokens in by_workspace.items():
        await revoke(db, host, plugin, platform_id, tokens)


async def drop_grants(db: Database, host: Host) -> None:
    """Forget returns whose time is over; revoke what no driver came for."""
    rows = await db.pool.fetch(_DROP_GRANTS, _AT_ONCE)
    unclaimed = []
    for row in rows:
        if row["sealed"] is None or row["type"] != "app" or (stored := _open(host, row["sealed"])) is None:
            continue
        given = read_given(stored, 0)
        if isinstance(given, Installed):
            tokens = given.credentials.values()
            unclaimed.append(revoke(db, host, row["plugin"], given.community_platform_id, tokens))
    await asyncio.gather(*unclaimed)


async def drop_credentials(db: Database, host: Host) -> None:
    """Drop tokens that are void or whose instance is gone."""
    await release(db, host)
    await delete_in_batches(
        db,
        "credentials",
        "expires_at < now() - interval '1 hour' AND source <> 'oauth' AND NOT refreshable",
    )
    # Of a setup that failed, of an instance that was never written.
    await delete_in_batches(
        db,
        "credentials",
        "updated_at < now() - interval '1 day' AND NOT EXISTS ("
        "SELECT FROM instances i WHERE i.id = credentials.instance_id)",
    )


def _open(host: Host, sealed: str) -> Any:
    try:
        return host.vault.open(sealed)
    except UnreadableSecret as error:
        _log.warning("a token cannot be revoked; going on", reason=str(error))
        return None
