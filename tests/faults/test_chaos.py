"""Rows 1, 2, 3 and 5 together: everything is killed at random under load, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass

import httpx
import pytest
from redis.asyncio import Redis

from tests.faults.rig import Heard, Platform, Rig, compare, crash, launch, until
from tests.support.servers import wait_ready
from tests.support.sink import Sink

SENDERS = 16
FAULTS = ["api"] * 12 + ["worker"] * 12 + ["postgres"] * 5 + ["flush"] * 6 + ["valkey"] * 4
SETTLE_SECONDS = 180
"""After the last fault: a killed worker's deliveries are due again after their lease of 15 seconds."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Which processes share the one database, and how many webhooks they are sent."""

    apis: tuple[str, ...]
    workers: tuple[str, ...]
    webhooks: int


ONE_OF_EACH = Shape(("api",), ("worker",), int(os.environ.get("METAGOV_FAULT_WEBHOOKS", "10000")))
SEVERAL = Shape(
    ("api", "api 2"),
    ("worker", "worker 2", "worker 3"),
    int(os.environ.get("METAGOV_FAULT_WEBHOOKS_SEVERAL", "10000")),
)


async def break_one(rig: Rig, fault: str, away: float) -> None:
    """Break one thing; what was killed is back after `away` seconds."""
    if fault in rig.children:
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


@pytest.mark.parametrize("shape", [ONE_OF_EACH, SEVERAL], ids=["one of each", "two APIs and three workers"])
async def test_nothing_is_lost_or_doubled(rig: Rig, sink: Sink, chance: random.Random, shape: Shape) -> None:
    for name in (*shape.apis, *shape.workers):
        if name not in rig.children:
            rig.start(name)
    for name in shape.apis:
        await wait_ready(rig.url_of(name))
    heard = Heard(rig.endpoint_secret)
    heard.listen(sink)
    named = {"api": shape.apis, "worker": shape.workers}
    faults = [chance.choice(named.get(fault, (fault,))) for fault in chance.sample(FAULTS, len(FAULTS))]
    waiting: asyncio.Queue[str | None] = asyncio.Queue()
    deliveries = [f"chaos-{number}" for number in range(shape.webhooks)]
    share = shape.webhooks // len(faults) + 1
    limits = httpx.Limits(max_connections=2 * SENDERS, max_keepalive_connections=2 * SENDERS)
    started = time.monotonic()
    async with rig.client(limits=limits, timeout=5) as http:
        platform = Platform(http, origins=[rig.url_of(name) for name in shape.apis], chance=chance)

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
    sent = time.monotonic()
    platform.check()
    stored = await rig.count("SELECT count(*) FROM receipts")
    assert stored == shape.webhooks, "what was answered with a 2xx is stored, whatever died since"

    async def all_delivered() -> bool:
        return len(heard.delivered) >= shape.webhooks

    try:
        await until(all_delivered, SETTLE_SECONDS, "every webhook's event delivered")
    finally:
        histories = await compare(rig, platform, heard)
        print(f"faults: {', '.join(f'{count} {name}' for name, count in sorted(Counter(faults).items()))}")
        print(f"{histories}; answers {platform.answers}")
        print(f"sent within {sent - started:.1f} s, all delivered {time.monotonic() - sent:.1f} s later")
    histories.check()
    waiting_rows = "SELECT count(*) FROM {} WHERE next_at IS NOT NULL"

    async def idle() -> bool:
        return not any([await rig.count(waiting_rows.format(table)) for table in ("receipts", "deliveries")])

    await until(idle, 45, "every row worked off")
    assert heard.wrong == []
    assert await rig.count("SELECT count(*) FROM receipts WHERE status <> 'done'") == 0
    assert await rig.count("SELECT count(*) FROM deliveries WHERE status <> 'delivered'") == 0
