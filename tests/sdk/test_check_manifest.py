"""check_manifest: the rules for every plugin, each broken once."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest

from metagov_sdk import (
    CloseReason,
    Completed,
    Config,
    Event,
    Headers,
    HookRequest,
    Manifest,
    NoSettings,
    Pending,
    Plugin,
    Process,
    Settings,
    State,
    Step,
    Unsigned,
    action,
    config,
    hmac_sha256,
    webhook,
)
from metagov_sdk.testing import (
    NOW,
    ContractError,
    check_manifest,
)
from tests.sdk.club import Ballots, ClubConfig, ClubSettings, ClubState, Joined, Name, Question, Tally, Vote, manifest


class Undescribed(Config):
    """Config."""

    token: str = ""


class Bare(Event):
    event_type: ClassVar[str] = "bare"


class NeedySettings(Settings):
    """Settings."""

    token: str
    """The token."""


class OddState(State):
    """State."""

    odd: Any = NOW


class Loose(Plugin[Undescribed, OddState, NeedySettings]):
    """A plugin that breaks every rule."""

    name = "loose"

    @action("guess")
    async def guess(self, params: int) -> object:
        """Guess."""
        return params

    @webhook(
        verify=hmac_sha256(config("token")),
        dedupe=lambda request: str(request.json()["id"]),
        locate=lambda request: [json.loads(request.body)["team"]],
    )
    async def hear(self, request: HookRequest) -> None:
        self.emit(Bare())


class Gullible:
    """A verifier that believes everybody."""

    secret = config("token")

    def __call__(self, secret: str, headers: Headers, body: bytes, now: float) -> bool:
        return True


class Open(Plugin[Undescribed, OddState, NoSettings]):
    """A plugin whose webhook believes everybody."""

    name = "open"

    @webhook(verify=Gullible())
    async def hear(self, request: HookRequest) -> None:
        """Hear."""


class NewVersion(Process[Question, Ballots, Tally]):
    """A process whose state has changed its shape."""

    name = "new-version"
    version = 2

    async def start(self, params: Question) -> Step[Ballots, Tally]:
        return Pending(Ballots())

    @classmethod
    def close(cls, state: Ballots, why: CloseReason) -> Completed[Tally]:
        return Completed(Tally(yes=0))


def test_a_plugin_that_breaks_the_rules_hears_of_all_at_once() -> None:
    with pytest.raises(ContractError) as raised:
        check_manifest(Manifest(Loose, processes=[NewVersion], events=[Bare]))
    told = str(raised.value)
    for words in (
        "event Bare has no docstring",
        "Loose.hear has no docstring",
        "config: field token has no description",
        "parameters of action guess: should be an object with named fields, not integer",
        "the default state is not the same after being kept as JSON",
        "settings: every field needs a default",
        "process new-version: version 2 needs upgrade()",
        "webhook '': dedupe raises KeyError on b'{}'",
        "webhook '': locate raises JSONDecodeError",
    ):
        assert f"loose: {words}" in told


def test_a_webhook_that_believes_everybody_is_found() -> None:
    with pytest.raises(ContractError, match="takes an unsigned request for genuine"):
        check_manifest(Manifest(Open))


def test_a_plugin_that_keeps_the_rules_passes() -> None:
    assert isinstance(manifest.webhooks["hints"].verify, Unsigned)

    class Tidy(Plugin[ClubConfig, ClubState, ClubSettings]):
        """Tidy."""

        name = "tidy"

        @action("greet")
        async def greet(self, params: Name) -> Name:
            """Greet."""
            return params

    check_manifest(Manifest(Tidy, processes=[Vote], events=[Joined]))
