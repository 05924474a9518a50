"""What running processes needs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from app.core.crypto import Vault
from app.core.db import Database
from app.core.egress import EgressPolicy
from app.core.wake import Wake
from app.host.binding import Host, InstanceData
from app.processes.models import ProcessRow
from app.processes.news import News
from metagov_sdk import Process, ProcessSpec

LEASE = timedelta(seconds=60)
"""Of a start within a request, which nothing renews."""


@dataclass(frozen=True, slots=True)
class Runner:
    """The parts; `background` holds starts that outlive their request.

    barrier  how long a deadline waits for webhooks of before it to be handled.
    grace    how long the processes of a disabled instance wait for it.
    """

    db: Database
    host: Host
    vault: Vault
    wake: Wake
    egress: EgressPolicy
    start_timeout: float
    timeout: float
    barrier: timedelta
    grace: timedelta
    news: News = field(default_factory=News)
    background: set[asyncio.Task[Any]] = field(default_factory=set)

    def spec(self, row: ProcessRow) -> ProcessSpec | None:
        """The row's process as the plugin here defines it, if it does."""
        loaded = self.host.plugins.loaded.get(row.plugin)
        return loaded.manifest.processes.get(row.name) if loaded else None

    def bind(
        self, spec: ProcessSpec, instance: InstanceData, row: ProcessRow, now: datetime, key: str
    ) -> Process[Any, Any, Any]:
        """A fresh process object for one call with I/O. Raises UnreadableInstance."""
        plugin = self.host.bind(instance, now=now, idempotency_key=key)
        return spec.cls(plugin, id=row.id, now=now, idempotency_key=key)
