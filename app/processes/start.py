"""Starting a process: the row is committed before the platform is asked, so that a crash can be told from a refusal."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError
from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import work
from app.core.errors import Conflict, Invalid, NotFound
from app.core.ids import new_id
from app.core.killpoints import KillPoint, reached
from app.events.endpoints import check_outside_url
from app.events.service import callback_endpoint, record
from app.host.binding import Host, InstanceData, UnreadableInstance
from app.processes import history, rows
from app.processes.fold import Course
from app.processes.models import ProcessRow
from app.processes.runner import LEASE, Runner
from app.processes.schemas import StartOptions
from app.processes.step import told
from app.runtime import instances
from app.runtime.calls import Ambiguous, PluginCrashed, PutOff, as_problem, needs_auth, run
from app.runtime.emissions import Emission, commit
from metagov_sdk import Failed, PluginError, ProcessSpec, Retry, Unauthorized
from metagov_sdk import errors as sdk

_MOST_ATTEMPTS = 10
_COMMIT_SECONDS = 5.0
_ANSWER_LEASE = timedelta(seconds=5)
"""How long nothing is done about a process whose answer did not get out."""


@dataclass(slots=True)
class Caller:
    """The driver whose request waits for a start. `answered`: the start has come to its end while it waited."""

    waits: bool = True
    answered: bool = False

    def tell(self) -> bool:
        """Whether the answer tells the driver what came of the start; once asked, the answer waits for that."""
        self.answered = self.waits
        return self.answered


@dataclass(frozen=True, slots=True)
class Started:
    """A process as a driver is answered. `held`: its lease is kept until the answer is out (`release`)."""

    row: ProcessRow
    community: str
    held: bool = False


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
) -> Started:
    """Create a process and start it: here (waiting `start_timeout` at most), or in a worker.

    Raises a Problem when its parameters or the platform refuse at once; in the second case it is kept as failed.
    """
    if options.callback_url is not None:
        check_outside_url(use.egress, options.callback_url, "/callback_url")
    instance, now = await instances.choose(use.db.pool, use.vault, community_id, plugin, options.community_platform_id)
    if instance.status == "needs_auth":
        raise Conflict(f"{plugin} needs its credentials renewed before it can start anything", slug="needs_auth")
    try:
        spec.cls.check(params, now)
    except PluginError as error:
        raise as_problem(error, plugin) from error
    async with use.db.begin() as session:
        row, created = await _create(session, driver_id, instance, spec, options, params, idempotency_key, inline)
    reached(KillPoint.START_STORED)
    if not created:
        return Started(row, instance.community)
    if not inline:
        use.wake.poke("processes")
        return Started(row, instance.community)
    caller = Caller()
    task = asyncio.create_task(run_start(use, instance, spec, row, caller))
    use.background.add(task)
    task.add_done_callback(use.background.discard)
    done, _ = await asyncio.wait({task}, timeout=use.start_timeout)
    if not done:
        # From here on the driver is told by an event, unless what came of it is being committed for the answer.
        caller.waits = False
        if caller.answered:
            done, _ = await asyncio.wait({task}, timeout=_COMMIT_SECONDS)
    if done and (refusal := task.result()) is not None:
        raise refusal
    async with use.db.begin() as session:
        row = (await session.scalars(select(ProcessRow).where(ProcessRow.id == row.id))).one()
    return Started(row, instance.community, held=caller.answered)


async def release(use: Runner, row: ProcessRow, delay: timedelta) -> None:
    """The driver knows the process's id, or will after `delay`: from then on it may be told more."""
    async with use.db.begin() as session:
        await session.execute(
            update(ProcessRow)
            .where(ProcessRow.id == row.id, ProcessRow.epoch == row.epoch, ProcessRow.lease_until.is_not(None))
            .values(lease_until=func.clock_timestamp() + delay)
            .execution_options(synchronize_session=False)
        )
    use.wake.poke("processes")


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
    use: Runner, instance: InstanceData, spec: ProcessSpec, row: ProcessRow, caller: Caller | None = None
) -> Exception | None:
    """Ask the platform, under the row's lease, and write what came of it.

    Returns the problem that a waiting `caller` is answered with, if there is one.
    """
    searching = row.starting and row.attempt > 0
    try:
        now = await use.db.now()
        process = use.bind(spec, instance, row, now, row.idempotency_key)
        params = spec.params.model_validate(row.params)
        step: Any = None
        if searching:
            if not spec.can_find_started:
                step = Failed(
                    {"start_unknown": "the platform may or may not have it: the answer to its start was lost"}
                )
            else:
                step = await run(
                    process.find_started(params), seconds=use.timeout, what="find_started", instance=instance
                )
        if step is None:
            searching = False
            if not row.starting:
                await _mark_starting(use, row)
            reached(KillPoint.START_MARKED)
            step = await run(process.start(params), seconds=use.timeout, what="start", instance=instance)
            reached(KillPoint.START_ANSWERED)
    except ValidationError:
        unreadable = UnreadableInstance("its parameters were written by another version of the plugin")
        return await _start_failed(use, instance, spec, row, unreadable, caller)
    except (PluginError, PluginCrashed, UnreadableInstance) as error:
        return await _start_failed(use, instance, spec, row, error, caller, searching)
    async with use.db.begin() as session:
        current = await _locked(session, row)
        if spec.cls.observe_every is not None and spec.observes:
            current.observe_at = now + spec.cls.observe_every
        current.version = 1
        await commit(session, use.host, [Emission(instance, process.plugin.emitted)])
        await _write_start(session, instance, spec, current, step, now, caller)
        if caller is not None and caller.answered:
            # The lease stays until the answer is out: nothing is told of a process whose id nobody knows.
            current.next_at = now
            current.lease_until = func.clock_timestamp() + _ANSWER_LEASE
            await session.flush()
        elif not await work.finish(session, current, next_at=func.clock_timestamp()):
            raise work.LostLease
    reached(KillPoint.START_COMMITTED)
    use.wake.poke("processes", "deliveries", "effects")
    return None


async def _write_start(
    session: AsyncSession,
    instance: InstanceData,
    spec: ProcessSpec,
    current: ProcessRow,
    step: Any,
    now: datetime,
    caller: Caller | None,
) -> None:
    """Write the first step into the row, and what follows from it beside it."""
    course = Course(spec, current.id, status="created", closing_at=current.closing_at)
    course.take(step)
    transition = rows.keep(current, course, at=now, kind="start", keep_state=True)
    current.state = None if course.state is None else course.state.model_dump(mode="json")
    current.starting = False
    current.paused_at = None
    await session.flush()
    await history.write(session, [transition])
    await rows.write_effects(session, [(current.id, effect) for effect in course.then])
    if caller is None or not caller.tell():
        await record(session, [told(instance, current, transition)])
    else:
        current.untold = current.status == "completed"
        await session.flush()


async def _locked(session: AsyncSession, row: ProcessRow) -> ProcessRow:
    """The row as it is now, locked. Raises LostLease when another worker has it, or has started it."""
    current = await rows.held(session, row)
    if current.status != "created":
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
    caller: Caller | None,
    searching: bool = False,
) -> Exception | None:
    """Try again later, or give up and say why. `searching`: an earlier start was being looked for."""
    async with use.db.begin() as session:
        current = await _locked(session, row)
        if isinstance(error, Retry) and row.attempt < _MOST_ATTEMPTS:
            # A deliberate Retry says that nothing was opened; a broken connection leaves that open, and so does a
            # search that was put off.
            current.starting = searching or isinstance(error, Ambiguous)
            await session.flush()
            wait = timedelta(seconds=error.after) if error.after else work.backoff(max(1, row.attempt), first=2)
            # Waiting for a turn counts as no attempt, however many are before it.
            await work.fail(session, current, retry_in=wait, attempt=max(1, row.attempt - isinstance(error, PutOff)))
            return None
        if isinstance(error, Unauthorized):
            await needs_auth(session, instance, error.reason)
        if isinstance(error, sdk.Invalid) and caller is not None and caller.tell():
            # What was asked for could not be: there is no process, as with parameters that do not fit their schema.
            await session.delete(current)
            return as_problem(error, instance.plugin)
        reason = str(error) if isinstance(error, PluginError | UnreadableInstance) else "the plugin's code failed"
        await _end(session, instance, spec, current, Failed({"start": reason}), caller)
    use.wake.poke("deliveries")
    return (
        Conflict(str(error), slug="parked")
        if isinstance(error, UnreadableInstance)
        else as_problem(error, instance.plugin)
    )


async def give_up(use: Runner, instance: InstanceData, spec: ProcessSpec, row: ProcessRow, why: str) -> None:
    """End a process that was never opened, because its instance is out of use."""
    errors = {why: "its plugin was taken out of use before it was opened"}
    if row.starting:
        errors["start_unknown"] = "the platform may or may not have it: the answer to its start was lost"
    async with use.db.begin() as session:
        await _end(session, instance, spec, await _locked(session, row), Failed(errors), None)
    use.wake.poke("deliveries")


async def _end(
    session: AsyncSession,
    instance: InstanceData,
    spec: ProcessSpec,
    current: ProcessRow,
    failed: Failed,
    caller: Caller | None,
) -> None:
    now = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    await _write_start(session, instance, spec, current, failed, now, caller)
    # Whoever waits is told by the problem it is answered with.
    current.untold = False
    await session.flush()
    await work.finish(session, current)
