"""The mirror of the votes plugin's platform: topics and their posts, as they stand in two files, a few to a page.

Every page that is asked for stands in a third file, whatever becomes of it.
"""

from __future__ import annotations

from typing import ClassVar

from metagov_sdk import Child, DataProvider, Manifest, Page, Place, Record, listing, log
from tests.faults.votes import Heard, News, Vote, Votes

PAGE = 3


class Topic(Record):
    """Something that is talked about."""

    table: ClassVar[str] = "topic"
    key: ClassVar[tuple[str, ...]] = ("id",)

    id: str


class Post(Record):
    """What was said of it."""

    table: ClassVar[str] = "post"
    key: ClassVar[tuple[str, ...]] = ("id",)
    partition: ClassVar[str | None] = "topic"

    id: int
    topic: str | None
    text: str | None


class Minutes(DataProvider[Votes]):
    """All that was said."""

    @listing(Topic)
    async def topics(self, place: Place) -> Page:
        """Some topics."""
        start = int(str(place.token or 0))
        self.plugin.write("asked", place=f"topics {start}")
        found = self.plugin.read("topics")
        rows = [Topic.read(each) for each in found[start : start + PAGE]]
        children = [Child("posts", row.id, row) for row in rows]
        return Page(rows, next=start + PAGE if start + PAGE < len(found) else None, children=children)

    @log(Post, parent="topics", position=lambda row: row.id)
    async def posts(self, place: Place) -> Page:
        """A topic's posts."""
        self.plugin.write("asked", place=f"posts {place.partition} {place.after}")
        after = max(place.after or 0, 0)
        found = [each for each in self.plugin.read("posts") if each["topic"] == place.partition and each["id"] > after]
        return Page([Post.read(each) for each in found[:PAGE]], next=len(found) > PAGE or None)


manifest = Manifest(Votes, processes=[Vote], events=[Heard, News], provider=Minutes)
