"""What endpoints and callback URLs answer, and what follows: gone, come back later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web

from app.events.claim import Outgoing, claim
from app.events.settle import Attempted, Result, settle_delivered, settle_failed
from app.gateway import Gateway
from app.worker import Drains, open_drains
from tests.conftest import Driver
from tests.events.test_deliveries import close_a_vote, listed
from tests.events.test_endpoints import PROBE, register
from tests.support.sink import Sink


async def test_a_callback_that_is_gone_ends_its_delivery_and_no_other(
    driver: Driver, drains: Drains, sink: Sink, gateway: Gateway
) -> None:
    sink.answer = lambda posted: web.Response(status=410 if posted.path == "/gone" else 204)
    await driver.put(plugins=[PROBE])
    await close_a_vote(driver, f"{sink.url}/gone")
    await drains.until_idle()
    ended = await listed(driver)
    assert ended, "a callback was owed"
    assert {row["status"] for row in ended} == {"dead"}, "shown, and not tried again"
    await gateway.db.pool.execute("UPDATE deliveries SET next_at = now() WHERE next_at IS NOT NULL")
    posts = len(sink.posts)
    await drains.until_idle()
    assert len(sink.posts) == posts
    for row in ended:
        attempts = (await driver.get(f"deliveries/{row['id']}/attempts")).json()["attempts"]
        assert [attempt["status"] for attempt in attempts] == [410]
    # The same driver's other callbacks go on, and the URL itself may be given again.
    await close_a_vote(driver, f"{sink.url}/other")
    sink.answer = lambda _: web.Response(status=204)
    await close_a_vote(driver, f"{sink.url}/gone")
    await drains.until_idle()
    assert {row["status"] for row in await listed(driver) if row["id"] not in {old["id"] for old in ended}} == {
        "delivered"
    }


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("asked", "kept"), [("40", 40), ("600", 600), ("999999999", 24 * 3600)])
async def test_retry_after_is_kept_to(
    driver: Driver, gateway: Gateway, drains: Drains, sink: Sink, status: int, asked: str, kept: int
) -> None:
    sink.answer = lambda _: web.Response(status=status, headers={"retry-after": asked})
    await driver.put(plugins=[PROBE])
    await register(driver, sink.url)
    await driver.act("probe.echo", {"text": "first"})
    await drains.until_idle()
    delivery, endpoint = await gateway.db.pool.fetchrow(
        "SELECT extract(epoch FROM d.next_at - now())::float, extract(epoch FROM e.not_before - now())::float "
        "FROM deliveries d JOIN endpoints e ON e.id = d.endpoint_id"
    )
    assert 0.9 * kept <= delivery <= 1.1 * kept
    assert 0.9 * kept <= endpoint <= 1.1 * kept
    # A worker that starts now knows of it too.
    await gateway.db.pool.execute("UPDATE deliveries SET next_at = now()")
    async with open_drains(gateway) as another:
        await another.deliveries()
    assert len(sink.posts) == 1


@pytest.mark.parametrize("said", ["", "soon", "-5", "Wed, 21 Oct 2065 07:28:00 GMT", "1e9", "\u0664"])
async def test_a_retry_after_that_is_no_number_of_seconds_is_passed_over(
    driver: Driver, gateway: Gateway, drains: Drains, sink: Sink, said: str
) -> None:
    sink.answer = lambda _: web.Response(status=429, headers={"retry-after": said})
    await driver.put(plugins=[PROBE])
    await register(driver, sink.url)
    await driver.act("probe.echo", {"text": "first"})
    await drains.until_idle()
    wait = await gateway.db.pool.fetchval("SELECT extract(epoch FROM next_at - now())::float FROM deliveries")
    assert 2 < wait <= 6, "the schedule's first wait"
    assert await gateway.db.pool.fetchval("SELECT not_before FROM endpoints") is None


async def test_what_came_of_an_attempt_past_its_lease_is_not_written(
    driver: Driver, gateway: Gateway, sink: Sink
) -> None:
    """Another worker has the delivery by then, and its outcome counts."""

    async def take() -> Outgoing:
        await gateway.db.pool.execute("UPDATE deliveries SET lease_until = now() - interval '1 second'")
        async with gateway.db.begin() as session:
            (taken,) = await claim(session, room=10, busy={})
        return taken

    async def settle_as_failed(item: Outgoing) -> bool:
        attempted = Attempted(item, datetime.now(UTC), Result(500, None, "", 1, None))
        async with gateway.db.begin() as session:
            return await settle_failed(session, attempted, retry_in=timedelta(seconds=5), pause=None)

    async def settle_as_delivered(item: Outgoing) -> list[bool]:
        return await settle_delivered(gateway.db, [Attempted(item, datetime.now(UTC), Result(204, None, "", 1, None))])

    await driver.put(plugins=[PROBE])
    await register(driver, sink.url)
    await driver.act("probe.echo", {"text": "hi"})
    slept, awake = await take(), await take()
    assert (slept.id, slept.epoch + 1) == (awake.id, awake.epoch)
    assert await settle_as_failed(slept) is False
    assert await settle_as_delivered(slept) == [False]
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM attempts") == 0
    assert tuple(await gateway.db.pool.fetchrow("SELECT status, epoch FROM deliveries")) == ("pending", awake.epoch)
    assert await settle_as_delivered(awake) == [True]
    assert await settle_as_failed(awake) is False, "what is delivered stays so"
