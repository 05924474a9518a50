"""What an idle worker asks the database, again and again, is answered from indexes, however many processes wait."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import Connection

from app.gateway import Gateway
from app.processes import news
from app.runtime import emissions
from app.worker import Drains
from benchmarks.copies import copy_vote
from tests.conftest import Driver

pytestmark = pytest.mark.slow

MANY = 20_000
MOST_PAGES = 200
"""Of 8 KB, that a statement may look at; reading one of the tables whole takes more than a thousand."""
MOST_PAGES_OF_A_ROUND = 2500
"""For the two hundred mailboxes that are looked into at a time; all 20,000 take eighty thousand pages."""
ASKED = {"title": "Which tree?", "options": ["apple", "pear"]}

_SIGNALS = """
INSERT INTO signals (position, instance_id, process, key, kind, data, at, applied_at)
SELECT nextval('positions'), p.instance_id, p.name, p.key, 'vote', '{"voter": "ada", "choice": "pear"}', now(),
       CASE WHEN $1 THEN now() END
FROM processes p LIMIT $2
"""
_OF_NOBODY = """
INSERT INTO signals (position, instance_id, process, key, kind, data, at)
SELECT nextval('positions'), i.id, 'vote', 'message ' || n, 'vote', '{}', now()
FROM instances i, generate_series(1, $1::int) n
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """A statement as the worker ran it."""

    statement: str
    parameters: tuple[Any, ...]


@pytest.fixture
async def crowd(driver: Driver, drains: Drains, gateway: Gateway) -> list[str]:
    """20,000 votes that close next month, each with a vote that is counted. Returns their ids."""
    assert (await driver.put(plugins=[{"name": "ballot", "config": {}}])).status_code == 201
    closing_at = datetime.now(UTC) + timedelta(days=30)
    vote = await driver.post("process/ballot.vote", {**ASKED, "closing_at": closing_at.isoformat()})
    assert vote.status_code == 202
    await drains.until_idle()
    pool = gateway.db.pool
    async with pool.acquire() as connection, connection.transaction():
        ids = await copy_vote(connection, vote.json()["id"], [closing_at + timedelta(seconds=n) for n in range(MANY)])
        await connection.execute(_SIGNALS, True, MANY)
    for table in ("processes", "signals", "instances"):
        # What other tests have deleted is not to be walked past.
        await pool.execute(f"VACUUM (ANALYZE) {table}")
    return ids


@asynccontextmanager
async def listening(gateway: Gateway) -> AsyncIterator[list[Asked]]:
    """Every statement that goes through the engine meanwhile."""
    heard: list[Asked] = []

    def note(connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        heard.append(Asked(statement, tuple(parameters or ())))

    engine = gateway.db.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield heard
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def explained(gateway: Gateway, asked: Asked) -> dict[str, Any]:
    """The plan as it is run, undone afterwards."""
    async with gateway.db.engine.connect() as connection:
        found = await connection.exec_driver_sql(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {asked.statement}", asked.parameters
        )
        answer = found.scalar_one()
        await connection.rollback()
    plan: dict[str, Any] = (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]
    return plan


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def scanned(plan: Mapping[str, Any]) -> list[str]:
    """The tables that are read whole; a part of a plan that is never run reads nothing."""
    return [node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "Seq Scan" and node["Actual Loops"]]


def pages(plan: Mapping[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


def due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the worker look for everything each time, not at intervals."""
    monkeypatch.setattr(news, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(news, "_SWEEP_SECONDS", 0.0)


async def idle(gateway: Gateway, drains: Drains) -> list[Asked]:
    """What the worker asks that has nothing to do: as it starts, and later on."""
    gateway.runner.news.__init__()  # type: ignore[misc]  # as a worker that has just started
    async with listening(gateway) as heard:
        for _ in range(3):
            for _, drain in drains.items():
                assert await drain() == 0
    wanted = [
        asked for asked in heard if asked.statement.split()[0] in ("SELECT", "UPDATE", "INSERT", "DELETE", "WITH")
    ]
    return list({asked.statement: asked for asked in wanted}.values()) + wanted[-12:]


async def test_an_idle_worker_reads_no_table_whole(
    crowd: list[str], gateway: Gateway, drains: Drains, monkeypatch: pytest.MonkeyPatch
) -> None:
    due(monkeypatch)
    asked = await idle(gateway, drains)
    words = " ".join(each.statement for each in asked)
    for table in (
        "FROM processes",
        "FROM effects",
        "FROM receipts",
        "FROM deliveries",
        "FROM signals",
        "FROM instances",
    ):
        assert table in words, "what an idle worker does has been heard"
    for each in asked:
        plan = await explained(gateway, each)
        assert {"processes", "signals"}.isdisjoint(scanned(plan)), each.statement
        assert pages(plan) < MOST_PAGES, f"{pages(plan)} pages: {each.statement}"


async def test_a_vote_among_many_is_found_by_index(
    crowd: list[str], gateway: Gateway, driver: Driver, drains: Drains
) -> None:
    """The statements of a step: its process's row, its mailbox, what it writes."""
    cast = {"process_id": crowd[MANY // 2], "voter": "bob", "choice": "apple"}
    assert (await driver.act("ballot.cast", cast)).status_code == 200
    async with listening(gateway) as heard:
        assert await drains.processes() == 1
    seen = 0
    for each in heard:
        if each.statement.split()[0] not in ("SELECT", "UPDATE", "WITH"):
            continue
        plan = await explained(gateway, each)
        seen += 1
        assert {"processes", "signals"}.isdisjoint(scanned(plan)), each.statement
        assert pages(plan) < MOST_PAGES, f"{pages(plan)} pages: {each.statement}"
    assert seen >= 4


async def test_what_waits_for_nobody_is_found_by_index(
    crowd: list[str], gateway: Gateway, drains: Drains, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clicks on what is no vote stay a day in mailboxes of their own; 20,000 of them cost a look what 200 cost."""
    due(monkeypatch)
    await gateway.db.pool.execute(_OF_NOBODY, MANY)
    await gateway.db.pool.execute("ANALYZE signals")
    for each in await idle(gateway, drains):
        plan = await explained(gateway, each)
        assert {"processes", "signals"}.isdisjoint(scanned(plan)), each.statement
        assert pages(plan) < MOST_PAGES_OF_A_ROUND, f"{pages(plan)} pages: {each.statement}"


async def test_a_disabled_instance_costs_a_look_and_no_more(
    crowd: list[str], gateway: Gateway, driver: Driver, drains: Drains, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once its processes know that they wait for it."""
    due(monkeypatch)
    (plugin,) = (await driver.get("plugin")).json()["plugins"]
    header = {"X-Metagov-Community": "town"}
    path = f"/api/internal/plugin/ballot/{plugin['id']}"
    assert (await driver.http.patch(path, json={"enabled": False}, headers=header)).status_code == 200
    await gateway.db.pool.execute("UPDATE processes SET paused_at = now(), next_at = now() + interval '1 day'")
    await gateway.db.pool.execute("VACUUM ANALYZE processes")
    for each in await idle(gateway, drains):
        plan = await explained(gateway, each)
        assert {"processes", "signals"}.isdisjoint(scanned(plan)), each.statement
        assert pages(plan) < MOST_PAGES, f"{pages(plan)} pages: {each.statement}"


async def test_a_hooks_signals_find_their_processes_by_index(crowd: list[str], gateway: Gateway) -> None:
    """By key and by id; most are for no process at all."""
    instance = await gateway.db.pool.fetchval("SELECT id FROM instances")
    keys = [*crowd[:20], *(f"message {number}" for number in range(30))]
    values = {"instances": [instance] * 50, "processes": ["vote"] * 50, "keys": keys}
    async with gateway.db.engine.connect() as connection:
        explain = text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {emissions._MAKE_DUE.text}")
        answer = (await connection.execute(explain, values)).scalar_one()
        await connection.rollback()
    plan = (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]
    assert scanned(plan) == []
    assert pages(plan) < MOST_PAGES_OF_A_ROUND
