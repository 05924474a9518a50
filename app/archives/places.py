"""Where an instance's archive lies: under its plugin's name, and of several instances each under a name of its own."""

from __future__ import annotations

import hashlib
import re

from app.core.db import Pool
from app.host.binding import InstanceData

_PLAIN = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_TRIES = 3

# Once an archive has a name it keeps it, and so does the platform's id: an instance that is made anew goes on with it.
_NAME = """
SELECT coalesce(
    (SELECT name FROM archive_places
     WHERE community_id = i.community_id AND provider = i.plugin AND community_platform_id = i.community_platform_id),
    CASE WHEN EXISTS (SELECT FROM archive_places WHERE community_id = i.community_id AND name = i.plugin)
        OR EXISTS (SELECT FROM instances o WHERE o.community_id = i.community_id AND o.plugin = i.plugin
                   AND o.deleted_at IS NULL AND o.id COLLATE "C" < i.id)
    THEN i.plugin || '.' || $2 ELSE i.plugin END)
FROM instances i WHERE i.id = $1
"""
_CLAIM = """
INSERT INTO archive_places (community_id, provider, community_platform_id, name) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING
"""
_HELD = """
SELECT name FROM archive_places WHERE (community_id, provider, community_platform_id) = ($1, $2, $3)
"""


def provider_of(name: str) -> str:
    """The provider whose data an archive of this name holds: what stands before the first dot."""
    return name.partition(".")[0]


async def find_name(pool: Pool, instance: InstanceData) -> str:
    """The name of an instance's archive: what it has, or would get.

    `discord` for a community's first or only instance of Discord; `discord.<platform id>` for every other, with a
    digest in place of what cannot stand in a name.
    """
    found: str | None = await pool.fetchval(_NAME, instance.id, _slug(instance.community_platform_id))
    return instance.plugin if found is None else found


async def claim_name(pool: Pool, instance: InstanceData) -> str:
    """The same, and nobody else's from now on. Raises RuntimeError when others take each name first."""
    key = (instance.community_id, instance.plugin, instance.community_platform_id)
    for _ in range(_TRIES):
        name = await find_name(pool, instance)
        await pool.execute(_CLAIM, *key, name)
        if (held := await pool.fetchval(_HELD, *key)) is not None:
            return str(held)
    raise RuntimeError(f"the archive of the instance {instance.id} gets no name of its own")


def _slug(platform_id: str) -> str:
    if _PLAIN.fullmatch(platform_id):
        return platform_id
    readable = re.sub(r"[^a-z0-9]+", "-", platform_id.lower())[:40].strip("-")
    return f"{readable}-{hashlib.sha256(platform_id.encode()).hexdigest()[:12]}".lstrip("-")
