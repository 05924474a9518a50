"""The worker: one loop per queue, woken by hints and by a sweep, and arq for what runs on a schedule.

The loops need Postgres alone. arq needs Redis; when that goes away, arq is started again once it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from arq import cron
from arq.connections import RedisSettings
from arq.worker import Worker as ArqWorker
from redis.exceptions import RedisError

from app.accounts.idempotency import forget_old_keys
from app.archives.moved import archive_moved
from app.archives.retention import sweep_scratch
from app.console.heartbeats import beat
from app.core.db import is_away
from app.core.egress import delivery_session
from app.core.ids import new_id
from app.core.log import configure_logging
from app.core.partitions import make_ahead
from app.core.settings import Settings, load_settings
from app.core.wake import Bells
from app.events.deliver import deliver_due
from app.events.retention import ATTEMPTS, EVENTS, drop_old_events
from app.gateway import Gateway, connect_redis, open_gateway
from app.graphs.builds import build_due, look_again, notice_moved
from app.graphs.sweep import sweep_graphs
from app.host.discovery import Plugins, discover
from app.inbound.handle import handle_due
from app.inbound.polls import run_polls_due, schedule_polls
from app.inbound.retention import RECEIPTS, drop_old_receipts
from app.installs.oauth.revocation import drop_credentials, drop_grants
from app.mirrors.forget import forget_due
from app.mirrors.retention import drop_gone_mirrors, drop_old_runs
from app.mirrors.runs import begin_due_runs
from app.mirrors.walking import sync_due
from app.processes.advance import advance_due
from app.processes.effects import perform_effects_due
from app.processes.retention import drop_old_effects
from app.runtime.limits import forget_limits
from app.runtime.retention import forget_seen, forget_signals

_PAUSE_AFTER_ERROR = 1.0
_SCHEDULE_SECONDS = 5.0
_BEAT_SECONDS = 10.0
_PARTITIONS_SECONDS = 3600.0
_ARCHIVE_SECONDS = 15.0
_GRAPHS_SECONDS = 5.0
_RETENTION_SECONDS = 1800
"""How long one run of dropping may take; the next goes on where it was cut off."""
_NICENESS = 5
_STOP_SECONDS = 6.0
"""How long work in hand may take to finish; what is cut off is taken up again when its lease ends."""

Drain = Callable[[], Awaitable[int]]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Drains:
    """One function per queue: work on one batch, return its size."""

    receipts: Drain
    deliveries: Drain
    processes: Drain
    effects: Drain
    polls: Drain
    mirrors: Drain
    graphs: Drain
    forgetting: Drain

    def items(self) -> list[tuple[str, Drain]]:
        """Queue names with their functions."""
        return [(name, getattr(self, name)) for name in self.__slots__]

    async def until_idle(self) -> int:
        """Work until no queue has anything due. Returns how many rows were worked on."""
        total = 0
        while True:
            done = 0
            for _, drain in self.items():
                done += await drain()
            if not done:
                return total
            total += done


@contextlib.asynccontextmanager
async def open_drains(gateway: Gateway, bells: Bells | None = None) -> AsyncIterator[Drains]:
    """The queues' functions, with the HTTP session that deliveries go through."""
    bells = bells or Bells(Drains.__slots__)
    async with delivery_session(gateway.egress) as http:
        yield Drains(
            receipts=lambda: handle_due(gateway.inbox, bells.of("receipts")),
            deliveries=lambda: deliver_due(gateway.db, http, gateway.vault, bells.of("deliveries")),
            processes=lambda: advance_due(gateway.runner, bells.of("processes")),
            effects=lambda: perform_effects_due(gateway.runner, bells.of("effects")),
            polls=lambda: run_polls_due(gateway.inbox, bells.of("polls")),
            mirrors=lambda: sync_due(gateway.mirrors, bells.of("mirrors")),
            graphs=lambda: build_due(gateway.graphs, bells.of("graphs")),
            forgetting=lambda: forget_due(gateway.forgetting, bells.of("forgetting")),
        )


async def run_worker(settings: Settings, plugins: Plugins | None = None, stop: asyncio.Event | None = None) -> None:
    """Work until `stop` is set (or SIGTERM or SIGINT comes), then finish what is in hand."""
    stop = stop or _stop_on_signals()
    bells = Bells(Drains.__slots__)
    async with open_gateway(settings, plugins) as gateway, open_drains(gateway, bells) as drains:
        loops = [
            asyncio.create_task(_loop(name, drain, bells, settings.sweep_seconds, stop))
            for name, drain in drains.items()
        ]
        tasks = [
            asyncio.create_task(_listen(bells, settings)),
            asyncio.create_task(_every(_SCHEDULE_SECONDS, lambda: schedule_polls(gateway.inbox))),
            asyncio.create_task(_every(_BEAT_SECONDS, _beating(gateway))),
            asyncio.create_task(_every(_PARTITIONS_SECONDS, lambda: make_partitions(gateway))),
            asyncio.create_task(_every(_ARCHIVE_SECONDS, lambda: archive_moved(gateway.mirrors, gateway.archives))),
            asyncio.create_task(_every(_GRAPHS_SECONDS, _noticing(gateway))),
            asyncio.create_task(_run_arq(settings, gateway)),
        ]
        _log.info("worker ready")
        await stop.wait()
        bells.ring(*(name for name, _ in drains.items()))
        await asyncio.wait(loops, timeout=_STOP_SECONDS)
        for task in loops + tasks:
            task.cancel()
        await asyncio.gather(*loops, *tasks, return_exceptions=True)


def _noticing(gateway: Gateway) -> Callable[[], Awaitable[object]]:
    """What looks for graphs that have to be made again; the first time it looks at all."""
    is_first = True

    async def notice() -> None:
        nonlocal is_first
        if is_first:
            await look_again(gateway.graphs)
            is_first = False
        await notice_moved(gateway.graphs)

    return notice


async def _listen(bells: Bells, settings: Settings) -> None:
    async with connect_redis(settings, listening=True) as redis:
        await bells.listen(redis)


async def _loop(name: str, drain: Drain, bells: Bells, sweep: float, stop: asyncio.Event) -> None:
    """Drain one queue, batch after batch, until `stop` is set."""
    while not stop.is_set():
        try:
            done = await drain()
        except Exception as error:
            # Whatever it was, the rows are still there: look again.
            _complain(error, "queue stalled; trying again", queue=name)
            await asyncio.sleep(_PAUSE_AFTER_ERROR)
        else:
            if not done:
                await bells.wait(name, sweep)


def _complain(error: Exception, event: str, **fields: str) -> None:
    """One line while the database is away; a traceback for what nobody foresaw."""
    if is_away(error):
        _log.warning(event, reason="the database cannot be reached", **fields)
    else:
        _log.error(event, exc_info=error, **fields)


async def _every(seconds: float, job: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await job()
        except Exception as error:
            # A schedule outlives whatever one of its runs meets.
            _complain(error, "scheduled work failed; trying again")
        await asyncio.sleep(seconds)


def _beating(gateway: Gateway) -> Callable[[], Awaitable[None]]:
    me = new_id("wrk")
    return lambda: beat(gateway.db, me, "worker", gateway.host.plugins.digest)


async def housekeeping(ctx: dict[str, Any]) -> None:
    """Once a minute, on one worker: drop what has served its time."""
    gateway = ctx["gateway"]
    await forget_old_keys(gateway.db)
    await drop_grants(gateway.db, gateway.host)
    await drop_credentials(gateway.db, gateway.host)
    await forget_limits(ctx["gateway"].db)


async def begin_mirror_runs(ctx: dict[str, Any]) -> None:
    """Twice a minute, on one worker: runs of mirrors whose time has come."""
    await begin_due_runs(ctx["gateway"].mirrors)


async def make_partitions(gateway: Gateway) -> None:
    """When a worker starts and once an hour, on each, without Redis: partitions for the time to come."""
    for table in (RECEIPTS, EVENTS, ATTEMPTS):
        await make_ahead(gateway.db, table, _kept(gateway))


async def drop_old(ctx: dict[str, Any]) -> None:
    """Once an hour, on one worker: drop what is older than METAGOV_RETENTION_DAYS."""
    gateway = ctx["gateway"]
    for drop in (
        drop_old_receipts,
        drop_old_events,
        drop_old_effects,
        drop_gone_mirrors,
        drop_old_runs,
        forget_seen,
    ):
        await drop(gateway.db, _kept(gateway))
    await forget_signals(gateway.db)
    await sweep_graphs(gateway.graphs)
    await sweep_scratch(gateway.db, gateway.archives)


def _kept(gateway: Gateway) -> timedelta:
    return timedelta(days=gateway.settings.retention_days)


async def _run_arq(settings: Settings, gateway: Gateway) -> None:
    """arq, started again whenever Redis comes back."""
    while True:
        arq = ArqWorker(
            cron_jobs=[
                cron(housekeeping, second=0),
                cron(begin_mirror_runs, second={15, 45}),
                cron(drop_old, minute=7, second=30, timeout=_RETENTION_SECONDS),
            ],
            redis_settings=RedisSettings.from_dsn(settings.redis_url),
            handle_signals=False,
            ctx={"gateway": gateway},
            job_serializer=lambda job: json.dumps(job).encode(),
            job_deserializer=json.loads,
            keep_result=0,
        )
        try:
            await arq.async_run()
        except (RedisError, OSError, TimeoutError) as error:
            _log.warning("arq lost Redis; starting it again", error=type(error).__name__)
            await asyncio.sleep(_PAUSE_AFTER_ERROR)


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def main() -> None:
    """`metagov worker`."""
    settings = load_settings()
    configure_logging(settings)
    plugins = discover()
    # What is built by now stays: the garbage collector need not walk it again and again.
    gc.collect()
    gc.freeze()
    # On a machine they share, taking webhooks goes before handling them: what is stored can wait.
    os.nice(_NICENESS)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(run_worker(settings, plugins))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop that uvicorn gives the API too."""
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop
