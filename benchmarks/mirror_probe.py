"""Mirrors a made-up Discord server and archives it, a process of its own: a JSON job on stdin, JSON on stdout.

The platform answers from memory and at once, so what takes time is normalising and storing.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import asyncpg
import httpx
import uvloop

from app.core.db import plain_dsn
from app.core.log import configure_logging
from app.core.settings import Settings, load_settings
from app.gateway import Gateway, open_gateway
from app.host.binding import Host
from app.host.discovery import Loaded, discover
from app.mirrors.columns import Table, tables_of
from app.mirrors.mirrors import Mirrors
from app.mirrors.runs import ask_for_run
from app.mirrors.walking import sync_due
from app.runtime import instances
from app.runtime.credentials import CredentialStore
from benchmarks.apart import answer, read_job, say
from benchmarks.mirror_archive import GROWN, archive_grown
from metagov_sdk import Limit
from plugins.discord import buckets, manifest

_PAGE = 100
_PER_CHANNEL = 2_000
_FIRST = 1_100_000_000_000_000_000
_MESSAGE = (
    '{"id":"%d","type":0,"channel_id":"%s","author":{"id":"%d","username":"person%d","discriminator":"0","avatar":null,'
    '"public_flags":0,"flags":0},"content":"message %d, of about the length that people write in a chat room",'
    '"timestamp":"2026-01-02T03:04:05.678000+00:00","edited_timestamp":null,"tts":false,"mention_everyone":false,'
    '"mentions":[],"mention_roles":[],"attachments":[],"embeds":[],"components":[],"pinned":false,"flags":0}'
)


class Server:
    """A server of so many messages."""

    def __init__(self, rows: int) -> None:
        self.channels = {
            str(number + 1): min(_PER_CHANNEL, rows - start)
            for number, start in enumerate(range(0, rows, _PER_CHANNEL))
        }

    def answer(self, request: httpx.Request) -> httpx.Response:
        """What Discord would answer."""
        parts = request.url.path.strip("/").split("/")[2:]
        if parts[-1] == "messages":
            return self._messages(parts[1], int(request.url.params["after"]))
        if parts[-1] == "channels":
            return httpx.Response(200, json=[{"id": each, "type": 0, "name": each} for each in self.channels])
        if "threads" in parts:
            return httpx.Response(200, json={"threads": [], "members": [], "has_more": False})
        if parts[-1] == "members":
            return httpx.Response(200, json=[])
        return httpx.Response(200, json={"id": "1", "name": "server", "roles": []})

    def _messages(self, channel: str, after: int) -> httpx.Response:
        # Ids as Discord gives them: unique over all channels, rising within each.
        first = _FIRST + int(channel) * _PER_CHANNEL
        start = max(after - first + 1, 0)
        numbers = range(start, min(start + _PAGE, self.channels[channel]))
        messages = [_MESSAGE % (first + number, channel, 10 + number % 500, number % 500, number) for number in numbers]
        return httpx.Response(
            200, content=f"[{','.join(messages)}]".encode(), headers={"content-type": "application/json"}
        )


def resident_mb() -> float:
    """This process's memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def measure(job: Mapping[str, Any]) -> dict[str, Any]:
    """Mirror so many rows; copy as many; archive five times as many."""
    settings = load_settings()
    admin = await asyncpg.connect(plain_dsn(settings.database_url))
    name = f"benchmark_mirror_{os.getpid()}"
    base, _, query = settings.database_url.partition("?")
    url = f"{base.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")
    await admin.execute(f'CREATE DATABASE "{name}"')
    try:
        migrate = [sys.executable, "-m", "app.cli", "migrate"]
        environment = {**os.environ, "METAGOV_DATABASE_URL": url}
        await asyncio.to_thread(subprocess.run, migrate, check=True, env=environment, stdout=subprocess.DEVNULL)
        return await _measure(Settings(**{**settings.model_dump(), "database_url": url}), job)
    finally:
        await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        await admin.close()


async def _measure(settings: Settings, job: Mapping[str, Any]) -> dict[str, Any]:
    # The pace of Discord's own limits is not what is measured.
    for bucket in ("GLOBAL", "INVALID", "_INVALID_GUARD"):
        setattr(buckets, bucket, Limit(bucket.lower(), rate=1e6, per=1, burst=10_000))
    found = discover({})
    plugin = manifest.settings.model_validate({"bot_token": "benchmark"})
    plugins = replace(found, loaded=MappingProxyType({**found.loaded, "discord": Loaded(manifest, "", "", plugin)}))
    async with open_gateway(settings, plugins) as gateway:
        server = Server(job["rows"])
        host = Host(
            plugins,
            public_url=settings.public_url,
            connect=lambda _=None: httpx.AsyncClient(transport=httpx.MockTransport(server.answer)),
            vault=gateway.vault,
            credentials=CredentialStore(gateway.db, gateway.vault),
        )
        use = replace(gateway.mirrors, host=host)
        seconds, early, late = await _mirror(use, job["rows"])
        assert manifest.provider is not None
        table = tables_of(manifest.provider)["message"]
        stored = await gateway.db.pool.fetchval(f"SELECT count(*) FROM {table.sql} WHERE deleted_at IS NULL")
        instance = await instances.by_id(gateway.db.pool, gateway.vault, "ins")
        assert instance is not None
        say(f"archive of a mirror, {GROWN * stored:,} rows")
        archived = await archive_grown(use, plain_dsn(settings.database_url), instance[0], manifest.provider, table)
        # Last, because it holds what it copies.
        copied = await _copy(gateway, table)
    measured = {"rows": stored, "seconds": seconds, "early_mb": early, "late_mb": late, "copy_seconds": copied}
    return measured | archived


async def _mirror(use: Mirrors, rows: int) -> tuple[float, float, float]:
    pool = use.db.pool
    await pool.execute("INSERT INTO drivers (id, name, signing_secret) VALUES ('drv', 'benchmark', '')")
    await pool.execute("INSERT INTO communities (id, driver_id, slug, readable_name) VALUES ('com', 'drv', 'c', 'c')")
    await pool.execute(
        "INSERT INTO instances (id, community_id, plugin, community_platform_id, config, secrets, config_version, "
        "generation, status) VALUES ('ins', 'com', 'discord', '1', '{\"guild_id\": \"1\"}', '', 1, 1, 'enabled')"
    )
    found = await instances.by_id(pool, use.vault, "ins")
    spec = use.spec("discord")
    assert found is not None
    assert spec is not None
    async with use.db.begin() as session:
        await ask_for_run(session, found[0], spec, sweep=False)
    early = 0.0
    begun = time.perf_counter()
    working = asyncio.create_task(_drain(use))
    while not working.done():
        await asyncio.wait({working}, timeout=1)
        done = await pool.fetchval("SELECT coalesce(sum((rows ->> 'message')::bigint), 0) FROM mirror_partitions")
        if not early and done >= rows / 10:
            early = resident_mb()
        say(f"mirror, {done:,} of {rows:,} rows")
    await working
    return time.perf_counter() - begun, early or resident_mb(), resident_mb()


async def _drain(use: Mirrors) -> None:
    while await sync_due(use):
        pass


async def _copy(gateway: Gateway, table: Table) -> float:
    """The same rows by COPY into a table of the same columns, with its key and nothing else."""
    rows = await gateway.db.pool.fetch(f"SELECT * FROM {table.sql} LIMIT 100000")
    connection = await asyncpg.connect(plain_dsn(gateway.settings.database_url))
    try:
        await connection.execute(f"CREATE TABLE bare (LIKE {table.sql}, PRIMARY KEY (instance_id, id))")
        records = [tuple(row) for row in rows]
        begun = time.perf_counter()
        await connection.copy_records_to_table("bare", records=records)
        return (time.perf_counter() - begun) / len(records)
    finally:
        await connection.close()


if __name__ == "__main__":
    configure_logging(load_settings())
    answer(uvloop.run(measure(read_job())))
