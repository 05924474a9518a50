"""A plugin with a mirror whose platform is a few lists in memory: books, their notes, and who likes which."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar

from pydantic import JsonValue

from metagov_sdk import (
    Child,
    Config,
    DataProvider,
    Dirty,
    HookRequest,
    Manifest,
    NoAccess,
    Page,
    Place,
    Plugin,
    Record,
    at,
    detail,
    hmac_sha256,
    listing,
    log,
    lookup,
    setting,
    webhook,
)
from metagov_sdk.models import NoState, Settings

PAGE = 3


@dataclass(slots=True)
class Shelf:
    """The platform. `raises` is what the next requests meet, in order; None: nothing."""

    books: list[Any] = field(default_factory=list)
    notes: dict[str, list[Any]] = field(default_factory=dict)
    likes: dict[str, list[str]] = field(default_factory=dict)
    raises: list[Exception | None] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    newest_first: bool = False
    closed: set[str] = field(default_factory=set)
    """Books that the reader may not open."""

    def reset(self) -> None:
        fresh = Shelf()
        self.books, self.notes, self.likes = fresh.books, fresh.notes, fresh.likes
        self.raises, self.asked, self.newest_first, self.closed = fresh.raises, fresh.asked, False, fresh.closed

    def ask(self, what: str) -> None:
        self.asked.append(what)
        if self.raises and (error := self.raises.pop(0)) is not None:
            raise error


SHELF = Shelf()


class Book(Record):
    """A book."""

    table = "book"
    key = ("id",)
    people = ("owner",)

    id: str
    title: str | None
    owner: str | None
    pages: int | None


class Note(Record):
    """A note in a book."""

    table = "note"
    key = ("id",)
    partition = "book_id"
    time = "written_at"
    people = ("author",)
    ignored = ("likes",)

    id: int
    book_id: str | None
    author: str | None = at("by", "name")
    text: str | None
    written_at: datetime | None
    tags: list[str] | None
    draft: bool | None
    mood: JsonValue


class Like(Record):
    """Somebody likes a note."""

    table = "liked"
    key = ("note_id", "who")
    people = ("who",)

    note_id: int
    who: str


class ShelfConfig(Config):
    """Nothing."""


class ShelfSettings(Settings):
    """The hook's secret."""

    webhook_secret: str = "shelf"


class ShelfPlugin(Plugin[ShelfConfig, NoState, ShelfSettings]):
    """A shelf of books."""

    name = "shelf"

    @webhook(verify=hmac_sha256(setting("webhook_secret"), header="X-Signature"))
    async def hear(self, request: HookRequest) -> None:
        """A note was changed."""
        changed = request.json()
        self.emit(Dirty("note", (str(changed["book"]), str(changed["note"]))))


class ShelfMirror(DataProvider[ShelfPlugin]):
    """The shelf."""

    every: ClassVar[timedelta] = timedelta(minutes=5)

    @classmethod
    def names_of(cls, account: str) -> list[str]:
        return [f"@{account}"]

    @listing(Book)
    async def books(self, place: Place) -> Page:
        """All books, some at a time."""
        SHELF.ask("books")
        start = int(str(place.token or 0))
        found = SHELF.books[start : start + PAGE]
        rows = [Book.read(each) for each in found]
        children = [Child("notes", row.id, row) for row in rows]
        return Page(rows, next=start + PAGE if start + PAGE < len(SHELF.books) else None, children=children)

    @log(Note, parent="books", position=lambda row: row.id)
    async def notes(self, place: Place) -> Page:
        """A book's notes."""
        SHELF.ask(f"notes {place.partition} after {place.after}")
        if place.partition in SHELF.closed:
            raise NoAccess("the reader may not open it")
        there = SHELF.notes.get(place.partition, [])
        found = [each for each in there if not isinstance(each, dict) or _order(each) > (place.after or 0)]
        return _notes(place.partition, found[:PAGE], more=len(found) > PAGE)

    @detail(Like, parent="notes")
    async def liked(self, place: Place) -> Page:
        """Who likes a note."""
        SHELF.ask(f"likes {place.partition}")
        return Page(
            [Like.read({"note_id": place.partition, "who": who}) for who in SHELF.likes.get(place.partition, [])]
        )

    @lookup(Note)
    async def note(self, place: Place) -> Page:
        """One note."""
        book, _, number = place.partition.partition("/")
        SHELF.ask(f"note {place.partition}")
        found = [each for each in SHELF.notes.get(book, []) if str(each["id"]) == number]
        if not found:
            return Page(gone=[(Note, (int(number),))])
        page = _notes(book, found, more=False)
        return Page(page.rows, children=page.children, under=("notes", book))


def _order(raw: dict[str, Any]) -> int:
    number = raw.get("id")
    return number if isinstance(number, int) else 1 << 40


def _notes(book: str, found: list[Any], *, more: bool) -> Page:
    rows = [Note.read(each, book_id=book) for each in found]
    children = [
        Child("liked", str(row.id), row, fingerprint=str(len(SHELF.likes.get(str(row.id), []))).replace("0", ""))
        for row in rows
    ]
    return Page(rows, next=more or None, children=children)


manifest = Manifest(ShelfPlugin, provider=ShelfMirror)
