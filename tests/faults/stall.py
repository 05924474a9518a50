"""A plugin whose webhook handler is as slow as the webhook asks it to be."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import ClassVar

from pydantic import SecretStr

from metagov_sdk import Config, Event, HookRequest, Manifest, NoState, Plugin, by_header, config, hmac_sha256, webhook


class StallConfig(Config):
    """The secret that webhooks are signed with."""

    webhook_secret: SecretStr


class Handled(Event):
    """A handler came to its end."""

    event_type: ClassVar[str] = "handled"
    text: str


class Stall(Plugin[StallConfig, NoState]):
    """Sleeps, and may block its whole process."""

    name = "stall"

    @webhook(verify=hmac_sha256(config("webhook_secret"), header="X-Signature"), dedupe=by_header("X-Delivery"))
    async def receive(self, request: HookRequest) -> None:
        """`sleep` lets others run, `block` does not; with `once`, only the first try (by that marker file) is slow."""
        order = request.json()
        marker = Path(order["marker"]) if "marker" in order else None
        if not (order.get("once") and marker and marker.exists()):
            if marker and order.get("once"):
                marker.touch()
            await asyncio.sleep(order.get("sleep", 0))
            if "block" in order:
                if marker:
                    marker.touch()
                time.sleep(order["block"])  # what no plugin should do
        self.emit(Handled(text=order["text"]), key=order["text"])


manifest = Manifest(Stall, events=[Handled])
