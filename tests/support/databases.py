"""Databases for tests: one server per run, one migrated database per pytest worker, emptied between tests."""

from __future__ import annotations

import os
import subprocess
import sys

import asyncpg

from app.core.db import plain_dsn

SERVER_URL = "METAGOV_TEST_DATABASE_URL"
REDIS_URL = "METAGOV_TEST_REDIS_URL"

# Everything hangs on drivers but these; `era` and Alembic's own table keep their rows.
_EMPTY = """
DELETE FROM events; DELETE FROM attempts; DELETE FROM heartbeats; DELETE FROM processes; DELETE FROM receipts;
DELETE FROM seen; DELETE FROM credentials; DELETE FROM rate_limits; DELETE FROM rate_limit_aliases;
DELETE FROM communities; DELETE FROM drivers;
"""


def database_url(name: str) -> str:
    """The URL of another database on the test server."""
    base, _, query = os.environ[SERVER_URL].partition("?")
    return f"{base.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")


async def create_empty(name: str) -> str:
    """A fresh database without tables; returns its URL."""
    await drop_database(name)
    admin = await asyncpg.connect(plain_dsn(os.environ[SERVER_URL]))
    try:
        await admin.execute(f'CREATE DATABASE "{name}"')
    finally:
        await admin.close()
    return database_url(name)


async def create_database(name: str) -> str:
    """A fresh, migrated database; returns its URL."""
    url = await create_empty(name)
    subprocess.run(
        [sys.executable, "-m", "app.cli", "migrate"],
        check=True,
        env={**os.environ, "METAGOV_DATABASE_URL": url},
        stdout=subprocess.DEVNULL,
        timeout=60,
    )
    return url


async def drop_database(name: str) -> None:
    """Remove a database if it is there, with whoever is connected to it."""
    admin = await asyncpg.connect(plain_dsn(os.environ[SERVER_URL]))
    try:
        await admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    finally:
        await admin.close()


async def empty(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    """Remove every row that a test made."""
    await pool.execute(_EMPTY)
