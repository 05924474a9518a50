"""Builds: noticing what has moved, building it again, and naming the new files last.

A row of `graphs` is due when something may have changed. Whoever claims it finds out what it would be built from; if
that is what it was built from, nothing is done.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, TypeVar

import structlog
from sqlalchemy import case, cast, func, literal, null, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from app.archives.places import provider_of
from app.core import work
from app.core.ids import new_id
from app.core.killpoints import KillPoint, reached
from app.core.metrics import graph_builds_of
from app.events.service import NewEvent, core_event, record
from app.graphs import building
from app.graphs.building import BuildFailed, BuildRefused
from app.graphs.child import Built, Job
from app.graphs.index import FORMAT
from app.graphs.inputs import Resolved, resolve
from app.graphs.models import Graph
from app.graphs.service import QUEUE, Graphs, rule_sets
from app.host.binding import InstanceData, UnreadableInstance
from app.runtime import instances
from metagov_sdk.archive import ArchiveAway, ArchiveError, NoSnapshot
from metagov_sdk.graph import GraphConfig

_AT_ONCE = 1
_MOST_ATTEMPTS = 6
_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 3600.0
_CHECK_EVERY = timedelta(hours=1)
"""How often inputs from elsewhere are asked whether they have changed."""
_LONGEST_ERROR = 4000
_LONGEST_FETCH, _LONGEST_BUILD = 600.0, 3600.0
"""Seconds. Builds come one after the other: a host that drips, or rules without an end, would stop everybody's."""
ResultT = TypeVar("ResultT")

_log = structlog.get_logger(__name__)

# What is in hand is left alone: it is looked at once more when it is done.
_MOVED = """
UPDATE graphs g SET next_at = clock_timestamp(), attempt = 0 FROM instances i
WHERE g.instance_id = i.id AND i.status = 'enabled' AND i.deleted_at IS NULL AND i.plugin = ANY($2::text[])
  AND (g.next_at IS NULL OR g.next_at > clock_timestamp()) AND (g.lease_until IS NULL OR g.lease_until < now())
  AND (g.generation IS DISTINCT FROM i.generation OR g.check_at < now() OR g.head IS DISTINCT FROM (
      SELECT h.snapshot FROM archive_heads h
      WHERE (h.community_id, h.provider, h.url) = (g.community_id, g.source, $1)))
RETURNING g.id
"""
# For each only a look: what was made from the same is not made again.
_ALL = """
UPDATE graphs g SET next_at = clock_timestamp(), attempt = 0 FROM instances i
WHERE g.instance_id = i.id AND i.status = 'enabled' AND i.deleted_at IS NULL AND i.plugin = ANY($1::text[])
  AND g.next_at IS NULL AND (g.lease_until IS NULL OR g.lease_until < now())
RETURNING g.id
"""
_NEW = """
SELECT i.id, i.community_id FROM instances i JOIN communities c ON c.id = i.community_id AND c.deleted_at IS NULL
WHERE i.plugin = ANY($1::text[]) AND i.status = 'enabled' AND i.deleted_at IS NULL
  AND NOT EXISTS (SELECT FROM graphs g WHERE g.instance_id = i.id) LIMIT 500
"""
_ADD = """
INSERT INTO graphs (id, instance_id, community_id)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) ON CONFLICT DO NOTHING
"""
_READERS = text("""
UPDATE graphs g SET next_at = clock_timestamp(), attempt = 0 FROM instances i
WHERE g.instance_id = i.id AND g.community_id = :community AND g.reads ? CAST(:plugin AS text) AND i.deleted_at IS NULL
""")


async def notice_moved(use: Graphs) -> int:
    """Make due what may have changed: an archive, a configuration, what is from elsewhere. Returns how many."""
    if use.files is None:
        return 0
    plugins = rule_sets(use.host)
    new = await use.db.pool.fetch(_NEW, plugins)
    if new:
        ids = [new_id("gra") for _ in new]
        await use.db.pool.execute(_ADD, ids, [row["id"] for row in new], [row["community_id"] for row in new])
    moved = await use.db.pool.fetch(_MOVED, use.archives.url, plugins)
    if new or moved:
        use.wake.poke(QUEUE)
    return len(new) + len(moved)


async def look_again(use: Graphs) -> int:
    """Make all graphs due, once a worker has started: its rule sets may be newer. Returns how many."""
    if use.files is None:
        return 0
    found = await use.db.pool.fetch(_ALL, rule_sets(use.host))
    if found:
        use.wake.poke(QUEUE)
    return len(found)


async def build_due(use: Graphs, news: asyncio.Event | None = None) -> int:
    """Work on due graphs until none is in hand. Returns how many there were."""
    if use.files is None:
        return 0
    return await work.drain(
        work.claiming(use.db, Graph, work.LEASE),
        lambda row: _work_on(use, row),
        limit=_AT_ONCE,
        news=news,
        keep=work.keeping(use.db, Graph),
    )


async def _work_on(use: Graphs, row: Graph) -> None:
    found = await instances.by_id(use.db.pool, use.vault, row.instance_id)
    if found is None or found[0].deleted or found[0].status != "enabled":
        # When it is enabled again, its generation is another.
        await _close(use, row, {})
        return
    instance = found[0]
    values: dict[str, Any] = {"generation": instance.generation, "progress": null()}
    try:
        if row.attempt > _MOST_ATTEMPTS:
            raise BuildRefused("building it was begun several times, and cut off each time; the log names the reason")
        await _build(use, row, instance, values)
    except BuildRefused as error:
        await _refused(use, row, instance, values, str(error))
    except BuildFailed as error:
        if row.attempt >= _MOST_ATTEMPTS:
            await _refused(use, row, instance, values, str(error))
        else:
            await _put_off(use, row, values, str(error))


async def _build(use: Graphs, row: Graph, instance: InstanceData, values: dict[str, Any]) -> None:
    """Build it if it has changed, and name its files. Fills `values` with what is known by then."""
    config = _config(use, instance)
    values |= {"source": config.source, "reads": sorted({each.plugin for each in config.inputs if each.plugin})}
    values["head"] = await _head(use, instance, config.source)
    if values["head"] is None:
        where = "" if use.archives.url else "; this deployment keeps no archives: set METAGOV_ARCHIVE_URL"
        error = f"nothing of {config.source!r} is archived yet{where}"
        await _close(use, row, {**values, "error": error, "state": "waiting"} if row.files is None else values)
        return
    inputs = await _within(_LONGEST_FETCH, "fetching its inputs", resolve(use, row.id, instance, config))
    values["check_at"] = func.clock_timestamp() + _CHECK_EVERY if inputs.remote else null()
    fingerprint = _fingerprint(use, instance, values["head"], inputs)
    if fingerprint == row.fingerprint and not row.forced and row.files is not None and _all_there(use, row.files):
        await _close(use, row, {**values, "state": "built", "error": null()})
        return
    job = _job(use, instance, config, values["head"], inputs)
    built = await _within(
        _LONGEST_BUILD, "building it", building.build_apart(job, lambda said: _progress(use, row, said))
    )
    reached(KillPoint.GRAPH_WRITTEN)
    await _name(use, row, instance, {**values, "fingerprint": fingerprint}, built)


async def _within(seconds: float, what: str, work: Awaitable[ResultT]) -> ResultT:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise BuildFailed(f"{what} took longer than {seconds / 60:g} minutes") from None


def _config(use: Graphs, instance: InstanceData) -> GraphConfig:
    try:
        config = use.host.read_config(instance)
    except UnreadableInstance as error:
        raise BuildRefused(str(error)) from None
    if not isinstance(config, GraphConfig):
        raise BuildRefused("the plugin that is installed makes no graph")
    return config


async def _head(use: Graphs, instance: InstanceData, source: str) -> str | None:
    """The archive's newest snapshot, after the checks that every reader makes."""
    if not use.archives.url:
        return None
    try:
        async with use.archives.reader(instance.community_id, instance.community, source) as reader:
            return reader.snapshot
    except NoSnapshot:
        return None
    except ArchiveAway as error:
        raise BuildFailed(str(error)) from None
    except ArchiveError as error:
        raise BuildRefused(f"the archive of {source!r}: {type(error).__name__}: {error}") from None


def _fingerprint(use: Graphs, instance: InstanceData, head: str, inputs: Resolved) -> str:
    loaded = use.host.loaded(instance.plugin)
    config = {**instance.plain, **instance.secrets}
    made_from = [
        loaded.distribution, loaded.version, instance.plugin, config, instance.config_version, head, inputs.digests,
        FORMAT,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def _all_there(use: Graphs, files: Any) -> bool:
    names = [f"{files[name]['sha256']}.gz" for name in ("graph", "declaration", "identities")]
    return all(use.require_files().has(name) for name in (*names, files["index"]))


def _job(use: Graphs, instance: InstanceData, config: GraphConfig, head: str, inputs: Resolved) -> Job:
    manifest = use.host.loaded(instance.plugin).manifest
    assert manifest.graph is not None  # noqa: S101 -- its config is a GraphConfig, which the manifest checks
    return Job(
        rules=f"{manifest.graph.__module__}:{manifest.graph.__qualname__}",
        config_type=f"{manifest.config.__module__}:{manifest.config.__qualname__}",
        config={**instance.plain, **instance.secrets},
        url=use.archives.url,
        archive=config.source,
        provider=provider_of(config.source),
        community=instance.community,
        snapshot=head,
        trusted=list(use.archives.trusted),
        environment=dict(use.archives.deployment.environment),
        inputs=dict(inputs.files),
        folder=str(use.require_files().folder),
    )


async def _progress(use: Graphs, row: Graph, said: dict[str, Any]) -> None:
    async with use.db.begin() as session:
        await session.execute(
            update(Graph)
            .where(Graph.id == row.id, Graph.epoch == row.epoch)
            .values(progress=said)
            .execution_options(synchronize_session=False)
        )


async def _name(use: Graphs, row: Graph, instance: InstanceData, values: dict[str, Any], built: Built) -> None:
    """All files are whole and on disk: from here on they are the graph."""
    values |= {
        "state": "built",
        "error": null(),
        "snapshot": values["head"],
        "built_at": func.clock_timestamp(),
        "nodes": built["nodes"],
        "edges": built["edges"],
        "files": cast(literal(built["files"], JSONB), JSONB),
    }
    said = {"snapshot": values["head"], "nodes": built["nodes"], "edges": built["edges"]}
    async with use.db.begin() as session:
        await _finish(session, row, values)
        await session.execute(_READERS, {"community": instance.community_id, "plugin": instance.plugin})
        await record(session, [_event(instance, "built", said)])
        reached(KillPoint.GRAPH_NAMED)
    reached(KillPoint.GRAPH_COMMITTED)
    graph_builds_of(instance.plugin, "built").inc()
    _log.info("graph built", instance=instance.id, plugin=instance.plugin, **said)
    use.wake.poke(QUEUE, "deliveries")


async def _refused(use: Graphs, row: Graph, instance: InstanceData, values: dict[str, Any], reason: str) -> None:
    """What was built before stays, and is served; it is tried again when something has changed."""
    # A host that answers this way may answer another the next time.
    values.setdefault("check_at", func.clock_timestamp() + _CHECK_EVERY)
    values |= {"state": "failed", "error": _shown(reason), "fingerprint": null()}
    async with use.db.begin() as session:
        await _finish(session, row, values)
        if (row.state, row.error) != ("failed", _shown(reason)):
            await record(session, [_event(instance, "failed", {"reason": _shown(reason)})])
    graph_builds_of(instance.plugin, "failed").inc()
    _log.warning("a graph cannot be built", instance=instance.id, plugin=instance.plugin, reason=reason)
    use.wake.poke("deliveries")


async def _put_off(use: Graphs, row: Graph, values: dict[str, Any], reason: str) -> None:
    pause = work.backoff(row.attempt, first=_FIRST_PAUSE, most=_LONGEST_PAUSE)
    async with use.db.begin() as session:
        if not await work.fail(session, row, retry_in=pause, **values, error=_shown(reason)):
            raise work.LostLease
    _log.info("a graph is built later", instance=row.instance_id, reason=reason)


async def _close(use: Graphs, row: Graph, values: dict[str, Any]) -> None:
    async with use.db.begin() as session:
        await _finish(session, row, values)


async def _finish(session: AsyncSession, row: Graph, values: dict[str, Any]) -> None:
    """Done, unless somebody has asked for it meanwhile: then it is due again. Raises LostLease."""
    asked = Graph.next_at > row.next_at
    forced = case((asked, Graph.forced), else_=False)
    if not await work.finish(session, row, **values, forced=forced, next_at=case((asked, Graph.next_at), else_=null())):
        raise work.LostLease


def _shown(reason: str) -> str:
    """A reason as it can be stored and shown: places in foreign files can have NUL in them, and anything else."""
    plain = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in reason[:_LONGEST_ERROR])
    return plain[:_LONGEST_ERROR]


def _event(instance: InstanceData, what: str, said: dict[str, Any]) -> NewEvent:
    data = {"plugin": instance.plugin, "instance": instance.id, **said}
    return core_event(instance.driver_id, instance.community_id, instance.community, instance.id, f"graph.{what}", data)
