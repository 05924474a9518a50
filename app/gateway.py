"""The composition root: everything a process of the gateway is made of, opened together and closed together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
from redis.asyncio import Redis

from app.actions.service import Performer
from app.archives.forget import archive_step
from app.archives.service import Archives
from app.core import killpoints
from app.core.crypto import Vault
from app.core.db import Database
from app.core.egress import EgressPolicy, GuardedTransport, plugin_client
from app.core.settings import Settings
from app.core.wake import Wake
from app.graphs.forget import graph_step
from app.graphs.service import Graphs
from app.host.binding import Host
from app.host.discovery import Plugins, discover
from app.inbound.handle import Inbox
from app.inbound.targets import Targets
from app.installs.installer import Installer
from app.installs.oauth.state import States
from app.installs.oauth.visits import OAuthFlow
from app.mirrors.forget import Forgetting
from app.mirrors.forget_steps import MIRROR_STEPS
from app.mirrors.mirrors import Mirrors
from app.processes.access import Mailroom
from app.processes.runner import Runner
from app.runtime.credentials import CredentialStore
from app.runtime.limits_http import PacedTransport
from metagov_sdk import Plugin

_REDIS_TIMEOUT = 2.0
_STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts, each with what it needs of the others."""

    settings: Settings
    db: Database
    redis: Redis
    wake: Wake
    vault: Vault
    host: Host
    egress: EgressPolicy
    targets: Targets
    installer: Installer
    oauth: OAuthFlow
    performer: Performer
    runner: Runner
    inbox: Inbox
    archives: Archives
    mirrors: Mirrors
    graphs: Graphs
    forgetting: Forgetting
    """Whatever keeps something that is made of mirrors adds its step."""


@contextlib.asynccontextmanager
async def open_gateway(settings: Settings, plugins: Plugins | None = None) -> AsyncIterator[Gateway]:
    """Open connections and bind `plugins` (or those discovery finds). Postgres has to be there, Redis need not."""
    killpoints.arm(settings.test_kill_at)
    vault = Vault(settings.fernet_keys)
    egress = EgressPolicy(settings.allow_private_networks, settings.egress_allow)
    transport = GuardedTransport(egress)

    db = Database(settings)

    def connect(plugin: Plugin[Any, Any, Any] | None = None) -> httpx.AsyncClient:
        paced = transport if plugin is None else PacedTransport(db, plugin, transport)
        return plugin_client(egress, transport=paced)

    credentials = CredentialStore(db, vault)
    host = Host(
        plugins or discover(), public_url=settings.public_url, connect=connect, vault=vault, credentials=credentials
    )
    redis = connect_redis(settings)
    wake = Wake(redis)
    async with db:
        runner = Runner(
            db,
            host,
            vault,
            wake,
            egress,
            settings.start_timeout,
            settings.handler_timeout,
            barrier=timedelta(seconds=settings.barrier_seconds),
            grace=timedelta(hours=settings.grace_hours),
        )
        archives = Archives(settings, db.pool)
        graphs = Graphs.of(settings, db, host, vault, wake, archives, egress)
        mirrors = Mirrors(
            db,
            host,
            vault,
            wake,
            settings.handler_timeout,
            at_once=settings.mirror_pages_at_once,
            keep_answers=settings.mirror_keep_answers,
        )
        installer = Installer(db, host, vault, settings.handler_timeout)
        try:
            yield Gateway(
                settings=settings,
                db=db,
                redis=redis,
                wake=wake,
                vault=vault,
                host=host,
                egress=egress,
                targets=Targets(db, host, vault),
                installer=installer,
                oauth=OAuthFlow(installer, States(settings.fernet_keys)),
                performer=Performer(
                    db, host, vault, wake, settings.action_timeout, Mailroom(db, host, wake), graphs.reader
                ),
                runner=runner,
                inbox=Inbox(db, host, vault, wake, settings.handler_timeout),
                archives=archives,
                graphs=graphs,
                mirrors=mirrors,
                forgetting=Forgetting(mirrors, (*MIRROR_STEPS, archive_step(archives), graph_step(graphs))),
            )
        finally:
            if runner.background:
                # A start on its way to a platform is let finish; a worker takes over what is cut off here.
                await asyncio.wait(runner.background, timeout=_STOP_SECONDS)
            await credentials.aclose(_STOP_SECONDS)
            await wake.aclose()
            await redis.aclose()
            await transport.aclose()


def connect_redis(settings: Settings, *, listening: bool = False) -> Redis:
    """A client that fails fast, because Redis is only ever a hint; one that is `listening` waits for ever instead."""
    if not settings.redis_url:
        raise ValueError(
            "METAGOV_REDIS_URL is not set: name a Redis or Valkey, or run `metagov dev`, which brings its own"
        )
    redis: Redis = Redis.from_url(
        settings.redis_url,
        socket_timeout=None if listening else _REDIS_TIMEOUT,
        socket_connect_timeout=_REDIS_TIMEOUT,
    )
    return redis
