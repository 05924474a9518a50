"""What graphs need of the gateway, and how they stand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from app.archives.service import Archives
from app.core.crypto import Vault
from app.core.db import Database
from app.core.egress import EgressPolicy, plugin_client
from app.core.errors import Conflict, NotFound
from app.core.ids import new_id
from app.core.settings import Settings
from app.core.wake import Wake
from app.graphs.files import GraphFiles
from app.graphs.reader import BuiltGraph
from app.host.binding import Host, InstanceData
from app.runtime import instances
from metagov_sdk.graph import LIMITS

QUEUE = "graphs"
_FETCH_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Graphs:
    """What building and serving graphs needs."""

    db: Database
    host: Host
    vault: Vault
    wake: Wake
    archives: Archives
    egress: EgressPolicy
    public_url: str
    files: GraphFiles | None
    """None: the deployment keeps no graphs."""

    @classmethod
    def of(
        cls,
        settings: Settings,
        db: Database,
        host: Host,
        vault: Vault,
        wake: Wake,
        archives: Archives,
        egress: EgressPolicy,
    ) -> Graphs:
        """With the folder that the settings name."""
        files = GraphFiles(Path(settings.graph_dir).resolve()) if settings.graph_dir else None
        return cls(db, host, vault, wake, archives, egress, settings.public_url, files)

    def require_files(self) -> GraphFiles:
        """The folder. Raises Conflict where there is none."""
        if self.files is None:
            raise Conflict("this deployment keeps no graphs; set METAGOV_GRAPH_DIR to a folder", slug="no-graphs")
        return self.files

    def reader(self, instance: InstanceData) -> BuiltGraph | None:
        """What the plugin of a rule set reads its graph by; None for other plugins."""
        loaded = self.host.plugins.loaded.get(instance.plugin)
        if loaded is None or loaded.manifest.graph is None:
            return None
        return BuiltGraph(self.db.pool, self.files, instance.id)

    def client(self) -> httpx.AsyncClient:
        """For input graphs: through the egress guard, with its own bounds."""
        return plugin_client(self.egress, total_seconds=_FETCH_SECONDS, max_body=LIMITS.unpacked)


@dataclass(frozen=True, slots=True)
class Share:
    """A share, without its token."""

    id: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class GraphStatus:
    """How the graph of one instance stands."""

    name: str
    instance: str
    community_platform_id: str
    state: str
    """waiting, building, built or failed."""
    error: str | None
    progress: dict[str, Any] | None
    snapshot: str | None
    built_at: datetime | None
    nodes: int | None
    edges: int | None
    files: dict[str, Any] | None
    due: bool
    put_off: bool
    """It was tried, and is to be tried again in a while: `error` says why."""
    shares: Sequence[Share]


_STATUS = """
SELECT i.id AS instance, i.plugin, i.community_platform_id, g.id, g.error, g.snapshot, g.built_at, g.nodes, g.edges,
    g.files::text AS files, g.next_at IS NOT NULL AS due,
    g.next_at > clock_timestamp() AND (g.lease_until IS NULL OR g.lease_until < clock_timestamp()) AS put_off,
    CASE WHEN g.lease_until > clock_timestamp() THEN 'building' ELSE coalesce(g.state, 'waiting') END AS state,
    CASE WHEN g.lease_until > clock_timestamp() THEN g.progress::text END AS progress
FROM instances i LEFT JOIN graphs g ON g.instance_id = i.id
WHERE i.community_id = $1 AND i.plugin = ANY($2::text[]) AND i.deleted_at IS NULL AND i.status <> 'disabled'
ORDER BY i.plugin, i.id
"""
_SHARES = """
SELECT graph_id, id, expires_at FROM graph_shares
WHERE graph_id = ANY($1::text[]) AND (expires_at IS NULL OR expires_at > clock_timestamp()) ORDER BY id
"""
# Whoever asks for a build while one is in hand gets another behind it: what changed since is in that.
_ASK = """
INSERT INTO graphs AS g (id, instance_id, community_id, forced) VALUES ($1, $2, $3, true)
ON CONFLICT (instance_id) DO UPDATE SET forced = true, next_at = clock_timestamp(),
    attempt = CASE WHEN g.lease_until > clock_timestamp() THEN g.attempt ELSE 0 END
RETURNING id
"""
_ENSURE = """
INSERT INTO graphs AS g (id, instance_id, community_id) VALUES ($1, $2, $3)
ON CONFLICT (instance_id) DO UPDATE SET instance_id = excluded.instance_id RETURNING id
"""


def rule_sets(host: Host) -> list[str]:
    """The plugins that make graphs."""
    return sorted(name for name, loaded in host.plugins.loaded.items() if loaded.manifest.graph is not None)


async def find_instance(use: Graphs, community_id: str, plugin: str, platform_id: str | None) -> InstanceData:
    """The community's instance that is meant. Raises NotFound, Conflict when several fit."""
    if plugin not in rule_sets(use.host):
        raise NotFound(f"there is no plugin {plugin!r} that makes graphs; `metagov plugins` lists them")
    instance, _ = await instances.choose(use.db.pool, use.vault, community_id, plugin, platform_id)
    return instance


async def statuses(use: Graphs, community_id: str) -> list[GraphStatus]:
    """How the community's graphs stand."""
    rows = await use.db.pool.fetch(_STATUS, community_id, rule_sets(use.host))
    shares: dict[str, list[Share]] = {}
    for row in await use.db.pool.fetch(_SHARES, [row["id"] for row in rows if row["id"]]):
        shares.setdefault(row["graph_id"], []).append(Share(row["id"], row["expires_at"]))
    return [
        GraphStatus(
            name=row["plugin"],
            instance=row["instance"],
            community_platform_id=row["community_platform_id"],
            state=row["state"],
            error=row["error"],
            progress=json.loads(row["progress"]) if row["progress"] else None,
            snapshot=row["snapshot"],
            built_at=row["built_at"],
            nodes=row["nodes"],
            edges=row["edges"],
            files=json.loads(row["files"]) if row["files"] else None,
            due=bool(row["due"]),
            put_off=bool(row["put_off"]),
            shares=shares.get(row["id"], []),
        )
        for row in rows
    ]


async def status(use: Graphs, instance: InstanceData) -> GraphStatus:
    """How one instance's graph stands. Raises NotFound when the instance is gone."""
    for each in await statuses(use, instance.community_id):
        if each.instance == instance.id:
            return each
    raise NotFound("the plugin has just been disabled")


async def ask_for_build(use: Graphs, instance: InstanceData) -> GraphStatus:
    """Have a graph built, whether anything has changed or not. Raises Conflict where none are kept."""
    use.require_files()
    await use.db.pool.execute(_ASK, new_id("gra"), instance.id, instance.community_id)
    use.wake.poke(QUEUE)
    return await status(use, instance)


async def ensure_row(use: Graphs, instance: InstanceData) -> str:
    """The id of the instance's graph, made if there is none yet."""
    found: str = await use.db.pool.fetchval(_ENSURE, new_id("gra"), instance.id, instance.community_id)
    return found
