"""`complete_through` is never past a gap, whatever fails when: looked at after each step of random histories."""

from __future__ import annotations

import random
from datetime import datetime

import pytest

from app.mirrors.walking import sync_due
from metagov_sdk import Rejected, Retry
from tests.mirrors.conftest import Mirrored
from tests.mirrors.shelf import SHELF
from tests.mirrors.test_runs import fill, table

STEPS = 40


class History:
    """What is written on the shelf and when, by the database's clock."""

    def __init__(self, books: Mirrored, seed: int) -> None:
        self.books = books
        self.chance = random.Random(seed)
        self.written: dict[str, datetime] = {}
        self.next = 1

    async def write(self) -> None:
        """A note in some book, or a new book with one."""
        number = self.chance.randrange(max(1, len(SHELF.books)))
        if not SHELF.books or self.chance.random() < 0.2:
            number = len(SHELF.books)
            SHELF.books.append({"id": f"b{number}", "title": f"Book {number}", "owner": "ada"})
        note = {"id": self.next, "by": {"name": "bob"}, "text": f"note {self.next}"}
        SHELF.notes.setdefault(f"b{number}", []).append(note)
        self.written[str(self.next)] = await self.books.gateway.db.now()
        self.next += 1

    async def step(self) -> None:
        """Something is written; a run is asked for, or goes on for a while; some requests fail, some books are shut."""
        what = self.chance.random()
        if what < 0.35:
            await self.write()
        elif what < 0.55:
            await self.books.ask(sweep=self.chance.random() < 0.3)
        elif what < 0.65:
            SHELF.closed = {book["id"] for book in SHELF.books if self.chance.random() < 0.3}
        elif what < 0.8:
            errors = [None, None, Rejected("no"), Retry("later"), ZeroDivisionError("a fault")]
            SHELF.raises = [self.chance.choice(errors) for _ in range(6)]
            await self.books.drain()
        else:
            await self.books.hurry()
            await sync_due(self.books.use)

    async def check(self) -> str | None:
        """All that was written up to there is there; where that is."""
        stands = await self.books.status()
        through: str | None = table(stands, "note")["complete_through"]
        if through is not None:
            wanted = {note for note, at in self.written.items() if at <= datetime.fromisoformat(through)}
            missing = wanted - (await self.books.rows("note")).keys()
            assert not missing, f"complete through {through}, and without {sorted(missing)}"
        if SHELF.closed and stands["state"] == "idle":
            refused = await self.books.gateway.db.pool.fetchval(
                "SELECT count(*) FROM mirror_partitions WHERE status IN ('refused', 'failed')"
            )
            assert refused == 0, "clean, with a partition refused"
        return through


@pytest.mark.parametrize("seed", range(12))
async def test_complete_through_is_never_past_a_gap(books: Mirrored, seed: int) -> None:
    fill(0)
    history = History(books, seed)
    for _ in range(5):
        await history.write()
    await books.sync()
    known = [await history.check()]
    for _ in range(STEPS):
        await history.step()
        known.append(await history.check())
    SHELF.closed, SHELF.raises = set(), []
    await books.work()
    stands = await books.sync(sweep=True)
    assert stands["state"] == "idle"
    assert (await books.rows("note")).keys() == history.written.keys()
    first, last = known[0], await history.check()
    assert first is not None
    assert last is not None
    assert datetime.fromisoformat(first) < datetime.fromisoformat(last)
