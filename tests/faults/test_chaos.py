"""Rows 1, 2, 3 and 5 together: everything is killed at random under load, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time

import httpx
from redis.asyncio import Redis

from tests.faults.rig import Platform, Rig, compare, crash, launch, until
from tests.support.sink import Sink

WEBHOOKS = int(os.environ.get("METAGOV_FAULT_WEBHOOKS", "1500"))
SENDERS = 16
FAULTS = ["api"] * 12 + ["worker"] * 12 + ["postgres"] * 5 + ["flush"] * 2 + ["valkey"] * 4
SETTLE_SECONDS = 120
"""After the last fault: a killed worker's deliveries are due again after their lease of 30 seconds."""


async def break_one(rig: Rig, fault: str, away: float) -> None:
    """Break one thing; what was killed is back after `away` seconds."""
    if fault in ("api", "worker"):
        rig.kill(fault)
        await asyncio.sleep(away / 4)
        rig.start(fault)
    elif fault == "flush":
        async with Redis.from_url(rig.valkey.url) as redis:
            await redis.flushall()
    else:
        server = rig.postgres if fault == "postgres" else rig.valkey
        await crash(server, signal.SIGQUIT if fault == "postgres" else signal.SIGKILL)
        await asyncio.sleep(away)
        await launch(server)


async def test_nothing_is_lost_or_doubled(rig: Rig, sink: Sink, chance: random.Random) -> None:
    faults = chance.sample(FAULTS, len(FAULTS))
    waiting: asyncio.Queue[str | None] = asyncio.Queue()
    deliveries = [f"chaos-{number}" for number in range(WEBHOOKS)]
    share = WEBHOOKS // len(faults) + 1
    limits = httpx.Limits(max_connections=SENDERS, max_keepalive_connections=SENDERS)
    async with rig.client(limits=limits, timeout=5) as http:
        platform = Platform(http)

        async def sender() -> None:
            while (delivery := await waiting.get()) is not None:
                await platform.send(delivery, patience=90)

        async with asyncio.TaskGroup() as senders:
            for _ in range(SENDERS):
                senders.create_task(sender())
            for number, fault in enumerate(faults):
                # Each fault meets its own share of the load: a little of it done, most of it on its way.
                for delivery in deliveries[number * share : (number + 1) * share]:
                    waiting.put_nowait(delivery)
                await asyncio.sleep(chance.uniform(0.05, 0.6))
                await break_one(rig, fault, chance.uniform(0.1, 1.5))
                await asyncio.sleep(chance.uniform(0, 1.5))
            for _ in range(SENDERS):
                waiting.put_nowait(None)
    started = time.monotonic()

    async def all_delivered() -> bool:
        return len({post.headers["webhook-id"] for post in sink.posts}) >= WEBHOOKS

    try:
        await until(all_delivered, SETTLE_SECONDS, "every webhook's event delivered")
    finally:
        histories = await compare(rig, platform, sink)
        kills = ", ".join(f"{faults.count(name)} {name}" for name in dict.fromkeys(FAULTS))
        print(f"faults: {kills}; {histories}; answers {platform.answers}")
        print(f"all delivered {time.monotonic() - started:.1f} s after the last fault")
    histories.check()
    waiting_rows = "SELECT count(*) FROM {} WHERE next_at IS NOT NULL"

    async def idle() -> bool:
        return not any([await rig.count(waiting_rows.format(table)) for table in ("receipts", "deliveries")])

    await until(idle, 45, "every row worked off")
    assert await rig.count("SELECT count(*) FROM receipts WHERE status <> 'done'") == 0
    assert await rig.count("SELECT count(*) FROM deliveries WHERE status <> 'delivered'") == 0
