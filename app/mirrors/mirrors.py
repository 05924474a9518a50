"""What mirrors need of the gateway, and what is known of the providers' tables."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from app.core.crypto import Vault
from app.core.db import Database
from app.core.wake import Wake
from app.host.binding import Host
from app.mirrors import schema
from app.mirrors.columns import Table, tables_of
from metagov_sdk.provider import ProviderSpec

_SCHEMA_SECONDS = 5.0


@dataclass(slots=True)
class Mirrors:
    """What reading platforms needs."""

    db: Database
    host: Host
    vault: Vault
    wake: Wake
    timeout: float
    at_once: int
    keep_answers: bool = False
    """Whether answers of platforms are kept, for `metagov mirror replay`."""
    _pending: dict[str, str] = field(default_factory=dict)
    _looked_at: float = -_SCHEMA_SECONDS

    def specs(self) -> list[ProviderSpec]:
        """The providers of the plugins that are installed."""
        manifests = (loaded.manifest for loaded in self.host.plugins.loaded.values())
        return [manifest.provider for manifest in manifests if manifest.provider is not None]

    def spec(self, plugin: str) -> ProviderSpec | None:
        """A plugin's provider, if it is installed and has one."""
        loaded = self.host.plugins.loaded.get(plugin)
        return loaded.manifest.provider if loaded else None

    async def pending(self, provider: str) -> str | None:
        """Why a provider's tables cannot be written to just now; looked at every few seconds."""
        now = asyncio.get_running_loop().time()
        if now - self._looked_at >= _SCHEMA_SECONDS or self._pending:
            async with self.db.begin() as session:
                self._pending = await schema.find_pending(session, self.specs())
            self._looked_at = now
        return self._pending.get(provider)


@cache
def tables_for(spec: ProviderSpec) -> Mapping[str, Table]:
    """A provider's tables."""
    return tables_of(spec)
