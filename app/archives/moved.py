"""Archiving what mirrors have read: a completed run whose rows are not archived yet is the word for it."""

from __future__ import annotations

import structlog
from sqlalchemy import text

from app.archives.places import claim_name
from app.archives.service import Archives
from app.archives.snapshot import Written
from app.host.binding import InstanceData
from app.mirrors.mirrors import Mirrors
from app.mirrors.source import open_source
from app.runtime import instances
from metagov_sdk.archive import ArchiveError
from metagov_sdk.provider import ProviderSpec

_log = structlog.get_logger(__name__)

_MOVED = """
SELECT m.instance_id, m.provider, i.plugin, r.id AS run
FROM mirrors m
JOIN instances i ON i.id = m.instance_id AND i.deleted_at IS NULL
CROSS JOIN LATERAL (
    SELECT id FROM mirror_runs
    WHERE instance_id = m.instance_id AND state IN ('completed', 'incomplete') ORDER BY id DESC LIMIT 1) r
LEFT JOIN archive_places p
    ON (p.community_id, p.provider, p.community_platform_id) = (i.community_id, i.plugin, i.community_platform_id)
LEFT JOIN archive_heads h ON (h.community_id, h.provider, h.url) = (i.community_id, coalesce(p.name, m.provider), $1)
WHERE h.archived_run IS DISTINCT FROM r.id
ORDER BY r.id
"""
_TURN = "SELECT pg_try_advisory_xact_lock(hashtext('archive'), hashtext(:instance))"
_ARCHIVED = """
UPDATE archive_heads SET archived_run = $4 WHERE (community_id, provider, url) = ($1, $2, $3)
"""


async def archive_moved(mirrors: Mirrors, archives: Archives) -> int:
    """Archive each mirror that a run has completed since. Returns how many were.

    One that cannot be archived is said in the log and tried again the next time; it holds up no other.
    """
    if not archives.url:
        return 0
    done = 0
    for row in await mirrors.db.pool.fetch(_MOVED, archives.url):
        try:
            done += await _archive(mirrors, archives, row["instance_id"], row["run"])
        except ArchiveError as error:
            _log.warning("a mirror could not be archived; trying again", instance=row["instance_id"], reason=str(error))
    return done


async def _archive(mirrors: Mirrors, archives: Archives, instance_id: str, run: str) -> bool:
    """Archive one mirror, unless another worker is at it."""
    found = await instances.by_id(mirrors.db.pool, mirrors.vault, instance_id)
    spec = mirrors.spec(found[0].plugin) if found is not None else None
    if found is None or spec is None:
        return False
    written = await archive_mirror(mirrors, archives, found[0], spec, run)
    if written is None:
        return False
    _log.info("mirror archived", instance=instance_id, provider=spec.name, seq=written.head.seq)
    return True


async def archive_mirror(
    mirrors: Mirrors, archives: Archives, instance: InstanceData, spec: ProviderSpec, run: str | None = None
) -> Written | None:
    """Archive a mirror as it is now; `run` is remembered as archived. None: another worker is at it."""
    async with mirrors.db.engine.connect() as connection:
        await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        if not (await connection.execute(text(_TURN), {"instance": instance.id})).scalar():
            return None
        async with open_source(mirrors.db, instance, spec) as source:
            name = await claim_name(mirrors.db.pool, instance)
            written = await archives.write(instance.community_id, source, name=name)
        if run is not None:
            await mirrors.db.pool.execute(_ARCHIVED, instance.community_id, name, archives.url, run)
    return written
