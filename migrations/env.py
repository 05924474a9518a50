"""Alembic's environment: one async connection, from `metagov migrate` or from METAGOV_DATABASE_URL."""

from __future__ import annotations

import asyncio
from functools import cache

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.db import Database
from app.core.settings import load_settings
from app.tables import metadata

# Two API processes that migrate at once take turns.
_MIGRATION_LOCK = 7_163_584_220_154_377


def _migrate(connection: Connection) -> None:
    @cache
    def partitions() -> set[str]:
        return set(connection.scalars(text("SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'")))

    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_server_default=False,
        # Partitions come and go with time; their parents are what the models describe.
        include_name=lambda name, kind, _: kind != "table" or name not in partitions(),
    )
    with context.begin_transaction():
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
        context.run_migrations()


async def _run() -> None:
    database = Database(load_settings())
    try:
        async with database.engine.connect() as connection:
            await connection.run_sync(_migrate)
            await connection.commit()
    finally:
        await database.engine.dispose()


given: Connection | AsyncConnection | None = context.config.attributes.get("connection")
if isinstance(given, Connection):
    _migrate(given)
else:
    asyncio.run(_run())
