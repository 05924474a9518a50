"""A mirror that is read and archived while its worker dies at a kill point, and how it has to look in the end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.archives.read import VerifiedReader, open_archive
from app.archives.stores.filesystem import FilesystemArchive
from app.core.killpoints import KillPoint
from tests.faults.clones import VotesRig
from tests.faults.flows import PATIENCE, Resumed, column, taken_up
from tests.faults.rig import until

TOPICS, POSTS = 7, 11
_AT_ONCE = 8
"""Pages in hand, METAGOV_MIRROR_PAGES_AT_ONCE by default: each of them may be asked for a second time."""
_ARCHIVED = """
SELECT count(*) FROM mirror_runs r JOIN archive_heads h ON h.archived_run = r.id WHERE r.state = 'completed'
"""


async def mirror(rig: VotesRig, point: KillPoint) -> Resumed:
    """A platform is read into tables, and these are archived."""
    rig.start_doomed("worker", point)
    await sync(rig)
    await rig.died("worker", point)
    resumed = await taken_up(rig)

    async def archived() -> bool:
        return await rig.count(_ARCHIVED) == 1

    # A run whose last worker died is closed by a look that is had twice a minute, and archived by another.
    await until(archived, 2 * PATIENCE, "the run is over and archived")
    await _check_tables(rig)
    await _check_archive(rig)
    return resumed


async def sync(rig: VotesRig) -> None:
    """Put topics and posts on the platform, and have it read."""
    topics = [{"id": f"t{number}"} for number in range(TOPICS)]
    posts = [
        {"id": number, "topic": f"t{number % TOPICS}", "text": f"post {number}"}
        for number in range(1, TOPICS * POSTS + 1)
    ]
    for file, lines in (("topics", topics), ("posts", posts)):
        (rig.platform / file).write_text("".join(json.dumps(line) + "\n" for line in lines))
    async with rig.client() as http:
        asked = await http.post("/api/internal/mirror/votes/sync", json={"sweep": True})
    assert asked.status_code == 202, asked.text


async def _check_tables(rig: VotesRig) -> None:
    rows = await rig.rows("SELECT id, topic, text FROM mirror_votes.post WHERE deleted_at IS NULL ORDER BY id")
    assert [dict(row) for row in rows] == [
        {"id": line["id"], "topic": line["topic"], "text": line["text"]} for line in rig.on_platform("posts")
    ]
    counted = await rig.rows(
        "SELECT tally.name, sum(tally.grown::int) "
        "FROM mirror_partitions p, jsonb_each_text(p.rows) AS tally(name, grown) GROUP BY 1 ORDER BY 1"
    )
    assert [tuple(row) for row in counted] == [("post", TOPICS * POSTS), ("topic", TOPICS)], "each counted once"
    assert await column(rig, "SELECT state FROM mirror_runs") == ["completed"]
    told = await column(rig, "SELECT event_type FROM events WHERE event_type LIKE 'mirror.%'")
    assert told == ["mirror.completed"], "told once"
    asked = Counter(line["place"] for line in rig.on_platform("asked"))
    twice = [place for place, times in asked.items() if times > 1]
    assert max(asked.values()) <= 2, "no page a third time"
    assert len(twice) <= _AT_ONCE, f"asked for again: {twice}"


async def _check_archive(rig: VotesRig) -> None:
    assert await column(rig, "SELECT seq FROM archive_heads") == [1], "one snapshot, and the database knows of it"
    async with opened(rig) as reader:
        assert reader.head.seq == 1
        assert await reader.verify() == TOPICS * (POSTS + 1)
    left = list((rig.log.parent / "archives").rglob(".*"))
    assert left == [], "no half-written file"


@asynccontextmanager
async def opened(rig: VotesRig) -> AsyncIterator[VerifiedReader]:
    """The rig's archive."""
    yield await open_archive(FilesystemArchive(rig.log.parent / "archives/town/votes"), "votes", "town")
