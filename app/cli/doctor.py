"""`metagov doctor`: looks at everything a deployment needs, and says the mend for what is wrong."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import click
from pydantic import ValidationError
from redis.exceptions import RedisError
from rich.console import Console

from app.console.heartbeats import alive
from app.core.crypto import UnreadableSecret, Vault
from app.core.db import Database
from app.core.egress import EgressPolicy, EgressRefused
from app.core.settings import Settings, load_settings
from app.gateway import connect_redis
from app.host.discovery import discover
from app.mirrors.schema import find_pending

_CLOCK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    fine: bool
    says: str


@click.command()
def doctor() -> None:
    """Check settings, database, Redis, keys, clock, plugins and egress; exits 1 when something is wrong."""
    findings = asyncio.run(_examine())
    console = Console(highlight=False)
    for finding in findings:
        mark = "[green]ok  [/]" if finding.fine else "[red]bad [/]"
        console.print(f"{mark} [bold]{finding.what:<10}[/] ", end="")
        console.print(finding.says, markup=False)
    sys.exit(0 if all(finding.fine for finding in findings) else 1)


async def _examine() -> list[Finding]:
    try:
        settings = load_settings()
    except ValidationError as error:
        return [
            Finding("settings", False, f"METAGOV_{str(item['loc'][0]).upper()}: {item['msg']}")
            for item in error.errors(include_input=False)
        ]
    findings = [Finding("settings", True, "readable"), _keys(settings), _egress(settings)]
    findings += [finding async for finding in _database(settings)]
    findings.append(await _redis(settings))
    broken = discover().broken
    findings += [Finding("plugins", False, f"{item.name} ({item.distribution}): {item.reason}") for item in broken]
    if not broken:
        findings.append(Finding("plugins", True, f"{len(discover().loaded)} loaded"))
    return findings


def _keys(settings: Settings) -> Finding:
    if not settings.fernet_keys:
        return Finding("keys", False, "METAGOV_SECRET_KEYS is empty: set at least one Fernet key")
    return Finding("keys", True, f"{len(settings.fernet_keys)} in METAGOV_SECRET_KEYS; the first encrypts")


def _egress(settings: Settings) -> Finding:
    try:
        EgressPolicy(settings.allow_private_networks, settings.egress_allow).check_url("https://example.org/")
    except (ValueError, EgressRefused) as error:
        return Finding("egress", False, f"METAGOV_EGRESS_ALLOW: {error}")
    if settings.allow_private_networks:
        return Finding(
            "egress", True, "open into private networks (METAGOV_ALLOW_PRIVATE_NETWORKS); unset it in production"
        )
    return Finding("egress", True, "private networks are closed")


async def _database(settings: Settings) -> AsyncIterator[Finding]:
    try:
        async with Database(settings) as db:
            here = time.time()
            there = (await db.now()).timestamp()
            version = await db.pool.fetchval("SHOW server_version")
            yield Finding("database", True, f"Postgres {version}")
            skew = there - (here + time.time()) / 2
            yield Finding(
                "clock",
                abs(skew) < _CLOCK_SECONDS,
                f"{skew:+.2f} s between the database and here"
                + ("" if abs(skew) < _CLOCK_SECONDS else "; run NTP: webhooks signed with a time would be refused"),
            )
            yield await _schema(db)
            for finding in await _mirrors(db):
                yield finding
            yield await _workers(db)
            yield await _readable(db, settings)
    except ValueError as error:
        yield Finding("database", False, str(error))
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        yield Finding("database", False, f"{type(error).__name__}: {error}; check METAGOV_DATABASE_URL")


async def _schema(db: Database) -> Finding:
    try:
        version = await db.pool.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return Finding("schema", False, "no tables yet: run `metagov migrate`")
    return Finding("schema", True, f"at revision {version}")


async def _mirrors(db: Database) -> list[Finding]:
    manifests = (loaded.manifest for loaded in discover().loaded.values())
    specs = [manifest.provider for manifest in manifests if manifest.provider is not None]
    async with db.begin() as session:
        pending = await find_pending(session, specs)
    if not pending:
        return [Finding("mirrors", True, f"the tables of {len(specs)} providers are as their plugins have them")]
    return [Finding("mirrors", False, f"{provider} rests: {reason}") for provider, reason in sorted(pending.items())]


async def _workers(db: Database) -> Finding:
    try:
        running = await alive(db)
    except asyncpg.UndefinedTableError:
        return Finding("workers", False, "no tables yet: run `metagov migrate`")
    if not running:
        return Finding("workers", False, "none has been heard of in 30 seconds: start `metagov worker`")
    digests = {digest for _, digest in running}
    if digests != {discover().digest}:
        return Finding("workers", False, "they run other plugins than are installed here; restart what is older")
    return Finding("workers", True, f"{len(running)} running, with the plugins installed here")


async def _readable(db: Database, settings: Settings) -> Finding:
    if not settings.fernet_keys:
        return Finding("secrets", False, "cannot be read without METAGOV_SECRET_KEYS")
    try:
        sealed = await db.pool.fetch("SELECT signing_secret FROM drivers")
        vault = Vault(settings.fernet_keys)
        for row in sealed:
            vault.open(row["signing_secret"])
    except asyncpg.UndefinedTableError:
        return Finding("secrets", True, "none stored yet")
    except UnreadableSecret as error:
        return Finding("secrets", False, str(error))
    return Finding("secrets", True, f"the stored secrets of {len(sealed)} drivers can be read")


async def _redis(settings: Settings) -> Finding:
    try:
        redis = connect_redis(settings)
        async with redis:
            info = await redis.info("server")
    except ValueError as error:
        return Finding("redis", False, str(error))
    except (RedisError, OSError, TimeoutError) as error:
        return Finding(
            "redis", False, f"{type(error).__name__}: {error}; check METAGOV_REDIS_URL. Work goes on by sweeping"
        )
    return Finding("redis", True, f"version {info.get('valkey_version') or info.get('redis_version')}")
