"""Transactions, and telling a database that is away from a statement that is wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.core.db import Database, is_away
from app.gateway import Gateway
from tests.conftest import make_settings
from tests.support.servers import free_port


async def write(db: Database, error: Exception | None) -> None:
    async with db.begin() as session:
        await session.execute(text("INSERT INTO heartbeats (id, role, digest) VALUES ('x', 'r', 'd')"))
        if error:
            raise error


async def test_a_block_is_one_transaction(gateway: Gateway) -> None:
    with pytest.raises(ZeroDivisionError):
        await write(gateway.db, ZeroDivisionError())
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM heartbeats WHERE id = 'x'") == 0
    await write(gateway.db, None)
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM heartbeats WHERE id = 'x'") == 1


async def run(db: Database, statement: str, **parameters: Any) -> None:
    async with db.begin() as session:
        await session.execute(text(statement), parameters)


async def test_what_says_that_it_is_away() -> None:
    async with Database(make_settings(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing")) as away:
        for attempt in (away.now(), run(away, "SELECT 1")):
            with pytest.raises((OSError, DBAPIError)) as caught:
                await attempt
            assert is_away(caught.value), repr(caught.value)
    assert is_away(PoolTimeout())
    assert is_away(asyncpg.CannotConnectNowError())
    assert is_away(asyncpg.InternalClientError("another operation is in progress")), "of a connection that broke"


async def test_a_server_past_its_own_limits_is_as_good_as_away(gateway: Gateway) -> None:
    async def too_slow() -> None:
        async with gateway.db.begin() as session:
            await session.execute(text("SET LOCAL statement_timeout = '50ms'"))
            await session.execute(text("SELECT pg_sleep(5)"))

    async def idle_for_too_long() -> None:
        async with gateway.db.begin() as session:
            await session.execute(text("SET LOCAL idle_in_transaction_session_timeout = '50ms'"))
            await asyncio.sleep(0.3)
            await session.execute(text("SELECT 1"))

    for attempt in (too_slow(), idle_for_too_long()):
        with pytest.raises(DBAPIError) as caught:
            await attempt
        assert is_away(caught.value), repr(caught.value)


async def test_nobody_waits_for_ever_for_a_connection(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.core.db._HAND_OVER_TIMEOUT", 0.2)
    async with Database(gateway.settings.model_copy(update={"database_pool": 2})) as small:
        async with small.pool.acquire(), small.pool.acquire(), asyncio.timeout(10):
            with pytest.raises(TimeoutError) as caught:
                await small.pool.fetchval("SELECT 1")
            assert is_away(caught.value)
        assert await small.pool.fetchval("SELECT 1") == 1


async def test_what_only_says_that_a_statement_is_wrong(gateway: Gateway) -> None:
    for query, value in (("SELECT $1::int", "x"), ("SELECT $1::text", 1), ("SELECT $1::text", "\0"), ("SELEC $1", 1)):
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)) as caught:
            await gateway.db.pool.fetchval(query, value)
        assert not is_away(caught.value), repr(caught.value)
    for statement, parameters in (("SELECT CAST(:x AS int)", {"x": "y"}), ("SELECT nonesuch", {})):
        with pytest.raises(DBAPIError) as wrong:
            await run(gateway.db, statement, **parameters)
        assert not is_away(wrong.value), repr(wrong.value)
    assert not is_away(ZeroDivisionError())


async def test_errors_do_not_repeat_parameters(gateway: Gateway) -> None:
    with pytest.raises(DBAPIError) as caught:
        await run(gateway.db, "SELECT nonesuch WHERE :x = 'a'", x="s3cret")
    assert "s3cret" not in str(caught.value)
