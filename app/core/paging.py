"""Pages of lists: `after=` and `limit=`, answered as `{"<plural>": […], "next": cursor|null}`."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Query

from app.core.errors import Invalid

RowT = TypeVar("RowT")

After = Annotated[
    str | None, Query(max_length=300, pattern=r"^[A-Za-z0-9_\-]*$", description="The `next` of the page before.")
]
Limit = Annotated[int, Query(ge=1, le=500, description="How many at most.")]


def encode_cursor(position: Sequence[Any], *, of: str = "") -> str:
    """An opaque cursor that names a position in the list `of`."""
    named = [of, *position] if of else list(position)
    return base64.urlsafe_b64encode(json.dumps(named, separators=(",", ":")).encode()).rstrip(b"=").decode()


def decode_cursor(cursor: str | None, kinds: Sequence[type], *, of: str = "") -> list[Any] | None:
    """The position a cursor names in the list `of`; None for the first page.

    Raises Invalid when it is not one of ours, or one of another list.
    """
    if not cursor:
        return None
    try:
        position = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise bad_cursor() from error
    if of and isinstance(position, list) and position[:1] == [of]:
        position = position[1:]
    elif of:
        raise bad_cursor()
    if not isinstance(position, list) or len(position) != len(kinds):
        raise bad_cursor()
    if not all(_fits(part, kind) for part, kind in zip(position, kinds, strict=True)):
        raise bad_cursor()
    return position


def _fits(part: Any, kind: type) -> bool:
    """Whether a cursor's part can be compared with its column: cursors come from outside like anything else."""
    if type(part) is not kind:
        return False
    return abs(part) < 2**63 if isinstance(part, int) else str(part).isprintable()


def bad_cursor() -> Invalid:
    """The error for an `after` that no page ever gave out."""
    return Invalid.field("/after", "not a cursor of this list; pass a `next` as it was given")


def cut(rows: Sequence[RowT], limit: int) -> tuple[Sequence[RowT], bool]:
    """A page out of `limit + 1` fetched rows, and whether there are more."""
    return rows[:limit], len(rows) > limit
