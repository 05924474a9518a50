"""Marks from webhooks: a row of the mirror that has changed on the platform."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dirty:
    """Say with `self.emit(Dirty("message", (channel, id)))` that a row changed: the mirror looks it up again.

    For webhooks: they are hints, and what the platform answers is what is stored. `key` is what the table's `@lookup`
    takes, joined by "/". An instance that is not mirrored takes no notice.
    """

    table: str
    key: tuple[str, ...]

    @property
    def partition(self) -> str:
        """The lookup's partition."""
        return "/".join(self.key)
