"""Walks: how a provider reads a platform, a page at a time.

Each is a method `async def name(self, place: Place) -> Page` that makes the requests of ONE page and returns what it
found. The gateway commits the page, and calls again with where to go on from: in this process or, after a crash, in
another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from pydantic import JsonValue

from metagov_sdk.errors import ManifestError
from metagov_sdk.provider.records import Key, Record

WalkKind: TypeAlias = Literal["listing", "log", "detail", "lookup"]
Position: TypeAlias = Callable[[Any], int]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a walk is.

    partition  which partition is read: the key that its parent's page gave it, "" for the one of a walk with no parent.
    data       what the parent's page said of it.
    token      what the page before returned as `next`; None for the first.
    after      of a log: only what lies after this position (-1: from the beginning). None if it is read newest first.
    before     of a log read newest first: only what lies before this position. None for the newest.
    sweep      whether everything is read again.
    """

    partition: str = ""
    data: JsonValue = None
    token: JsonValue = None
    after: int | None = None
    before: int | None = None
    sweep: bool = False


@dataclass(frozen=True, slots=True)
class Child:
    """A partition of another walk, found on a page.

    walk         the method that reads it.
    key          which one: unique in its walk.
    of           the row that it belongs to: when that is gone, so is everything read of the partition.
    data         what its pages need to know.
    fingerprint  what changes when there is something new in it. While it stays the same, `sync` does not read the
                 partition; a sweep does. None: it is read each time. "": there is nothing in it.
    """

    walk: str
    key: str
    of: Record
    data: JsonValue = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """What one page held.

    rows      the records read, of any of the walk's tables.
    next      what the following page is had with; None when this was the last. A log read by `after` only has to say
              that there is more: `next=True`.
    children  partitions of other walks.
    gone      rows that the platform says are no longer there: (record, key).
    under     of a lookup: the (walk, partition) that the rows will be found in by the next sweep.
    """

    rows: Sequence[Record] = ()
    next: JsonValue = None
    children: Sequence[Child] = ()
    gone: Sequence[tuple[type[Record], Key]] = ()
    under: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Walk:
    """A walk as declared; `name` is the provider's method."""

    name: str
    kind: WalkKind
    records: tuple[type[Record], ...]
    parent: str | None = None
    missing: Literal["gone", "look"] = "gone"
    newest_first: bool = False
    position: Position | None = None
    overlap: int = 0
    sweep_only: bool = False


WalkMethod = TypeVar("WalkMethod", bound=Callable[..., Awaitable[Page]])


def listing(
    *records: type[Record],
    parent: str | None = None,
    missing: Literal["gone", "look"] = "gone",
    sweep_only: bool = False,
) -> Callable[[WalkMethod], WalkMethod]:
    """A whole set, read to its end each time: channels, members. What is no longer in it is gone.

    parent      the walk whose pages name its partitions; None: there is one partition, "".
    missing     "look": what was not in the set any more is looked up before it counts as gone. For sets that things
                move between, and for pages that shift when something is deleted meanwhile.
    sweep_only  not part of `sync`, for what is costly and hardly changes.
    """
    return _declare("listing", records, parent=parent, missing=missing, sweep_only=sweep_only)


def log(
    *records: type[Record],
    position: Position,
    parent: str | None = None,
    newest_first: bool = False,
    overlap: int = 0,
    missing: Literal["gone", "look"] = "gone",
) -> Callable[[WalkMethod], WalkMethod]:
    """Things in their order, of which new ones are added at the end: a channel's messages.

    `sync` reads what is new, a sweep all, and what that does not find any more is gone.

    position      row of the first record → a whole number from 0 that orders the log: an id, or microseconds.
    newest_first  the platform gives the newest first and cannot be asked for what lies after a position.
    overlap       how far before the last known position `sync` begins, for platforms on which things turn up a little
                  out of order.
    parent, missing  as with `listing`.
    """
    return _declare(
        "log", records, parent=parent, position=position, newest_first=newest_first, overlap=overlap, missing=missing
    )


def detail(*records: type[Record], parent: str) -> Callable[[WalkMethod], WalkMethod]:
    """What hangs on a row of another walk, read again when its fingerprint has changed: a message's reactions.

    What is no longer there is gone.
    """
    return _declare("detail", records, parent=parent)


def lookup(record: type[Record]) -> Callable[[WalkMethod], WalkMethod]:
    """One row, for what is marked `Dirty` or was missed in a listing. `place.partition` is the key, joined by "/".

    Return it as a row, or in `gone`.
    """
    return _declare("lookup", (record,))


def _declare(kind: WalkKind, records: tuple[type[Record], ...], **more: Any) -> Callable[[WalkMethod], WalkMethod]:
    if not records or not all(isinstance(record, type) and issubclass(record, Record) for record in records):
        raise ManifestError(f"@{kind}: name the records that it reads")

    def declare(method: WalkMethod) -> WalkMethod:
        method.__metagov__ = Walk(method.__name__, kind, records, **more)  # type: ignore[attr-defined]
        return method

    return declare
