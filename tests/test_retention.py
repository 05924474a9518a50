"""What is older than METAGOV_RETENTION_DAYS is gone, what is younger is not, and work goes on meanwhile."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from app.core.db import plain_dsn
from app.core.ids import lowest_id, new_id
from app.core.partitions import drop_old as drop_old_partitions
from app.core.partitions import make_ahead
from app.gateway import Gateway
from app.inbound.retention import RECEIPTS
from app.worker import Drains, drop_old, make_partitions
from tests.conftest import Driver, settle
from tests.events.test_deliveries import listed
from tests.events.test_endpoints import PROBE, register
from tests.inbound.test_hooks import OWN, PATH, news, receipts, signed
from tests.support.databases import create_empty, drop_database
from tests.support.problems import problem
from tests.support.servers import Server, run_server
from tests.support.sink import Sink

OLD, YOUNG = timedelta(days=45), timedelta(days=20)
TABLES = ("receipts", "events", "attempts")


def aged(prefix: str, age: timedelta) -> str:
    """An id made `age` ago."""
    return lowest_id(prefix, datetime.now(UTC) - age)[:-16] + new_id(prefix)[-16:]


async def keep_house(gateway: Gateway) -> None:
    """What a worker does once an hour."""
    await make_partitions(gateway)
    await drop_old({"gateway": gateway})


async def copy(gateway: Gateway, table: str, prefix: str, age: timedelta, **changed: str) -> str:
    """Copy a table's newest row to an age; returns the copy's id."""
    row_id = aged(prefix, age)
    columns = await gateway.db.pool.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_name = $1 AND is_identity = 'NO'", table
    )
    taken = {row[0]: row[0] for row in columns} | {name: f"'{value}'" for name, value in changed.items()}
    taken["id"] = f"'{row_id}'"
    await gateway.db.pool.execute(
        f"INSERT INTO {table} ({', '.join(taken)}) "
        f"SELECT {', '.join(taken.values())} FROM {table} ORDER BY id DESC LIMIT 1"
    )
    return row_id


@pytest.fixture
async def town(driver: Driver) -> Driver:
    probe = {"name": "probe", "config": {"label": "a", "webhook_secret": OWN}}
    assert (await driver.put(plugins=[probe])).status_code == 201
    return driver


async def test_old_receipts_are_gone_and_young_ones_not(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains, gateway: Gateway
) -> None:
    await anonymous.post(PATH, content=news(), headers=signed(news()))
    await drains.until_idle()
    old = await copy(gateway, "receipts", "rcp", OLD)
    young = await copy(gateway, "receipts", "rcp", YOUNG)
    assert len(await receipts(town)) == 3
    await keep_house(gateway)
    problem(await town.get(f"receipts/{old}"), 404)
    assert (await town.get(f"receipts/{young}")).status_code == 200
    assert (await town.post(f"receipts/{young}/replay")).status_code == 202
    assert len(await receipts(town)) == 2
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM receipts") == 2


async def test_old_events_go_with_their_deliveries_and_attempts(
    driver: Driver, drains: Drains, sink: Sink, gateway: Gateway
) -> None:
    await driver.put(plugins=[PROBE])
    await register(driver, sink.url)
    await driver.act("probe.echo", {"text": "hi"})
    await drains.until_idle()
    kept: set[str] = set()
    for age in (OLD, OLD + timedelta(days=30), YOUNG):
        event = await copy(gateway, "events", "evt", age)
        delivery = await copy(gateway, "deliveries", "dlv", age, event_id=event)
        await copy(gateway, "attempts", "att", age, delivery_id=delivery)
        if age == YOUNG:
            kept = {event, delivery}
    await keep_house(gateway)
    assert {row["id"] for row in (await driver.get("events")).json()["events"]} > kept - {delivery}
    found = await listed(driver)
    assert len(found) == 2
    assert delivery in {row["id"] for row in found}
    assert all(row["attempts"] == 1 for row in found)
    counts = [await gateway.db.pool.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES]
    assert counts == [0, 2, 2]


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_delivery_whose_event_is_gone(
    driver: Driver, drains: Drains, sink: Sink, gateway: Gateway, ordered: bool
) -> None:
    await driver.put(plugins=[PROBE])
    await register(driver, sink.url, ordered=ordered)
    for text in ("lost", "lost too"):
        await driver.act("probe.echo", {"text": text})
    await gateway.db.pool.execute("DELETE FROM events")
    await driver.act("probe.echo", {"text": "there"})
    await settle(gateway.db)
    await drains.until_idle()
    assert [posted.json["data"] for posted in sink.posts] == [{"text": "there"}], "nobody is held up by it"
    dead, _ = await listed(driver, status="dead")
    assert (dead["attempts"], dead["next_at"]) == (1, None)
    (attempt,) = (await driver.get(f"deliveries/{dead['id']}/attempts")).json()["attempts"]
    assert (attempt["status"], attempt["error"]) == (None, "the event is older than what is kept")
    problem(await driver.post(f"deliveries/{dead['id']}/retry"), 409)
    assert len(await listed(driver, status="dead")) == 2


async def test_a_receipt_whose_instance_is_gone_waits_for_nobody(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains, gateway: Gateway
) -> None:
    await anonymous.post(PATH, content=news(), headers=signed(news()))
    await gateway.db.pool.execute("DELETE FROM instances")
    await drains.until_idle()
    (row,) = await receipts(town)
    assert (row["status"], row["error"]) == ("dead", "the instance was deleted")


async def test_keys_of_webhooks_are_forgotten_and_those_of_events_not(town: Driver, gateway: Gateway) -> None:
    instance = await gateway.db.pool.fetchval("SELECT id FROM instances")
    seen = [("hook:x:old", 31), ("hook:x:young", 29), ("event:old", 4000)]
    await gateway.db.pool.executemany(
        "INSERT INTO seen (instance_id, key, seen_at) VALUES ($1, $2, now() - make_interval(days => $3))",
        [(instance, key, days) for key, days in seen],
    )
    await keep_house(gateway)
    found = await gateway.db.pool.fetch("SELECT key FROM seen WHERE instance_id = $1 ORDER BY key", instance)
    assert [row[0] for row in found] == ["event:old", "hook:x:young"]


async def test_signals_and_effects_are_not_kept_for_ever(town: Driver, gateway: Gateway) -> None:
    instance = await gateway.db.pool.fetchval("SELECT id FROM instances")
    signals = [("taken", 3, 2), ("just taken", 0, 0), ("q", 45, None), ("nobody's", 2, None), ("early", 0, None)]
    await gateway.db.pool.executemany(
        """INSERT INTO signals (instance_id, process, key, kind, data, at, applied_at)
        VALUES ($1, 'vote', $2, 'x', '{}', now() - make_interval(days => $3), now() - make_interval(days => $4))""",
        [(instance, *signal) for signal in signals],
    )
    await town.post("process/probe.vote", {"title": "q"})
    process = await gateway.db.pool.fetchval("SELECT id FROM processes")
    old, waiting, young = aged("eff", OLD), aged("eff", OLD), aged("eff", YOUNG)
    await gateway.db.pool.executemany(
        """INSERT INTO effects (id, process_id, method, args, next_at)
        VALUES ($1, $2, 'tell', '{}', CASE WHEN $3 THEN now() END)""",
        [(old, process, False), (waiting, process, True), (young, process, False)],
    )
    await keep_house(gateway)
    rows = await gateway.db.pool.fetch("SELECT key FROM signals ORDER BY key")
    assert [row[0] for row in rows] == ["early", "just taken", "q"], "what a process is there to take is not lost"
    assert {row[0] for row in await gateway.db.pool.fetch("SELECT id FROM effects")} >= {waiting, young}
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM effects WHERE id = $1", old) == 0
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM processes") == 1


async def test_webhooks_are_taken_and_handled_while_partitions_come_and_go(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains, gateway: Gateway
) -> None:
    # As if no worker had run for weeks: what comes now finds no partition.
    await gateway.db.pool.execute("DELETE FROM receipts")
    await drop_old_partitions(gateway.db, RECEIPTS, timedelta(days=-60))
    done = asyncio.Event()
    sent: list[int] = []

    async def send(sender: int) -> None:
        while not done.is_set():
            body = news(n=len(sent), sender=sender)
            answer = await anonymous.post(PATH, content=body, headers=signed(body))
            assert answer.status_code == 202, answer.text
            sent.append(answer.status_code)
            await asyncio.sleep(0.05)

    async def handle() -> None:
        while not done.is_set():
            await drains.receipts()
            await asyncio.sleep(0.01)

    async def house() -> None:
        await asyncio.sleep(0.3)
        for _ in range(2):
            for weeks in range(8, 11):
                await copy(gateway, "receipts", "rcp", timedelta(weeks=weeks), status="done", hook="old")
            assert await make_ahead(gateway.db, RECEIPTS, timedelta(weeks=13)) >= 3
            assert await drop_old_partitions(gateway.db, RECEIPTS, timedelta(weeks=7)) >= 3
        done.set()

    async with asyncio.timeout(60):
        await asyncio.gather(*(send(number) for number in range(4)), handle(), house())
        await drains.until_idle()
    rows = await gateway.db.pool.fetch("SELECT status, tableoid::regclass::text AS place FROM receipts")
    assert len(rows) == len(sent) >= 20
    assert {row["status"] for row in rows} == {"done"}
    assert "receipts_default" not in {row["place"] for row in rows}
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM events WHERE event_type = 'poked'") == len(sent)


async def test_a_worker_that_starts_makes_partitions_without_redis(server: Server) -> None:
    connection = await asyncpg.connect(plain_dsn(server.environment["METAGOV_DATABASE_URL"]))
    places = (
        "SELECT max(inhrelid::regclass::text) FROM pg_inherits "
        "WHERE inhparent = 'attempts'::regclass AND inhrelid::regclass::text <> 'attempts_default'"
    )
    try:
        last = await connection.fetchval(places)
        while await connection.fetchval(places) > f"attempts_{datetime.now(UTC) + timedelta(days=2):%Y%m%d}":
            await connection.execute(f"DROP TABLE {await connection.fetchval(places)}")
        nowhere = {**server.environment, "METAGOV_REDIS_URL": "redis://127.0.0.1:1"}
        async with run_server(nowhere, server.api_key, server.signing_secret), asyncio.timeout(20):
            while await connection.fetchval(places) < f"attempts_{datetime.now(UTC) + timedelta(days=7):%Y%m%d}":
                await asyncio.sleep(0.1)
        assert await connection.fetchval(places) <= last
    finally:
        await connection.close()


@pytest.fixture
async def bare(worker_name: str) -> AsyncIterator[str]:
    """A database at the revision before partitions, with rows."""
    name = f"{worker_name}_partitions"
    url = await create_empty(name)
    await asyncio.to_thread(alembic, url, "upgrade", "0001")
    connection = await asyncpg.connect(plain_dsn(url))
    try:
        await connection.execute(ROWS)
        for age in (timedelta(), YOUNG, OLD):
            event, delivery, attempt, receipt = (aged(prefix, age) for prefix in ("evt", "dlv", "att", "rcp"))
            await connection.execute(
                "INSERT INTO events (id, driver_id, source, event_type, timestamp, data, stored_at) "
                """VALUES ($1, 'drv_1', 's', 't', now(), '{"b": "\\u0000", "a": 1}', now() - $2::interval)""",
                event,
                age,
            )
            await connection.execute(
                "INSERT INTO deliveries (id, endpoint_id, event_id) VALUES ($1, 'end_1', $2)", delivery, event
            )
            await connection.execute(
                "INSERT INTO attempts (id, delivery_id, at, latency_ms) VALUES ($1, $2, now() - $3::interval, 5)",
                attempt,
                delivery,
                age,
            )
            await connection.execute(
                "INSERT INTO receipts (id, community_id, instance_id, plugin, hook, headers, body, received_at) "
                "VALUES ($1, 'com_1', 'ins_1', 'p', 'h', '[]', '\\x00ff', now() - $2::interval)",
                receipt,
                age,
            )
    finally:
        await connection.close()
    yield url
    await drop_database(name)


ROWS = """
INSERT INTO drivers (id, name, signing_secret) VALUES ('drv_1', 'one', 's');
INSERT INTO communities (id, driver_id, slug, readable_name) VALUES ('com_1', 'drv_1', 'town', 'town');
INSERT INTO endpoints (id, driver_id, kind, url) VALUES ('end_1', 'drv_1', 'endpoint', 'https://x.test');
INSERT INTO instances (
    id, community_id, plugin, community_platform_id, config, secrets, config_version, generation, status
) VALUES ('ins_1', 'com_1', 'p', '', '{}', '', 1, 1, 'enabled');
"""


def alembic(url: str, *command: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "alembic", *command],
        check=True,
        env={**os.environ, "METAGOV_DATABASE_URL": url},
        capture_output=True,
        timeout=60,
    )


async def everything(url: str) -> dict[str, list[dict[str, Any]]]:
    connection = await asyncpg.connect(plain_dsn(url))
    try:
        found = {
            table: [dict(row) for row in await connection.fetch(f"SELECT * FROM {table} ORDER BY id")]
            for table in (*TABLES, "deliveries")
        }
    finally:
        await connection.close()
    for row in found["receipts"]:
        row.pop("ordered", None)
    return found


async def test_the_migration_keeps_rows_both_ways(bare: str) -> None:
    before = await everything(bare)
    assert all(len(rows) == 3 for rows in before.values())
    await asyncio.to_thread(alembic, bare, "upgrade", "0002")
    assert await everything(bare) == before
    connection = await asyncpg.connect(plain_dsn(bare))
    try:
        for table in TABLES:
            places = await connection.fetch(f"SELECT tableoid::regclass::text FROM {table} ORDER BY id")
            assert places[0][0] == f"{table}_default", "older than what is kept"
            assert len({row[0] for row in places}) == 3
        added = await connection.fetchval(
            "INSERT INTO events (id, driver_id, source, event_type, timestamp, data) "
            "VALUES ($1, 'drv_1', 's', 't', now(), '{}') RETURNING seq",
            new_id("evt"),
        )
        assert added > max(row["seq"] for row in before["events"])
        orphan = "DELETE FROM events WHERE id = $1"
        await connection.execute(orphan, before["events"][0]["id"])
    finally:
        await connection.close()
    held = await everything(bare)
    await asyncio.to_thread(alembic, bare, "downgrade", "0001")
    after = await everything(bare)
    assert after["events"] == held["events"]
    assert after["receipts"] == held["receipts"] == before["receipts"]
    assert after["deliveries"] == before["deliveries"][1:], "a delivery without its event has no place there"
    assert after["attempts"] == before["attempts"][1:]
    connection = await asyncpg.connect(plain_dsn(bare))
    try:
        await connection.execute("DELETE FROM events")
        assert await connection.fetchval("SELECT count(*) FROM attempts") == 0, "the foreign keys are back"
    finally:
        await connection.close()
