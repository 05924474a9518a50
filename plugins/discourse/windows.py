"""Reading what has ids in windows of ids, from the lowest on. Pure.

Discourse's lists are cut into pages by their place in the list: what is deleted between two pages moves all that
follows up, and one thing is skipped that no later page has. A window of ids has no such gap.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from metagov_sdk import Place

MOST_ID = 2**31 - 1
"""Ids are Postgres integers."""


@dataclass(frozen=True, slots=True)
class Window:
    """The ids above `at` and up to `at + size`, of those up to `top`."""

    at: int
    top: int
    size: int

    @classmethod
    def from_token(cls, token: JsonValue) -> Window:
        """What `token` gave."""
        at, top, size = token if isinstance(token, list) else (0, 0, 1)
        return cls(int(str(at)), int(str(top)), int(str(size)))

    @property
    def token(self) -> JsonValue:
        """As a page's `next`."""
        return [self.at, self.top, self.size]

    @property
    def last(self) -> int:
        """The highest id in it."""
        return min(self.at + self.size, self.top)

    def holds(self, raw: Any) -> bool:
        """Whether a thing of this id, or with none that can be read, belongs to it."""
        number = id_of(raw)
        return number is None or self.at < number <= self.last

    def following(self, size: int | None = None) -> JsonValue:
        """The token of the next window, of another size if one is given; None after the last."""
        return Window(self.last, self.top, size or self.size).token if self.last < self.top else None


def start_of(place: Place) -> int:
    """The id after which a walk begins."""
    return max(place.after or 0, 0)


def highest(found: Iterable[Any]) -> int | None:
    """The highest id of some things; None where none has one."""
    return max((number for each in found if (number := id_of(each)) is not None), default=None)


def id_of(raw: Any) -> int | None:
    """A thing's id, if it is one."""
    number = raw.get("id") if isinstance(raw, dict) else None
    return number if isinstance(number, int) and not isinstance(number, bool) and 0 < number <= MOST_ID else None
