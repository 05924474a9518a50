"""Starting a process: the row is committed before the platform is asked, so that a crash can be told from a refusal."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import work
from app.core.crypto import Vault
from app.core.db import Database
from app.core.egress import EgressPolicy
from app.core.errors import Conflict, Invalid, NotFound
from app.core.ids import new_id
from app.core.killpoints import KillPoint, reached
from app.core.wake import Wake
from app.events.endpoints import check_outside_url
from app.events.service import callback_endpoint
from app.host.binding import Host, InstanceData, UnreadableInstance
from app.processes.models import ProcessRow
from app.processes.schemas import StartOptions
from app.processes.step import announce, take
from app.runtime import instances
from app.runtime.calls import Ambiguous, PluginCrashed, as_problem, needs_auth, run
from app.runtime.emissions import Emission, commit
from metagov_sdk import Failed, PluginError, ProcessSpec, Retry, Unauthorized

LEASE = timedelta(seconds=60)
_MOST_ATTEMPTS = 10

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Runner:
    """What running processes needs; `background` holds starts that outlive their request."""

    db: Database
    host: Host
    vault: Vault
    wake: Wake
    egress: EgressPolicy
    start_timeout: float
    timeout: float
    background: set[asyncio.Task[Any]] = field(default_factory=set)


def find_spec(host: Host, name: str) -> tuple[str, ProcessSpec]:
    """The plugin's name and its process, from `<plugin>.<process>`. Raises NotFound."""
    plugin, _, slug = name.partition(".")
    spec = host.loaded(plugin).manifest.processes.get(slug)
    if spec is None:
        raise NotFound(f"the plugin {plugin!r} has no process {slug!r}")
    return plugin, spec


def split_body(body: Any, spec: ProcessSpec) -> tuple[StartOptions, Any]:
    """A start's body as the gateway's own options and the process's typed parameters. Raises Invalid."""
    if not isinstance(body, dict):
        raise Invalid.field("", "should be a JSON object")
    own = {name: body[name] for name in StartOptions.model_fields if name in body}
    rest = {name: value for name, value in body.items() if name not in own}
    try:
        return StartOptions.model_validate(own), spec.params.model_validate(rest)
    except ValidationError as error:
        raise Invalid.schema(error) from None


async def start(
    use: Runner,
    driver_id: str,
    community_id: str,
    plugin: str,
    spec: ProcessSpec,
    options: StartOptions,
    params: Any,
    *,
    idempotency_key: str,
    inline: bool,
) -> tuple[ProcessRow, str]:
    """Create a process and start it: here (waiting `start_timeout` at most), or in a worker. Returns row and community.

    Raises a Problem when the platform refuses at once; the process is then kept as failed.
    """
    if options.callback_url is not None:
        check_outside_url(use.egress, options.callback_url, "/callback_url")
    instance, _ = await instances.choose(use.db.pool, use.vault, community_id, plugin, options.community_platform_id)
    if instance.status == "needs_auth":
        raise Conflict(f"{plugin} needs its credentials renewed before it can start anything", slug="needs_auth")
    async with use.db.begin() as session:
        row, created = await _create(session, driver_id, instance, spec, options, params, idempotency_key, inline)
    reached(KillPoint.START_STORED)
    if not created:
        return row, instance.community
    if not inline:
        use.wake.poke("processes")
        return row, instance.community
    task = asyncio.create_task(run_start(use, instance, spec, row, told=True))
    use.background.add(task)
    task.add_done_callback(use.background.discard)
    done, _ = await asyncio.wait({task}, timeout=use.start_timeout)
    if done and (error := task.result()) is not None:
        raise error
    async with use.db.begin() as session:
        row = (await session.scalars(select(ProcessRow).where(ProcessRow.id == row.id))).one()
    return row, instance.community


async def _create(
    session: AsyncSession,
    driver_id: str,
    instance: InstanceData,
    spec: ProcessSpec,
    options: StartOptions,
    params: Any,
    idempotency_key: str,
    inline: bool,
) -> tuple[ProcessRow, bool]:
    callback = None
    if options.callback_url is not None:
        callback = await callback_endpoint(session, driver_id, options.callback_url)
    lease = {"lease_until": func.clock_timestamp() + LEASE, "epoch": 1, "starting": True} if inline else {}
    # A driver's key names one process for 24 hours; after that it is free again.
    await session.execute(
        update(ProcessRow)
        .where(
            ProcessRow.idempotency_key == idempotency_key,
            ProcessRow.created_at < func.now() - text("interval '24 hours'"),
        )
        .values(idempotency_key=ProcessRow.id)
    )
    added = await session.scalar(
        insert(ProcessRow)
        .values(
            id=new_id("prc"),
            community_id=instance.community_id,
            instance_id=instance.id,
            plugin=instance.plugin,
            name=spec.name,
            params=params.model_dump(mode="json"),
            idempotency_key=idempotency_key,
            correlation_id=options.correlation_id,
            callback_id=callback,
            **lease,
        )
        .on_conflict_do_nothing(index_elements=["idempotency_key"])
        .returning(ProcessRow.id)
    )
    row = await session.scalars(select(ProcessRow).where(ProcessRow.idempotency_key == idempotency_key))
    return row.one(), added is not None


async def run_start(
    use: Runner, instance: InstanceData, spec: ProcessSpec, row: ProcessRow, *, told: bool
) -> Exception | None:
    """Ask the platform, under the row's lease, and write what came of it. `told`: the driver sees the answer at once.

    Returns the problem a waiting driver should be told, if there is one.
    """
    found = row.starting and row.attempt > 0
    try:
        now = await use.db.now()
        plugin = use.host.bind(instance, now=now, idempotency_key=row.idempotency_key)
        process = spec.cls(plugin, id=row.id, now=now, idempotency_key=row.idempotency_key)
        params = spec.params.model_validate(row.params)
        step: Any = None
        if found:
            if not spec.can_find_started:
                step = Failed(
                    {"start_unknown": "the platform may or may not have it: the answer to its start was lost"}
                )
            else:
                step = await run(
                    process.find_started(params), seconds=use.timeout, what="find_started", instance=instance
                )
        if step is None:
            if not row.starting:
                await _mark_starting(use, row)
            reached(KillPoint.START_MARKED)
            step = await run(process.start(params), seconds=use.timeout, what="start", instance=instance)
            reached(KillPoint.START_ANSWERED)
    except (PluginError, PluginCrashed, UnreadableInstance) as error:
        return await _start_failed(use, instance, spec, row, error)
    async with use.db.begin() as session:
        current = await _locked(session, row)
        take(session, spec, current, step)
        current.starting = False
        current.version = 1
        if spec.cls.observe_every is not None and spec.observes:
            current.observe_at = now + spec.cls.observe_every
        await commit(session, use.host, [Emission(instance, plugin.emitted)])
        if not told or current.status == "completed":
            await announce(session, instance, current, None)
        await session.flush()
        if not await work.finish(session, current, next_at=func.clock_timestamp()):
            raise work.LostLease
    reached(KillPoint.START_COMMITTED)
    use.wake.poke("processes", "deliveries", "effects")
    return None


async def _locked(session: AsyncSession, row: ProcessRow) -> ProcessRow:
    """The row as it is now, locked. Raises LostLease when another worker has it."""
    query = select(ProcessRow).where(ProcessRow.id == row.id, ProcessRow.epoch == row.epoch).with_for_update()
    current = await session.scalar(query)
    if current is None or current.status != "created":
        raise work.LostLease
    return current


async def _mark_starting(use: Runner, row: ProcessRow) -> None:
    async with use.db.begin() as session:
        current = await _locked(session, row)
        current.starting = True
    row.starting = True


async def _start_failed(
    use: Runner,
    instance: InstanceData,
    spec: ProcessSpec,
    row: ProcessRow,
    error: PluginError | PluginCrashed | UnreadableInstance,
) -> Exception | None:
    """Try again later, or give up and say why."""
    async with use.db.begin() as session:
        current = await _locked(session, row)
        if isinstance(error, Retry) and row.attempt < _MOST_ATTEMPTS:
            # A deliberate Retry says that nothing was opened; a broken connection leaves that open.
            current.starting = isinstance(error, Ambiguous)
            await session.flush()
            wait = timedelta(seconds=error.after) if error.after else work.backoff(max(1, row.attempt), first=2)
            await work.fail(session, current, retry_in=wait, attempt=max(1, row.attempt))
            return None
        if isinstance(error, Unauthorized):
            await needs_auth(session, instance, error.reason)
        reason = str(error) if isinstance(error, PluginError | UnreadableInstance) else "the plugin's code failed"
        take(session, spec, current, Failed({"start": reason}))
        await announce(session, instance, current, None)
        await session.flush()
        await work.finish(session, current)
    use.wake.poke("deliveries")
    return (
        Conflict(str(error), slug="parked")
        if isinstance(error, UnreadableInstance)
        else as_problem(error, instance.plugin)
    )
