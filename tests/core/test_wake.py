"""Wake-ups over a real Valkey: coalesced, and harmless when Redis is away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from app.core.settings import Settings
from app.core.wake import Bells, Wake
from app.gateway import connect_redis
from tests.support.servers import free_port


class Counted:
    """A Redis client that counts what is published."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.published: list[Any] = []

    async def publish(self, channel: str, message: str) -> None:
        self.published.append(message)
        await self._redis.publish(channel, message)


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    async with connect_redis(settings) as opened:
        yield opened


@contextlib.asynccontextmanager
async def listening(settings: Settings, bells: Bells) -> AsyncIterator[None]:
    async with connect_redis(settings, listening=True) as redis:
        task = asyncio.create_task(bells.listen(redis))
        await rung(bells, "a")  # it rings once as it begins
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def rung(bells: Bells, queue: str, seconds: float = 5) -> bool:
    """Whether the bell rings within `seconds`."""
    started = asyncio.get_running_loop().time()
    await bells.wait(queue, seconds)
    return asyncio.get_running_loop().time() - started < seconds


async def test_a_hint_rings_the_queues_bell(settings: Settings, redis: Redis) -> None:
    bells = Bells(["a", "b"])
    async with listening(settings, bells):
        await rung(bells, "b", 0.05)
        wake = Wake(redis)
        wake.poke("b", "nonesuch")
        assert await rung(bells, "b")
        assert not await rung(bells, "a", 0.05)
        await wake.aclose()


async def test_many_hints_become_few(redis: Redis) -> None:
    counted = Counted(redis)
    wake = Wake(counted)  # type: ignore[arg-type]
    for _ in range(1000):
        wake.poke("a")
        wake.poke("b", "a")
    await wake.aclose()
    assert counted.published == ["a,b"]
    wake.poke("c")
    await wake.aclose()
    assert counted.published == ["a,b", "c"]


async def test_closing_sends_what_is_left(settings: Settings, redis: Redis) -> None:
    bells = Bells(["a"])
    async with listening(settings, bells):
        wake = Wake(redis)
        wake.poke("a")
        await wake.aclose()
        assert await rung(bells, "a")


async def test_redis_away_is_nobodys_error(settings: Settings) -> None:
    away = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}"})
    async with connect_redis(away) as redis:
        wake = Wake(redis)
        wake.poke("a")
        await wake.aclose()
        bells = Bells(["a"])
        task = asyncio.create_task(bells.listen(redis))
        await asyncio.sleep(0.05)
        assert not task.done(), "it waits for Redis to come back"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_bell_rung_before_it_is_waited_for_is_heard() -> None:
    bells = Bells(["a"])
    bells.ring("a", "a", "nonesuch")
    assert await rung(bells, "a")
    assert not await rung(bells, "a", 0.05)
