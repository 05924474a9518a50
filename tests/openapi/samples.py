"""Plugins as outsiders might write them, to be described beside the first-party ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field

from app.host.discovery import Loaded, Plugins, discover
from metagov_sdk import (
    CloseReason,
    Completed,
    Config,
    Event,
    Manifest,
    Model,
    OpenEvent,
    Pending,
    Plugin,
    Process,
    State,
    Step,
    action,
)

ItemT = TypeVar("ItemT")


class NoConfig(Config):
    """Nothing to set."""


class Mood(StrEnum):
    CALM = "calm"
    WILD = "wild"


class Params(Model):
    """The town's own Params."""

    street: str
    mood: Mood = Mood.CALM


class RingParams(Model):
    """What `Params` of a plugin `town-ring` would be called in the document."""

    times: int


class Branch(Model):
    """Refers to itself."""

    label: str
    branches: list[Branch]


class Listed(Model, Generic[ItemT]):
    """A generic answer."""

    items: list[ItemT]


class Cat(Model):
    kind: Literal["cat"]
    lives: int


class Dog(Model):
    kind: Literal["dog"]
    tricks: list[str]


class Pet(Model):
    """Tells its kinds apart by a field."""

    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


class Odd(Model):
    """Holds a value that JSON schema has no word for."""

    when_done: Callable[[], None] | None = None
    size: int = 1


class PollParams(Model):
    """Named like one of the gateway's own options, which wins."""

    question: Annotated[str, Field(min_length=3, examples=["Shall we plant?"])]
    correlation_id: int


class PollState(State):
    yes: int = 0


class Tally(Model):
    """The result."""

    yes: int


class Poll(Process[PollParams, PollState, Tally]):
    """Ask the town.

    And wait for what it says.
    """

    name = "poll"

    async def start(self, params: PollParams) -> Step[PollState, Tally]:
        return Pending(PollState())

    @classmethod
    def close(cls, state: PollState, why: CloseReason) -> Completed[Tally]:
        return Completed(Tally(yes=state.yes))


class Moved(Event):
    """Somebody moved house."""

    event_type = "resident.moved"

    street: str


class Bells(OpenEvent):
    """Whatever the bells ring."""


class Town(Plugin[NoConfig]):
    """A town."""

    name = "town"

    @action("ring-bell", public=True)
    async def ring(self, params: Params) -> Listed[Branch]:
        """Ring the bell."""
        return Listed[Branch](items=[])

    @action("ring-often")
    async def ring_often(self, params: RingParams) -> None:
        """Ring the bell again and again."""

    @action("grow")
    async def grow(self, params: Branch) -> Branch:
        """Grow a tree."""
        return params

    @action("feed")
    async def feed(self, params: Pet) -> int:
        """Feed a pet."""
        return 1

    @action("odd")
    async def odd(self, params: Odd) -> dict[str, list[int]]:
        """An odd one."""
        return {}


town = Manifest(Town, processes=[Poll], events=[Moved, Bells])


def with_plugins(*manifests: Manifest) -> Plugins:
    """The first-party plugins and these."""
    found = discover({})
    loaded = {
        manifest.name: Loaded(manifest, "outside", "1.0", manifest.settings.model_validate({}))
        for manifest in manifests
    }
    return replace(found, loaded=MappingProxyType({**found.loaded, **loaded}))
