"""Wake-ups: a hint over Redis pub/sub that a queue has work. Losing one costs a sweep's delay, never work.

The first hint goes out at once, those that follow it closely go together: a busy process publishes at most once per
interval, however many rows it writes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

_CHANNEL = "metagov:wake"
_COALESCE_SECONDS = 0.005
_RETRY_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class Wake:
    """The sending side, in API and worker. `poke` never waits and never fails."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._queues: set[str] = set()
        self._flush: asyncio.Task[None] | None = None

    def poke(self, *queues: str) -> None:
        """Say that these queues have work; call it after the commit."""
        self._queues.update(queues)
        if self._flush is None:
            self._flush = asyncio.get_running_loop().create_task(self._publish())

    async def _publish(self) -> None:
        try:
            while self._queues:
                queues, self._queues = self._queues, set()
                with contextlib.suppress(RedisError, OSError, TimeoutError):
                    await self._redis.publish(_CHANNEL, ",".join(sorted(queues)))
                await asyncio.sleep(_COALESCE_SECONDS)
        finally:
            self._flush = None

    async def aclose(self) -> None:
        """Send what is left."""
        if self._flush is not None:
            await self._flush


class Bells:
    """The receiving side, in the worker: one bell per queue, rung by hints and by the worker's own commits."""

    def __init__(self, queues: Iterable[str]) -> None:
        self._bells = {queue: asyncio.Event() for queue in queues}

    def ring(self, *queues: str) -> None:
        """Ring the bells of these queues."""
        for queue in queues:
            if queue in self._bells:
                self._bells[queue].set()

    def of(self, queue: str) -> asyncio.Event:
        """The queue's bell: set when it has rung, cleared by who heard it."""
        return self._bells[queue]

    async def wait(self, queue: str, seconds: float) -> None:
        """Until the queue's bell rings, or `seconds` (the sweep) have passed."""
        bell = self._bells[queue]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(bell.wait(), seconds)
        bell.clear()

    async def listen(self, redis: Redis) -> None:
        """Ring bells as hints come in, for ever; a Redis that goes away is asked again every second."""
        while True:
            try:
                async with redis.pubsub() as pubsub:
                    await pubsub.subscribe(_CHANNEL)
                    # Whatever was missed while away is found now rather than at the next sweep.
                    self.ring(*self._bells)
                    async for message in pubsub.listen():
                        if message["type"] == "message":
                            self.ring(*message["data"].decode().split(","))
            except (RedisError, OSError, TimeoutError) as error:
                _log.warning("Redis is away; sweeping until it is back", error=type(error).__name__)
                await asyncio.sleep(_RETRY_SECONDS)
