"""A plugin whose webhook handler notes the time of its first line, and says so in an event."""

from __future__ import annotations

import time
from typing import ClassVar

from pydantic import SecretStr

from metagov_sdk import Config, Event, HookRequest, Manifest, NoState, Plugin, by_header, config, hmac_sha256, webhook


class StopwatchConfig(Config):
    """The secret that webhooks are signed with."""

    webhook_secret: SecretStr


class Started(Event):
    """A handler started; times in seconds since 1970."""

    event_type: ClassVar[str] = "started"
    receipt: str
    sent: float
    """When the webhook left its sender, by the sender."""
    started: float


class Stopwatch(Plugin[StopwatchConfig, NoState]):
    """Reads the clock."""

    name = "stopwatch"

    @webhook(verify=hmac_sha256(config("webhook_secret"), header="X-Signature"), dedupe=by_header("X-Sent"))
    async def receive(self, request: HookRequest) -> None:
        """`X-Sent` is when the webhook left, in microseconds since 1970."""
        started = time.time()
        sent = int(request.headers.get("X-Sent") or 0) / 1e6
        self.emit(Started(receipt=self.idempotency_key, sent=sent, started=started))


manifest = Manifest(Stopwatch, events=[Started])
