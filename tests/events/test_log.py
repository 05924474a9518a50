"""The event log's cursor: every reader sees every event once, however late its transaction commits."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from app.events.service import NewEvent, record
from app.gateway import Gateway
from tests.conftest import Driver, settle


def event(driver: Driver, number: int) -> NewEvent:
    return NewEvent(driver.id, None, "town", None, "test", "numbered", {"number": number})


async def read_all(driver: Driver, after: str | None = None, limit: int = 50) -> tuple[list[int], str]:
    numbers: list[int] = []
    cursor = after
    while True:
        query: dict[str, Any] = {"limit": limit} | ({"after": cursor} if cursor else {})
        page = (await driver.http.get("/api/internal/events", params=query)).json()
        numbers += [item["data"]["number"] for item in page["events"]]
        cursor = page["next"]
        if not page["events"]:
            assert cursor
            return numbers, cursor


async def test_an_event_that_commits_late_is_not_skipped(driver: Driver, gateway: Gateway) -> None:
    async with gateway.db.begin() as late:
        await record(late, [event(driver, 1)])
        async with gateway.db.begin() as quick:
            await record(quick, [event(driver, 2)])
        seen, cursor = await read_all(driver)
    await settle(gateway.db)
    more, _ = await read_all(driver, cursor)
    assert sorted(seen + more) == [1, 2]
    assert (await read_all(driver))[0] == seen + more, "a second reader sees the same order"


async def test_many_writers_and_a_reader_that_follows(driver: Driver, gateway: Gateway) -> None:
    chance = random.Random(7)

    async def write(number: int) -> None:
        await asyncio.sleep(chance.random() / 10)
        async with gateway.db.begin() as session:
            await record(session, [event(driver, number)])
            await asyncio.sleep(chance.random() / 50)

    writers = asyncio.gather(*(write(number) for number in range(60)))
    seen: list[int] = []
    cursor: str | None = None
    while not writers.done():
        numbers, cursor = await read_all(driver, cursor, limit=7)
        seen += numbers
    await writers
    await settle(gateway.db)
    seen += (await read_all(driver, cursor))[0]
    assert len(seen) == len(set(seen)) == 60


async def test_filters_and_limit(driver: Driver, gateway: Gateway) -> None:
    async with gateway.db.begin() as session:
        await record(session, [event(driver, number) for number in range(5)])
    page = (await driver.get("events", limit=2, type="numbered", source="test", community="town")).json()
    assert [item["data"]["number"] for item in page["events"]] == [0, 1]
    assert (await driver.get("events", type="other")).json()["events"] == []


async def test_nul_characters_and_key_order_survive(driver: Driver, gateway: Gateway) -> None:
    data = {"z": "a\0b", "a": "\ud800", "number": 1}
    async with gateway.db.begin() as session:
        await record(session, [NewEvent(driver.id, None, "town", None, "test", "odd", data)])
    answer = await driver.get("events")
    assert answer.status_code == 200
    assert list(answer.json()["events"][0]["data"]) == ["z", "a", "number"]
    assert answer.json()["events"][0]["data"]["z"] == "a\0b"


async def test_transactions_are_ordered_as_numbers(driver: Driver, gateway: Gateway) -> None:
    async with gateway.db.begin() as session:
        ids = await record(session, [event(driver, number) for number in range(4)])
    for xid, event_id in zip((9, 10, 99, 100), ids, strict=True):
        await gateway.db.pool.execute("UPDATE events SET xid = $1::text::xid8 WHERE id = $2", str(xid), event_id)
    await settle(gateway.db)
    assert (await read_all(driver, limit=1))[0] == [0, 1, 2, 3]
