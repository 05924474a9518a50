"""Receipts are handled many to a transaction, and still each by itself."""

from __future__ import annotations

import asyncio

import httpx

from app.worker import Drains
from tests.conftest import Driver
from tests.inbound.test_hooks import PATH, events, news, receipts, signed, town
from tests.support import probe

__all__ = ["town"]


async def post(anonymous: httpx.AsyncClient, body: bytes) -> None:
    assert (await anonymous.post(PATH, content=body, headers=signed(body))).status_code == 202


async def test_what_cannot_be_stored_fails_only_itself(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    # Half of a surrogate pair is no text that Postgres takes.
    for number in range(10):
        await post(anonymous, news(text=f"n{number}", **({"key": "\ud800"} if number == 4 else {})))
    await drains.receipts()
    assert [event["text"] for event in await events(town)] == [f"n{number}" for number in range(10) if number != 4]
    assert (await town.act("probe.read")).json() == {"count": 9}
    (failed,) = [row for row in await receipts(town) if row["status"] != "done"]
    assert failed["status"] == "retrying"
    assert "cannot be stored" in failed["error"]


async def test_a_lost_lease_in_a_batch_writes_nothing(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    probe.BEHAVIOUR["handler"] = 0.3
    for number in range(5):
        await post(anonymous, news(text=f"n{number}"))
    draining = asyncio.ensure_future(drains.receipts())
    await asyncio.sleep(0.15)
    lost = await town.db.pool.fetchval("UPDATE receipts SET epoch = epoch + 1 RETURNING (SELECT min(id) FROM receipts)")
    await town.db.pool.execute("UPDATE receipts SET epoch = epoch - 1 WHERE id <> $1", lost)
    await draining
    assert [event["text"] for event in await events(town)] == ["n1", "n2", "n3", "n4"]
    assert (await town.act("probe.read")).json() == {"count": 4}
    assert await town.db.pool.fetchval("SELECT status FROM receipts WHERE id = $1", lost) == "stored"


async def test_events_of_a_batch_are_in_the_order_of_arrival(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    for number in range(40):
        await post(anonymous, news(text=f"n{number}"))
    await drains.receipts()
    assert [event["text"] for event in await events(town)] == [f"n{number}" for number in range(40)]
