"""Webhooks of hooks that ask for order: one at a time for each instance, in the order in which they came."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from app.core.db import plain_dsn
from app.inbound import store
from app.inbound.claim import claim_receipts
from app.inbound.handle import handle_due
from metagov_sdk import ManifestError, unsigned, webhook
from tests.inbound.conftest import Platform
from tests.support.signers import LOG


def ended(label: str) -> list[int]:
    return [number for what, whose, number in LOG if (what, whose) == ("ended", label)]


async def work_until(platform: Platform, count: int, workers: int = 2) -> None:
    """Workers beside each other, until so many webhooks are handled."""

    async def work() -> None:
        while sum(what == "ended" for what, *_ in LOG) < count:
            if not await handle_due(platform.gateway.inbox):
                await asyncio.sleep(0.005)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(work())


def never_two_at_once(label: str) -> bool:
    """Whether each handler returned before the next began."""
    steps = [what for what, whose, _ in LOG if whose == label]
    return all(what == "began" for what in steps[::2]) and all(what != "began" for what in steps[1::2])


async def test_order_is_kept_by_two_workers_and_failing_handlers(platform: Platform) -> None:
    await platform.join("town")
    for number in range(12):
        hook = "turns" if number % 3 else "more-turns"
        await platform.tell(hook, number, failures=number % 4 == 1, seconds=0.01 if number % 5 == 0 else 0)
    await work_until(platform, 12)
    assert ended("town") == list(range(12))
    assert never_two_at_once("town")


async def test_another_instance_is_not_held_up(platform: Platform) -> None:
    await platform.join("town")
    await platform.join("village")
    await platform.tell("turns", 0, failures=1, after=3600)
    await platform.tell("turns", 1)
    for number in range(3):
        await platform.tell("turns", number, slug="village")
    await work_until(platform, 3)
    assert (ended("town"), ended("village")) == ([], [0, 1, 2])


async def test_hooks_without_order_are_not_held_up(platform: Platform) -> None:
    await platform.join("town")
    await platform.tell("turns", 0, failures=1, after=3600)
    await platform.tell("turns", 1)
    for number in range(2, 6):
        await platform.tell("free", number)
    await work_until(platform, 4)
    assert sorted(ended("town")) == [2, 3, 4, 5]


async def test_a_dead_one_lets_the_next_go(platform: Platform) -> None:
    await platform.join("town")
    await platform.tell("turns", 0, refused=True)
    await platform.tell("turns", 1)
    await work_until(platform, 1)
    assert [(what, number) for what, _, number in LOG] == [("began", 0), ("failed", 0), ("began", 1), ("ended", 1)]


async def test_those_of_a_disabled_instance_wait_in_order(platform: Platform) -> None:
    await platform.join("town")
    for number in range(3):
        await platform.tell("turns", number)
    pool = platform.gateway.db.pool
    await pool.execute("UPDATE instances SET status = 'disabled'")
    assert await handle_due(platform.gateway.inbox) == 1, "the first is looked at, and stays the first"
    assert LOG == []
    await pool.execute("UPDATE instances SET status = 'active'")
    await pool.execute(
        "UPDATE receipts SET next_at = clock_timestamp() WHERE position > (SELECT min(position) FROM receipts)"
    )
    assert await handle_due(platform.gateway.inbox) == 0
    await pool.execute("UPDATE receipts SET next_at = clock_timestamp()")
    await work_until(platform, 3)
    assert ended("town") == [0, 1, 2]


async def test_what_is_taken_keeps_the_next_back_until_it_is_done(platform: Platform) -> None:
    await platform.join("town")
    await platform.tell("turns", 0)
    await platform.tell("turns", 1)
    await platform.tell("free", 2)
    async with platform.gateway.db.begin() as session:
        first = await claim_receipts(session, limit=10, lease=timedelta(seconds=30))
    async with platform.gateway.db.begin() as session:
        second = await claim_receipts(session, limit=10, lease=timedelta(seconds=30))
    assert [(row.hook, row.attempt, row.epoch) for row in first] == [("turns", 1, 1), ("free", 1, 1)]
    assert second == []


async def test_many_lanes_leave_room_for_the_rest(platform: Platform) -> None:
    for place in range(4):
        await platform.join(f"town-{place}")
        await platform.tell("turns", place, slug=f"town-{place}")
        await platform.tell("free", place, slug=f"town-{place}")
    async with platform.gateway.db.begin() as session:
        taken = await claim_receipts(session, limit=4, lease=timedelta(seconds=30))
    assert sorted(row.hook for row in taken) == ["free", "free", "turns", "turns"]


async def test_a_later_one_is_not_committed_before_an_earlier_one(platform: Platform) -> None:
    """Two API processes: the first draws the lower position and takes its time to commit."""
    await platform.join("town")
    await platform.join("village")
    ids = await platform.gateway.db.pool.fetch(
        "SELECT i.id, i.generation FROM instances i JOIN communities c ON c.id = i.community_id ORDER BY c.slug"
    )
    town, village = ((row["id"], row["generation"]) for row in ids)
    connect = plain_dsn(platform.gateway.settings.database_url)
    slow, fast = await asyncpg.connect(connect), await asyncpg.connect(connect)
    try:
        late = slow.transaction()
        await late.start()
        await take(slow, town, "rcp_slow", "turns", ordered=True)
        behind = asyncio.create_task(take(fast, town, "rcp_fast", "turns", ordered=True))
        await waits_for_its_turn(platform)
        free = await asyncpg.connect(connect)
        try:
            # Neither another instance nor a hook without order waits for it.
            await take(free, village, "rcp_village", "turns", ordered=True)
            await take(free, town, "rcp_free", "free", ordered=False)
        finally:
            await free.close()
        assert not behind.done()
        await late.commit()
        await behind
    finally:
        await slow.close()
        await fast.close()
    rows = await platform.gateway.db.pool.fetch("SELECT id FROM receipts WHERE ordered ORDER BY position")
    assert [row["id"] for row in rows if row["id"] != "rcp_village"] == ["rcp_slow", "rcp_fast"]


async def take(
    connection: asyncpg.Connection[asyncpg.Record], instance: tuple[str, int], id: str, hook: str, *, ordered: bool
) -> None:
    """What an API process executes for one webhook."""
    await connection.fetch(
        store._INGEST, [id], [instance[0]], [instance[1]], [hook], [None], ["[]"], [b"{}"], [ordered]
    )


async def waits_for_its_turn(platform: Platform) -> None:
    waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = $1 AND NOT granted)"
    async with asyncio.timeout(10):
        while not await platform.gateway.db.pool.fetchval(waiting, store._TURNS):
            await asyncio.sleep(0.01)


async def test_requests_at_once_are_stored_without_a_deadlock(platform: Platform) -> None:
    for slug in ("town", "village"):
        await platform.join(slug)
    tell = [platform.tell("turns", number, slug=slug) for number in range(40) for slug in ("town", "village")]
    async with asyncio.timeout(20):
        await asyncio.gather(*tell)
    await work_until(platform, 80)
    assert never_two_at_once("town") and never_two_at_once("village")


def test_an_unsigned_hook_has_no_order() -> None:
    with pytest.raises(ManifestError, match="ordered=True needs a signed hook"):
        webhook(verify=unsigned(reason="the platform signs nothing"), ordered=True)
