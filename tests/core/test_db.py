"""Transactions, and telling a database that is away from a statement that is wrong."""

from __future__ import annotations

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.core.db import Database, is_away
from app.gateway import Gateway
from tests.conftest import make_settings
from tests.support.servers import free_port


async def test_a_block_is_one_transaction(gateway: Gateway) -> None:
    with pytest.raises(ZeroDivisionError):
        async with gateway.db.begin() as session:
            await session.execute(text("INSERT INTO heartbeats (id, role, digest) VALUES ('x', 'r', 'd')"))
            raise ZeroDivisionError
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM heartbeats WHERE id = 'x'") == 0
    async with gateway.db.begin() as session:
        await session.execute(text("INSERT INTO heartbeats (id, role, digest) VALUES ('x', 'r', 'd')"))
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM heartbeats WHERE id = 'x'") == 1


async def test_what_says_that_it_is_away(gateway: Gateway) -> None:
    away = Database(make_settings(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"))
    async with away:
        for attempt in (away.now, lambda: away.begin().__aenter__()):
            try:
                session = await attempt()
                await session.execute(text("SELECT 1"))  # type: ignore[union-attr]
            except Exception as error:
                assert is_away(error), repr(error)
            else:
                raise AssertionError("it is not there")
    assert is_away(PoolTimeout())
    assert is_away(asyncpg.CannotConnectNowError())


async def test_what_only_says_that_a_statement_is_wrong(gateway: Gateway) -> None:
    for query, value in (("SELECT $1::int", "x"), ("SELECT $1::text", 1), ("SELECT $1::text", "\0"), ("SELEC $1", 1)):
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)) as caught:
            await gateway.db.pool.fetchval(query, value)
        assert not is_away(caught.value), repr(caught.value)
    for statement, parameters in (("SELECT CAST(:x AS int)", {"x": "y"}), ("SELECT nonesuch", {})):
        with pytest.raises(DBAPIError) as wrong:
            async with gateway.db.begin() as session:
                await session.execute(text(statement), parameters)
        assert not is_away(wrong.value), repr(wrong.value)
    assert not is_away(ZeroDivisionError())


async def test_errors_do_not_repeat_parameters(gateway: Gateway) -> None:
    with pytest.raises(DBAPIError) as caught:
        async with gateway.db.begin() as session:
            await session.execute(text("SELECT nonesuch WHERE :x = 'a'"), {"x": "hidden"})
    assert "hidden" not in str(caught.value)
