"""Polls: listeners that ask the platform on a schedule, for platforms that send no webhooks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from pydantic import JsonValue

from metagov_sdk.errors import ManifestError


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Commit what was emitted since the last one, together with where to go on from (`cursor`, any JSON value)."""

    cursor: JsonValue


@dataclass(frozen=True, slots=True)
class PollSpec:
    """A poll as declared; `name` is the plugin's method."""

    name: str
    every: timedelta


PollMethod = TypeVar("PollMethod", bound=Callable[..., AsyncIterator[Checkpoint]])


def poll(*, every: timedelta) -> Callable[[PollMethod], PollMethod]:
    """Declare `async def name(self, cursor: JsonValue) -> AsyncIterator[Checkpoint]`, run about once per `every`.

    `cursor` is what the last committed Checkpoint carried (None at first). A crash repeats the work since then, so
    give events a `key=` that stays the same.
    """
    if every < timedelta(seconds=1):
        raise ManifestError("@poll: every=… is at least a second")

    def declare(method: PollMethod) -> PollMethod:
        method.__metagov__ = PollSpec(method.__name__, every)  # type: ignore[attr-defined]
        return method

    return declare
