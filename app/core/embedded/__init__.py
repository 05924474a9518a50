"""Real Postgres and Valkey servers that live and die with this process, for one machine and for tests.

```python
postgres, valkey = Postgres(data_dir), Valkey(data_dir)   # raises NotInstalled without the `embedded` extra
start_all(postgres, valkey)      # from the main thread; raises EmbeddedServerError in plain words
try:
    serve(postgres.url, valkey.url)
finally:
    stop_all(postgres, valkey)
```

Postgres' data is found again by the next start, after a clean stop and after any kill. A server that dies
meanwhile is started again by `revive_all`. All calls block.
"""

from __future__ import annotations

import time

from app.core.embedded.errors import (
    EmbeddedServerError,
    InUse,
    NotInstalled,
    StartFailed,
)
from app.core.embedded.postgres import Postgres
from app.core.embedded.server import EmbeddedServer
from app.core.embedded.valkey import Valkey

__all__ = [
    "EmbeddedServer",
    "EmbeddedServerError",
    "InUse",
    "NotInstalled",
    "Postgres",
    "StartFailed",
    "Valkey",
    "revive_all",
    "start_all",
    "stop_all",
]


def start_all(*servers: EmbeddedServer, timeout: float = 60.0) -> None:
    """Launch all, then wait until all serve clients. If one fails, all are stopped and it is raised."""
    try:
        for server in servers:
            server.launch()
        for server in servers:
            server.wait_ready(timeout)
    except BaseException:
        stop_all(*servers)
        raise


def revive_all(*servers: EmbeddedServer) -> list[str]:
    """Launch those again that ended on their own and return their names; call it every second or so."""
    return [server.name for server in servers if server.revive()]


def stop_all(*servers: EmbeddedServer, timeout: float = 5.0) -> None:
    """Stop all within about `timeout` seconds together. Servers that do not run are left alone."""
    deadline = time.monotonic() + timeout
    for server in servers:
        server.stop(max(0.5, deadline - time.monotonic()))
