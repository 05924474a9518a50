"""The database: one asyncpg pool for hot reads, one SQLAlchemy engine for transactions.

`Database.begin()` is the only place a transaction starts and commits; services take its session and never commit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TypeAlias

import asyncpg
from sqlalchemy import DateTime, MetaData, event, text
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.engine.interfaces import AdaptedConnection
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import UserDefinedType

from app.core.settings import Settings

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

_CONNECT_TIMEOUT = 3.0
_HOT_TIMEOUT = 8.0
"""Seconds for a hot statement: who asks by way of a server that stands still hears of it before giving up."""
_HAND_OVER_TIMEOUT = 4.0
"""Seconds to wait for a free connection, and for one whose statement was cut off before it is dropped."""
_CLOSE_SECONDS = 2.0
_COMMAND_TIMEOUT = 35.0
"""Longer than the server's own limit on a statement: only a server that has stopped answering meets it."""
_POOL_TIMEOUT = 30.0
_SERVER_SETTINGS = {
    "application_name": "metagov",
    "timezone": "UTC",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "30s",
    "jit": "off",
}

_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    # A server too slow for its own limits is as good as away: what was asked is not done, and may be asked again.
    asyncpg.QueryCanceledError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InterfaceError,
    # What asyncpg says of a connection that broke between two steps of a statement.
    asyncpg.InternalClientError,
)


class Base(DeclarativeBase):
    """The one registry of tables. Constraint names are spelled out so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: DateTime(timezone=True)}  # noqa: RUF012 -- SQLAlchemy's own attribute


class Xid8(UserDefinedType[int]):
    """Postgres's 64-bit transaction id, written by a server default and only ever compared in SQL."""

    cache_ok = True

    def get_col_spec(self, **kw: object) -> str:
        return "xid8"


# Lets Alembic recognise the type when it reads a database back.
ischema_names["xid8"] = Xid8


class _BoundedPool(asyncpg.Pool):  # type: ignore[misc]  # asyncpg has no types
    """Waits a while for a connection, and not for ever; asyncpg's own has no such limit for `fetch` and its like."""

    def acquire(self, *, timeout: float | None = None) -> asyncpg.pool.PoolAcquireContext:
        return super().acquire(timeout=_HAND_OVER_TIMEOUT if timeout is None else timeout)


class Database:
    """Connections to one Postgres. Use as an async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._dsn = plain_dsn(settings.database_url)
        self._size = settings.database_pool
        self._pool: Pool | None = None
        self.engine: AsyncEngine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self._connect,
            pool_size=self._size,
            max_overflow=0,
            pool_timeout=_POOL_TIMEOUT,
            # Parameters are configs and payloads: what an error says of them would end in the log.
            hide_parameters=True,
        )
        event.listen(self.engine.sync_engine, "checkout", _refuse_closed)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    async def _connect(self) -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(
            self._dsn,
            timeout=_CONNECT_TIMEOUT,
            command_timeout=_COMMAND_TIMEOUT,
            server_settings=_SERVER_SETTINGS,
        )

    async def __aenter__(self) -> Database:
        self._pool = _BoundedPool(
            self._dsn,
            min_size=0,
            max_size=self._size,
            max_queries=50_000,
            max_inactive_connection_lifetime=300.0,
            timeout=_CONNECT_TIMEOUT,
            command_timeout=_HOT_TIMEOUT,
            server_settings=_SERVER_SETTINGS,
            reset=_leave_as_is,
            loop=None,
            connection_class=asyncpg.Connection,
            record_class=asyncpg.Record,
        )
        await self._pool
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._pool is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._pool.close(), _CLOSE_SECONDS)
            self._pool.terminate()
        await self.engine.dispose()

    @property
    def pool(self) -> Pool:
        """For hot statements that need no transaction of several steps, and that leave nothing behind in the session:

        no SET, LISTEN, cursor or advisory lock, for a connection is handed on as it is.
        """
        if self._pool is None:
            raise RuntimeError("the database is not open: use `async with Database(settings)`")
        return self._pool

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncSession]:
        """One transaction: committed when the block ends, rolled back when it raises."""
        async with self._sessions() as session, session.begin():
            yield session

    async def now(self) -> datetime:
        """The database's clock, the only one that deadlines are measured by."""
        now: datetime = await self.pool.fetchval("SELECT clock_timestamp()")
        return now


def _refuse_closed(connection: AdaptedConnection, record: object, proxy: object) -> None:
    """Have the pool replace a connection that is known to be lost.

    asyncpg hears of it when the server closes the socket; asking the server itself, as `pool_pre_ping` does, would cost
    each transaction a round trip.
    """
    if connection.driver_connection is None or connection.driver_connection.is_closed():
        raise DisconnectionError


async def _leave_as_is(connection: object) -> None:
    """Instead of asyncpg's reset, a second round trip after each statement that would undo what none of ours does."""


def plain_dsn(url: str) -> str:
    """A URL asyncpg understands, whichever dialect's spelling the operator used."""
    if not url:
        raise ValueError("METAGOV_DATABASE_URL is not set: name a Postgres, or run `metagov dev`, which brings its own")
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.split("+")[0] not in ("postgresql", "postgres"):
        raise ValueError("METAGOV_DATABASE_URL should look like postgresql://user:password@host/name")
    return f"postgresql://{rest}"


def is_away(error: BaseException) -> bool:
    """True when `error` says that the database could not be reached (and not that a statement was wrong)."""
    if isinstance(error, PoolTimeout):
        return True
    if isinstance(error, DBAPIError):
        cause = error.orig.__cause__ if error.orig is not None else None
        return error.connection_invalidated or (_says_away(cause) if cause else isinstance(error, InterfaceError))
    return _says_away(error)


def _says_away(error: BaseException) -> bool:
    # asyncpg's word for a parameter it cannot encode is an InterfaceError too, and a ValueError besides.
    return isinstance(error, _AWAY) and not isinstance(error, ValueError)


async def current_time(session: AsyncSession) -> datetime:
    """The database's clock, read inside a transaction."""
    now: datetime = (await session.execute(text("SELECT clock_timestamp()"))).scalar_one()
    return now
