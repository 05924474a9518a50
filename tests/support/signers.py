"""A plugin with a hook for each way of signing and one that keeps the order, for tests of webhooks."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any, ClassVar

from pydantic import SecretStr

from metagov_sdk import (
    Config,
    Event,
    HookRequest,
    Manifest,
    Plugin,
    Rejected,
    Retry,
    by_header,
    config,
    ecdsa_p256,
    ed25519,
    hmac_sha256,
    slack_v0,
    standard_webhooks,
    webhook,
)

LOG: list[tuple[str, str, int]] = []
"""What the handlers did, in order: (began, failed or ended; the instance's label; the webhook's number)."""
FAILURES: defaultdict[tuple[str, int], int] = defaultdict(int)
"""How often a handler has failed so far, by label and number; tests clear both."""


class SignersConfig(Config):
    """Secrets and keys."""

    label: str = ""
    secret: SecretStr | None = None
    whsec: SecretStr | None = None
    discord_key: str | None = None
    sendgrid_key: str | None = None


class Heard(Event):
    """A webhook was handled."""

    event_type: ClassVar[str] = "heard"
    number: int


class Signers(Plugin[SignersConfig]):
    """Takes webhooks however they are signed."""

    name = "signers"

    @webhook("slack", verify=slack_v0(config("secret")))
    async def slack(self, request: HookRequest) -> None:
        """By Slack's signing secret."""

    @webhook("standard", verify=standard_webhooks(config("whsec")), dedupe=by_header("webhook-id"))
    async def standard(self, request: HookRequest) -> None:
        """By Standard Webhooks."""

    @webhook("discord", verify=ed25519(config("discord_key")))
    async def discord(self, request: HookRequest) -> None:
        """By Ed25519."""

    @webhook("sendgrid", verify=ecdsa_p256(config("sendgrid_key")))
    async def sendgrid(self, request: HookRequest) -> None:
        """By ECDSA."""

    @webhook("turns", verify=hmac_sha256(config("secret")), ordered=True)
    async def turns(self, request: HookRequest) -> None:
        """One after the other."""
        await self._obey(request.json())

    @webhook("more-turns", verify=hmac_sha256(config("secret")), ordered=True)
    async def more_turns(self, request: HookRequest) -> None:
        """In one order with `turns`."""
        await self._obey(request.json())

    @webhook("free", verify=hmac_sha256(config("secret")))
    async def free(self, request: HookRequest) -> None:
        """In no order."""
        await self._obey(request.json())

    async def _obey(self, told: dict[str, Any]) -> None:
        """Do what the body says: take a while, fail a number of times, refuse."""
        label, number = self.config.label, int(told["number"])
        LOG.append(("began", label, number))
        await asyncio.sleep(told.get("seconds", 0))
        if FAILURES[label, number] < told.get("failures", 0):
            FAILURES[label, number] += 1
            LOG.append(("failed", label, number))
            raise Retry(after=told.get("after", 0.01))
        if told.get("refused"):
            LOG.append(("failed", label, number))
            raise Rejected("not this one")
        self.emit(Heard(number=number))
        LOG.append(("ended", label, number))


manifest = Manifest(Signers, events=[Heard])
