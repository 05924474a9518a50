"""Rows 3, 5 and 6: Postgres or Redis away. Refusals at once, or work as usual; then all is well by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass

import httpx
from aiohttp import web
from redis.asyncio import Redis

from tests.faults.rig import HOOK, Platform, Rig, compare, crash, launch, signed, until
from tests.support.sink import Posted, Sink

SWEEP_SECONDS = 1.0
OUTAGE_SECONDS = 5.0
REDIS_AWAY_SECONDS = float(os.environ.get("METAGOV_FAULT_REDIS_SECONDS", "30"))
"""Longer than every time-out and pause that has to do with Redis."""
KINDS = ("hook", "get", "put")


@dataclass(frozen=True, slots=True)
class Answered:
    """One request, and what became of it."""

    what: str
    status: int
    retry_after: str | None
    seconds: float


async def ask(http: httpx.AsyncClient, what: str) -> Answered:
    """A webhook, a read by way of the pool, or a write by way of the engine."""
    started = time.perf_counter()
    if what == "hook":
        body, headers = signed("while-away")
        answer = await http.post(HOOK, content=body, headers=headers)
    elif what == "get":
        answer = await http.get("/api/internal/community/town")
    else:
        answer = await http.put("/api/internal/community/town", json={"readable_name": "Town"})
    return Answered(what, answer.status_code, answer.headers.get("retry-after"), time.perf_counter() - started)


async def seconds_until_answered(http: httpx.AsyncClient, what: str) -> float:
    async def answered() -> bool:
        return 200 <= (await ask(http, what)).status < 300

    return await until(answered, 10, f"{what} answered")


async def test_postgres_away_is_said_at_once_and_forgotten_soon(rig: Rig, sink: Sink) -> None:
    async with rig.client() as http:
        platform = Platform(http)
        await asyncio.gather(*(platform.send(f"before-{number}") for number in range(30)))
        # Both pools hold several connections, all of which the crash breaks.
        await asyncio.gather(*(ask(http, what) for what in ("get", "put") * 8))
        await crash(rig.postgres, signal.SIGQUIT)
        refusals: list[Answered] = []
        end = time.monotonic() + OUTAGE_SECONDS
        while time.monotonic() < end:
            refusals += await asyncio.gather(*(ask(http, what) for what in KINDS * 4))
        slowest = {what: round(max(item.seconds for item in refusals if item.what == what), 3) for what in KINDS}
        print(f"\nPostgres away: {len(refusals)} requests refused, the slowest after {slowest} s")
        await launch(rig.postgres)
        started = time.monotonic()
        back = {what: round(await seconds_until_answered(http, what), 3) for what in KINDS}
        reconnected = time.monotonic() - started
        print(f"Postgres back: answered again after {back} s")
        after = await asyncio.gather(*(ask(http, what) for what in ("hook", "get") * 30))
        await platform.send("after")
        platform.sent.append("while-away")

        async def all_delivered() -> bool:
            return len({post.headers["webhook-id"] for post in sink.posts}) >= len(platform.sent)

        print(f"all delivered {await until(all_delivered, 45, 'deliveries go on'):.1f} s later")
    assert {(item.status, item.retry_after) for item in refusals} == {(503, "1")}
    assert max(slowest.values()) <= 1.0
    assert reconnected <= 5.0
    assert {item.status for item in after} == {200}, "no broken connection is left in a pool"
    (await compare(rig, platform, sink)).check()


async def test_redis_away_slow_or_empty_delays_nothing_for_long(rig: Rig, sink: Sink) -> None:
    api, worker = rig.children["api"], rig.children["worker"]
    arrived: dict[str, float] = {}

    def note(posted: Posted) -> web.Response:
        arrived.setdefault(posted.json["data"]["issue"]["title"], time.monotonic())
        return web.Response(status=204)

    sink.answer = note
    async with rig.client(limits=httpx.Limits(max_connections=20)) as http:
        platform = Platform(http)

        async def load(phase: str, seconds: float) -> None:
            end, number = time.monotonic() + seconds, 0
            while time.monotonic() < end:
                number += 1
                await asyncio.gather(*(platform.send(f"{phase}-{number}-{each}") for each in range(5)))
                await asyncio.sleep(0.15)

            async def delivered() -> bool:
                return len(arrived) == len(platform.sent)

            await until(delivered, 10, f"deliveries, {phase}")
            delays = [arrived[name] - platform.at[name] for name in platform.sent if name.startswith(phase)]
            print(f"Redis {phase}: {len(delays)} webhooks, delivered after at most {max(delays):.2f} s")
            # Two queues, one sweep each; the rest is work on a busy machine.
            assert max(delays) <= 2 * SWEEP_SECONDS + 1.0

        print()
        await load("well", 2)
        assert rig.valkey.pid is not None
        os.kill(rig.valkey.pid, signal.SIGSTOP)
        try:
            await load("frozen", 6)
        finally:
            os.kill(rig.valkey.pid, signal.SIGCONT)
        await crash(rig.valkey, signal.SIGKILL)
        await load("away", REDIS_AWAY_SECONDS)
        await launch(rig.valkey)
        async with Redis.from_url(rig.valkey.url) as redis:

            async def found_again() -> bool:
                """The worker's schedule and its ear for hints are both on the new server."""
                heard = await redis.pubsub_numsub("metagov:wake")
                return bool(await redis.exists("arq:queue:health-check")) and heard[0][1] > 0

            print(f"Redis back: found by the worker within {await until(found_again, 20, 'Redis found again'):.1f} s")
            await redis.flushall()
        await load("flushed", 4)
    print(f"answers {platform.answers}, slowest {max(platform.seconds):.3f} s")
    assert set(platform.answers) == {202}, "every webhook accepted at the first try"
    assert (api.poll(), worker.poll()) == (None, None), "neither was started again"
    (await compare(rig, platform, sink)).check()
