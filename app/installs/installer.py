"""What installing works with."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.crypto import Vault
from app.core.db import Database
from app.host.binding import Host


@dataclass(frozen=True, slots=True)
class Installer:
    """What installing needs: the database, the plugins, the keys, and how long a platform may take."""

    db: Database
    host: Host
    vault: Vault
    timeout: float
