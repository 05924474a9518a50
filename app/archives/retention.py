"""What killed writers have left in archives."""

from __future__ import annotations

from datetime import timedelta

import structlog

from app.archives.service import Archives
from app.archives.stores import KeepsScratch
from app.core.db import Database
from metagov_sdk.archive import ArchiveError

ABANDONED = timedelta(days=1)
"""No writer takes that long over one object."""

_NAMED = """
SELECT c.slug, named.name FROM (
    SELECT community_id, name FROM archive_places
    UNION SELECT community_id, provider FROM archive_heads WHERE url = $1
) AS named JOIN communities c ON c.id = named.community_id ORDER BY 1, 2
"""

_log = structlog.get_logger(__name__)


async def sweep_scratch(db: Database, archives: Archives) -> int:
    """Remove the files that writers were in the middle of when they died, a day ago or more. Returns how many.

    An archive that cannot be reached is said in the log, and swept the next time.
    """
    if not archives.url:
        return 0
    removed = 0
    for row in await db.pool.fetch(_NAMED, archives.url):
        try:
            async with archives.store(row["slug"], row["name"]) as archive:
                if isinstance(archive, KeepsScratch):
                    removed += await archive.sweep_scratch(ABANDONED)
        except ArchiveError as error:
            _log.warning("an archive could not be tidied up", community=row["slug"], reason=str(error))
    if removed:
        _log.info("what killed writers of archives had left was removed", files=removed)
    return removed
