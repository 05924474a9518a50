"""Order, circuits and fairness: how deliveries share workers, and what a failing endpoint costs."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import Any

from aiohttp import web

from app.core.db import Database
from app.events.claim import claim
from app.gateway import Gateway
from app.worker import Drains, open_drains
from tests.conftest import Driver, settle
from tests.events.test_endpoints import PROBE, register
from tests.support.sink import Posted, Sink


async def pending(db: Database) -> int:
    count: int = await db.pool.fetchval("SELECT count(*) FROM deliveries WHERE status = 'pending'")
    return count


async def make_due(db: Database) -> None:
    """As if all waits were over: retries and open circuits."""
    await db.pool.execute("UPDATE endpoints SET not_before = NULL")
    await db.pool.execute("UPDATE deliveries SET next_at = now() WHERE next_at > now()")


async def circuit(db: Database) -> Any:
    return await db.pool.fetchrow(
        "SELECT failures, extract(epoch FROM not_before - now())::float AS wait FROM endpoints"
    )


async def test_an_ordered_endpoint_never_sees_an_inversion(driver: Driver, gateway: Gateway, sink: Sink) -> None:
    """Two workers, a third of the posts failing: each community's events are accepted in their order."""
    chance = random.Random(7)
    accepted: dict[str, list[str]] = defaultdict(list)

    def answer(posted: Posted) -> web.Response:
        if chance.random() < 0.33:
            return web.Response(status=500)
        accepted[posted.json["community"]].append(posted.json["data"]["text"])
        return web.Response(status=204)

    sink.answer = answer
    await register(driver, sink.url, ordered=True)
    for slug in ("town", "village"):
        await driver.put(slug, plugins=[PROBE])
    for number in range(12):
        for slug in ("town", "village"):
            await driver.act("probe.echo", {"text": f"{number}"}, slug=slug)
    async with open_drains(gateway) as one, open_drains(gateway) as two, asyncio.timeout(60):
        while await pending(gateway.db):
            await settle(gateway.db)
            await asyncio.gather(one.deliveries(), two.deliveries())
            await make_due(gateway.db)
    assert accepted == {slug: [f"{number}" for number in range(12)] for slug in ("town", "village")}


async def test_a_lane_waits_for_its_head_and_no_other(
    driver: Driver, gateway: Gateway, drains: Drains, sink: Sink
) -> None:
    sink.answer = lambda posted: web.Response(status=500 if posted.json["community"] == "town" else 204)
    await register(driver, sink.url, ordered=True)
    for slug in ("town", "village"):
        await driver.put(slug, plugins=[PROBE])
        for number in range(2):
            await driver.act("probe.echo", {"text": f"{number}"}, slug=slug)
    for _ in range(4):
        await settle(gateway.db)
        await drains.until_idle()
    seen = sorted((posted.json["community"], posted.json["data"]["text"]) for posted in sink.posts)
    assert seen == [("town", "0"), ("village", "0"), ("village", "1")]


async def test_an_ordered_endpoint_waits_for_a_transaction_that_may_bring_an_earlier_event(
    driver: Driver, gateway: Gateway, drains: Drains, sink: Sink
) -> None:
    await register(driver, sink.url, ordered=True)
    await driver.put(plugins=[PROBE])
    async with gateway.db.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_current_xact_id()")
        await driver.act("probe.echo", {"text": "later"})
        await drains.until_idle()
        assert sink.posts == []
    await settle(gateway.db)
    await drains.until_idle()
    assert len(sink.posts) == 1


async def test_a_circuit_opens_probes_and_closes(driver: Driver, gateway: Gateway, drains: Drains, sink: Sink) -> None:
    sink.answer = lambda _: web.Response(status=500)
    await driver.put(plugins=[PROBE])
    await register(driver, sink.url)
    for number in range(8):
        await driver.act("probe.echo", {"text": str(number)})
    await drains.until_idle()
    assert len(sink.posts) == 8
    opened = await circuit(gateway.db)
    assert opened["failures"] == 5, "what was in hand when it opened counts no further"
    assert 2 < opened["wait"] <= 5
    await gateway.db.pool.execute("UPDATE deliveries SET next_at = now()")
    await drains.until_idle()
    assert len(sink.posts) == 8, "while it is open nothing is posted"
    assert await gateway.db.pool.fetchval("SELECT max(attempt) FROM deliveries") == 1, "nor is a schedule spent"

    await gateway.db.pool.execute("UPDATE endpoints SET not_before = now()")
    # Other workers, started since: what is known of the circuit is in the database.
    async with open_drains(gateway) as one, open_drains(gateway) as two:
        await asyncio.gather(one.deliveries(), two.deliveries())
    assert len(sink.posts) == 9, "one probe, however many workers"
    again = await circuit(gateway.db)
    assert again["failures"] == 6
    assert 6 < again["wait"] <= 10

    sink.answer = lambda _: web.Response(status=204)
    await make_due(gateway.db)
    await drains.until_idle()
    assert await pending(gateway.db) == 0
    assert tuple(await circuit(gateway.db)) == (0, None)


async def test_two_workers_that_look_at_once_send_one_probe(driver: Driver, gateway: Gateway, sink: Sink) -> None:
    await driver.put(plugins=[PROBE])
    await register(driver, sink.url)
    for number in range(2):
        await driver.act("probe.echo", {"text": str(number)})
    await gateway.db.pool.execute("UPDATE endpoints SET failures = 5")

    async def look() -> int:
        async with gateway.db.begin() as session:
            return len(await claim(session, room=10, busy={}))

    async with gateway.db.begin() as session:
        (probe,) = await claim(session, room=10, busy={})
        # Another has become the oldest meanwhile, so that it is not the delivery's own lock that keeps the second out.
        await gateway.db.pool.execute(
            "UPDATE deliveries SET next_at = now() - interval '1 hour' WHERE id <> $1", probe.id
        )
        second = asyncio.create_task(look())
        await asyncio.sleep(0.2)
    assert await second == 0


async def test_the_pause_of_a_circuit_has_a_limit(driver: Driver, gateway: Gateway, drains: Drains, sink: Sink) -> None:
    sink.answer = lambda _: web.Response(status=500)
    await driver.put(plugins=[PROBE])
    await register(driver, sink.url)
    await gateway.db.pool.execute("UPDATE endpoints SET failures = 1000")
    await driver.act("probe.echo", {"text": "hi"})
    await drains.until_idle()
    assert 470 < (await circuit(gateway.db))["wait"] <= 600


async def test_a_success_in_between_keeps_the_circuit_closed(
    driver: Driver, gateway: Gateway, drains: Drains, sink: Sink
) -> None:
    await driver.put(plugins=[PROBE])
    await register(driver, sink.url)
    for number, status in enumerate([500, 500, 500, 500, 204, 500, 500]):
        sink.answer = lambda _, status=status: web.Response(status=status)  # type: ignore[misc]
        await driver.act("probe.echo", {"text": str(number)})
        await drains.until_idle()
    assert len(sink.posts) == 7
    assert tuple(await circuit(gateway.db)) == (2, None)


async def test_retry_after_holds_the_whole_endpoint_back(
    driver: Driver, gateway: Gateway, drains: Drains, sink: Sink
) -> None:
    sink.answer = lambda _: web.Response(status=429, headers={"retry-after": "90"})
    await driver.put(plugins=[PROBE])
    await register(driver, sink.url)
    await driver.act("probe.echo", {"text": "first"})
    await drains.until_idle()
    await driver.act("probe.echo", {"text": "second"})
    await drains.until_idle()
    assert len(sink.posts) == 1
    assert 81 < (await circuit(gateway.db))["wait"] <= 90


async def test_a_dead_endpoint_with_much_waiting_starves_nobody(
    driver: Driver, gateway: Gateway, drains: Drains, sink: Sink
) -> None:
    sink.answer = lambda posted: web.Response(status=500 if posted.path == "/dead" else 204)
    await driver.put(plugins=[PROBE])
    dead = await register(driver, f"{sink.url}/dead")
    await driver.act("probe.echo", {"text": "old"})
    await gateway.db.pool.execute(
        """
        WITH made AS (
            INSERT INTO events (id, driver_id, source, event_type, timestamp, data)
            SELECT 'evt_' || n, $1, 'probe', 'poked', now(), '{}' FROM generate_series(1, 10000) n RETURNING id)
        INSERT INTO deliveries (id, endpoint_id, event_id, next_at)
        SELECT 'dlv_' || id, $2, id, now() - interval '1 hour' FROM made
        """,
        driver.id,
        dead["id"],
    )
    await register(driver, f"{sink.url}/alive")
    await driver.act("probe.echo", {"text": "new"})
    assert await drains.deliveries() <= 250, "of the dead endpoint a share, and one of the other"
    paths = [posted.path for posted in sink.posts]
    assert paths.count("/alive") == 1
    await drains.until_idle()
    assert len(sink.posts) == len(paths), "the circuit is open"


async def test_an_endpoint_that_hangs_holds_nobody_up(driver: Driver, drains: Drains, sink: Sink) -> None:
    """What comes in while it hangs is posted by the same worker, before it has answered."""
    release = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await driver.put(plugins=[PROBE])
        await register(driver, f"http://127.0.0.1:{port}/", events=["probe.*"])
        await driver.act("probe.echo", {"text": "hangs"})
        drain = asyncio.create_task(drains.until_idle())
        await register(driver, sink.url)
        await asyncio.sleep(0.2)
        await driver.act("probe.echo", {"text": "goes by"})
        (posted,) = await sink.wait_for(1)
        assert posted.json["data"] == {"text": "goes by"}
        assert not drain.done()
        release.set()
        await drain
