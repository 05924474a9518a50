"""What goes out keeps to the platform's limits, whichever process it goes out from."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from app.core.db import Database
from app.core.settings import Settings
from app.gateway import Gateway
from app.host.binding import InstanceData
from app.inbound.handle import MOST_ATTEMPTS
from app.runtime import limits
from app.runtime.calls import Ambiguous, PutOff, run
from app.runtime.limits import Buckets, forget_limits
from app.worker import open_drains
from metagov_sdk import Alias, Charge, Limit, Retry, Wait, bounded_seconds
from tests.conftest import Driver, make_settings
from tests.runtime.platform import Paced, Platform, all_of, paced, post_hook


def name(*wanted: Limit) -> None:
    """Have every request take from these."""
    Paced.limits_of = staticmethod(lambda request: wanted)


async def test_two_processes_share_one_pace(platform: Platform, here: Database, there: Database, team: str) -> None:
    name(Limit("all", rate=10, per=1, burst=2))
    window: list[float] = []

    def at_most_16_a_second(path: str) -> tuple[int, dict[str, str]]:
        now = time.monotonic()
        window[:] = [at for at in window if at > now - 1] + [now]
        return (200, {}) if len(window) <= 16 else (429, {})

    platform.answer = at_most_16_a_second
    async with paced(here, platform, team) as one, paced(there, platform, team) as two:
        answers = await all_of(*(client.get("/") for _ in range(15) for client in (one, two)))
    assert [answer.status_code for answer in answers] == [200] * 30
    times = [at for at, _ in platform.asked]
    assert times[-1] - times[0] > 2, "30 requests at 10 a second, the first two at once"
    # Each waited for a slot of its own.
    assert max(sum(at <= other < at + 0.5 for other in times) for at in times) < 15


async def test_another_owner_is_not_held_up(platform: Platform, here: Database, team: str) -> None:
    name(Limit("all", rate=1, per=600))
    async with paced(here, platform, team) as one, paced(here, platform, team + "2") as two:
        assert (await one.get("/")).status_code == 200
        assert (await two.get("/")).status_code == 200
        with pytest.raises(Retry, match="rate limit is used up"):
            await one.get("/")
    assert len(platform.asked) == 2


async def test_waiters_of_a_narrow_bucket_leave_a_wide_one_alone(platform: Platform, here: Database, team: str) -> None:
    wide = Limit("wide", rate=1, per=2, burst=20)
    Paced.limits_of = staticmethod(
        lambda request: [wide, Limit("narrow", rate=1, per=1.2)] if request.url.path == "/narrow" else [wide]
    )
    async with paced(here, platform, team) as client:
        waiting = [asyncio.create_task(client.get("/narrow")) for _ in range(4)]
        while not platform.asked:
            await asyncio.sleep(0.01)
        await all_of(*(client.get("/wide") for _ in range(10)))
        assert platform.paths().count("/wide") == 10
        assert platform.paths().count("/narrow") < 4
        await asyncio.gather(*waiting)
    assert platform.paths().count("/narrow") == 4


async def test_what_headers_say_is_known_everywhere(
    platform: Platform, here: Database, there: Database, team: str
) -> None:
    name(Limit("route", rate=1000, per=1, burst=1000))
    platform.answer = lambda path: (200, {"X-Remaining": "0", "X-Reset-After": "0.8"})
    Paced.learned_of = staticmethod(
        lambda request, response: [Wait("route", bounded_seconds(response.headers["X-Reset-After"]))]
    )
    async with paced(here, platform, team) as one, paced(there, platform, team) as two:
        await one.get("/")
        await two.get("/")
        await one.get("/")
    assert min(platform.gaps()) >= 0.8


async def test_a_short_retry_after_is_waited_for(platform: Platform, here: Database, team: str) -> None:
    name(Limit("route", rate=1000, per=1, burst=1000))
    platform.answer = lambda path: (429, {"Retry-After": "1"}) if len(platform.asked) == 1 else (200, {})
    async with paced(here, platform, team) as client:
        assert (await client.post("/", json={"text": "hello"})).status_code == 200
    assert len(platform.asked) == 2
    assert platform.gaps()[0] >= 1


async def test_a_long_retry_after_is_kept_over_a_restart(platform: Platform, settings: Settings, team: str) -> None:
    name(Limit("route", rate=1000, per=1, burst=1000))
    platform.answer = lambda path: (429, {"Retry-After": "60"})
    async with Database(settings) as before, paced(before, platform, team) as client:
        with pytest.raises(Retry, match="the platform asks to wait") as refused:
            await client.get("/")
    assert refused.value.after == 60
    platform.answer = lambda path: (200, {})
    async with Database(settings) as after, paced(after, platform, team) as client:
        with pytest.raises(Retry) as still:
            await client.get("/")
        assert 30 < (still.value.after or 0) <= 60
        assert len(platform.asked) == 1, "what is to wait is not sent"


async def test_a_platform_that_goes_on_refusing_is_left_alone(platform: Platform, here: Database, team: str) -> None:
    name(Limit("route", rate=1000, per=1, burst=1000))
    platform.answer = lambda path: (429, {"Retry-After": "0"})
    async with paced(here, platform, team) as client:
        with pytest.raises(Retry):
            await client.get("/")
    assert len(platform.asked) == 4


async def test_a_refusal_that_says_nothing_is_handed_on(platform: Platform, here: Database, team: str) -> None:
    name(Limit("route", rate=1000, per=1, burst=1000))
    platform.answer = lambda path: (429, {})
    async with paced(here, platform, team) as client:
        answer = await client.get("/")
    assert (answer.status_code, answer.json(), len(platform.asked)) == (429, {"status": 429}, 1)


async def test_a_body_that_was_streamed_is_not_sent_again(platform: Platform, here: Database, team: str) -> None:
    name(Limit("route", rate=1000, per=1, burst=1000))
    platform.answer = lambda path: (429, {"Retry-After": "0"})

    async def body() -> AsyncIterator[bytes]:
        yield b"once"

    async with paced(here, platform, team) as client:
        with pytest.raises(Retry):
            await client.post("/", content=body())
    assert len(platform.asked) == 1


async def test_a_wait_beyond_the_calls_time_is_not_begun(platform: Platform, here: Database, team: str) -> None:
    name(Limit("route", rate=1, per=3))
    instance = InstanceData("i", "paced", "c", "town", "d", "", 1, "enabled", {}, {}, 1, None, 1)
    async with paced(here, platform, team) as client:
        await client.get("/")
        with pytest.raises(Retry, match="used up"):
            await run(client.get("/"), seconds=2, what="asking", instance=instance)
        assert (await run(client.get("/"), seconds=30, what="asking", instance=instance)).status_code == 200
    assert len(platform.asked) == 2


async def test_a_driver_is_told_when_to_come_again(platform: Platform, town: Driver) -> None:
    name(Limit("route", rate=1, per=100))
    assert (await town.act("paced.ask")).json() == {"status": 200}
    refused = await town.act("paced.ask")
    assert refused.status_code == 503
    assert 90 <= int(refused.headers["retry-after"]) <= 100
    assert "rate limit is used up" in refused.json()["detail"]
    metrics = (await town.http.get("/metrics")).text
    assert 'metagov_platform_waits_total{plugin="paced",result="put_off"}' in metrics


async def test_webhooks_wait_for_their_turn_however_long(
    platform: Platform, town: Driver, paced_app: FastAPI, paced_gateway: Gateway
) -> None:
    name(Limit("route", rate=1, per=3600))
    await town.act("paced.ask")
    await post_hook(paced_app, {"path": "/"})
    pool = paced_gateway.db.pool
    async with open_drains(paced_gateway) as drains:
        for _ in range(MOST_ATTEMPTS + 2):
            await pool.execute("UPDATE receipts SET next_at = now()")
            await drains.receipts()
    row = await pool.fetchrow("SELECT status, error, next_at - now() AS wait FROM receipts")
    assert row["status"] == "retrying"
    assert "rate limit is used up" in row["error"]
    assert 3000 < row["wait"].total_seconds() <= 3600
    assert len(platform.asked) == 1


async def test_a_call_that_has_done_something_is_not_taken_for_one_that_has_not(
    platform: Platform, here: Database, team: str
) -> None:
    Paced.limits_of = staticmethod(
        lambda request: [Limit(request.url.path, rate=1, per=600)] if request.url.path != "/free" else []
    )
    async with paced(here, platform, team) as client:
        await client.get("/a")
        with pytest.raises(PutOff):
            await client.post("/a")
        platform.answer = lambda path: (403, {})
        await client.post("/free")
        with pytest.raises(PutOff):
            await client.post("/a")
        platform.answer = lambda path: (200, {})
        await client.post("/free")
        with pytest.raises(Ambiguous) as refused:
            await client.post("/a")
    assert 500 < (refused.value.after or 0) <= 600


async def test_routes_that_share_a_bucket_are_learnt(
    platform: Platform, here: Database, there: Database, team: str
) -> None:
    Paced.limits_of = staticmethod(lambda request: [Limit(request.url.path, rate=1000, per=1, burst=1000)])
    Paced.learned_of = staticmethod(
        lambda request, response: [Alias(request.url.path, "shared"), Wait("shared", float(request.url.params["s"]))]
    )
    async with paced(here, platform, team) as one, paced(there, platform, team) as two:
        await one.get("/a?s=0")
        await one.get("/b?s=60")
        for client in (one, two):
            with pytest.raises(Retry):
                await client.get("/a?s=0")
        assert (await two.get("/c?s=0")).status_code == 200, "a route nobody knows yet"
        with pytest.raises(Retry):
            await two.get("/c?s=0")


async def test_a_route_that_moves_to_another_bucket(platform: Platform, here: Database, team: str) -> None:
    name(Limit("route", rate=1000, per=1, burst=1000))
    told = iter([Alias("route", "old"), Alias("route", "new"), Alias("route", "new"), Alias("route", "new")])
    Paced.learned_of = staticmethod(lambda request, response: [next(told)])
    async with paced(here, platform, team) as client:
        await client.get("/")
        await client.get("/")
        row = "SELECT xmin::text, bucket FROM rate_limit_aliases WHERE owner = $1"
        known = await here.pool.fetchrow(row, team)
        await client.get("/")
        assert await here.pool.fetchrow(row, team) == known, "what is known is not written again"
    buckets = Buckets(here, "paced", team)
    await buckets.note([], {"old": 60.0})
    async with paced(here, platform, team) as client:
        await client.get("/")
    await buckets.note([], {"new": 60.0})
    async with paced(here, platform, team) as client:
        with pytest.raises(Retry):
            await client.get("/")


async def test_a_guard_stops_after_so_many_invalid_answers(
    platform: Platform, here: Database, there: Database, team: str
) -> None:
    invalid = Limit("invalid", rate=3, per=600, burst=3)
    name(Limit("invalid", rate=3, per=600, burst=3, cost=0))
    Paced.learned_of = staticmethod(lambda request, response: [Charge(invalid)] if response.status_code == 403 else [])
    platform.answer = lambda path: (403, {}) if path == "/bad" else (200, {})
    async with paced(here, platform, team) as one, paced(there, platform, team) as two:
        assert [(await one.get("/good")).status_code for _ in range(5)] == [200] * 5
        assert [(await client.get("/bad")).status_code for client in (one, two, one)] == [403] * 3
        for client in (one, two):
            with pytest.raises(Retry):
                await client.get("/good")
    assert len(platform.asked) == 8


@pytest.mark.parametrize(
    "value", ["-5", "nan", "inf", "1e308", "soon", "", "9" * 10_000, "Wed, 21 Oct 2015 07:28:00 GMT", "\x7f", "٣"]
)
async def test_a_hostile_retry_after_is_bounded(platform: Platform, here: Database, team: str, value: str) -> None:
    name(Limit("route", rate=1000, per=1, burst=1000))
    answer = httpx.Response(429, headers=[(b"Retry-After", value.encode())])
    # No honest server sends such bytes.
    async with paced(here, platform, team, httpx.MockTransport(lambda request: answer)) as client:
        (outcome,) = await all_of(client.get("/"))
    if isinstance(outcome, Retry):
        assert 0 <= (outcome.after or 0) <= 86_400
    else:
        assert outcome.status_code == 429
    latest = await here.pool.fetchval(
        "SELECT max(greatest(tat, not_before)) - now() FROM rate_limits WHERE owner = $1", team
    )
    assert latest.total_seconds() <= 86_400


async def test_made_up_buckets_end_in_one(
    platform: Platform, here: Database, team: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_MOST_BUCKETS", 5)
    Paced.limits_of = staticmethod(lambda request: [Limit(request.url.path, rate=1000, per=1, burst=1000)])
    Paced.learned_of = staticmethod(
        lambda request, response: [
            Alias(request.url.path, "\0" * 5000 + request.url.path),
            Wait(f"é{request.url.path}" * 1000, 1e308),
            Charge(Limit(f"x{request.url.path}", rate=1e-300, per=1e300, burst=1, cost=10**30)),
        ]
    )
    async with paced(here, platform, team) as client:
        outcomes = await all_of(*(client.get(f"/{number}") for number in range(20)))
    assert not [each for each in outcomes if not isinstance(each, httpx.Response | Retry)]
    rows = await here.pool.fetch("SELECT bucket FROM rate_limits WHERE owner = $1", team)
    aliases = await here.pool.fetch("SELECT name FROM rate_limit_aliases WHERE owner = $1", team)
    assert max(len(row["bucket"]) for row in rows) <= 200
    # Those who come at the same moment may each add one beyond.
    assert (len(rows) < 30, len(aliases) < 20) == (True, True)
    before = len(rows)
    async with paced(here, platform, team) as client:
        await all_of(*(client.get(f"/more/{number}") for number in range(10)))
    assert await here.pool.fetchval("SELECT count(*) FROM rate_limits WHERE owner = $1", team) <= before + 1


async def test_who_gives_up_waiting_holds_nothing(platform: Platform, here: Database, team: str) -> None:
    name(Limit("route", rate=1, per=4))
    async with paced(here, platform, team) as client:
        await client.get("/")
        waiting = asyncio.create_task(client.get("/"))
        async with asyncio.timeout(5):
            while await here.pool.fetchval(
                "SELECT tat < now() + interval '5 s' FROM rate_limits WHERE owner = $1", team
            ):
                await asyncio.sleep(0.01)
        assert here.pool.get_idle_size() == here.pool.get_size(), "no connection is held while waiting"
        waiting.cancel()
        (outcome,) = await all_of(waiting)
    assert isinstance(outcome, asyncio.CancelledError)
    assert len(platform.asked) == 1
    assert here.pool.get_idle_size() == here.pool.get_size()


async def test_many_at_once_do_not_wait_in_a_circle(here: Database, there: Database, team: str) -> None:
    dice = random.Random(4)
    names = [f"bucket {number}" for number in range(6)]

    async def ask(number: int) -> float:
        buckets = Buckets(here if number % 2 else there, "paced", team)
        chosen = [Limit(each, rate=1, per=500, burst=10_000) for each in dice.sample(names, 3)]
        if number % 5 == 0:
            await buckets.note(chosen, {})
            return 0
        return (await buckets.take(chosen, [False] * 3, 5)).wait

    async def tidy() -> float:
        await forget_limits(here)
        return 0

    began = await here.now()
    async with asyncio.timeout(60):
        waits = await asyncio.gather(*(tidy() if number % 40 == 39 else ask(number) for number in range(200)))
    assert set(waits) == {0}
    ahead = "SELECT sum(extract(epoch FROM tat - $2::timestamptz)) FROM rate_limits WHERE owner = $1"
    taken = await here.pool.fetchval(ahead, team, began)
    assert taken // 500 == 585, "195 of them took one from each of three, and none was lost"


async def test_slots_are_handed_out_one_by_one(here: Database, team: str) -> None:
    buckets = Buckets(here, "paced", team)
    limit = Limit("route", rate=1, per=2)
    takes = await asyncio.gather(*(buckets.take([limit], [False], 10) for _ in range(8)))
    waits = sorted(taken.wait for taken in takes)
    slots = [round(wait / 2) for wait in waits]
    assert slots == [0, 1, 2, 3, 4, 5, 6, 6], "what would wait longer took nothing"


async def test_who_has_waited_is_charged_once(platform: Platform, here: Database, team: str) -> None:
    name(Limit("route", rate=1, per=2))
    async with paced(here, platform, team) as client:
        await client.get("/")
        await client.get("/")
    ahead = await here.pool.fetchval("SELECT tat - now() FROM rate_limits WHERE owner = $1", team)
    assert ahead.total_seconds() < 3


async def test_without_the_database_nothing_is_sent(platform: Platform, settings: Settings, team: str) -> None:
    name(Limit("route", rate=1000, per=1))
    nowhere = make_settings("postgresql://nobody@127.0.0.1:1/none")
    async with Database(nowhere) as away, paced(away, platform, team) as client:
        with pytest.raises(Retry, match="database"):
            await client.get("/")
    assert platform.asked == []


async def test_full_buckets_are_forgotten(here: Database, team: str) -> None:
    buckets = Buckets(here, "paced", team)
    await buckets.take([Limit("past", rate=1, per=1), Limit("slow", rate=1, per=600)], [False, False], 5)
    await buckets.note([], {"waiting": 600.0})
    await here.pool.execute("UPDATE rate_limits SET tat = tat - interval '5 minutes' WHERE owner = $1", team)
    await buckets.rename({"name": "bucket", "old name": "bucket"})
    await here.pool.execute(
        "UPDATE rate_limit_aliases SET learned_at = now() - interval '8 days' WHERE owner = $1 AND name = 'old name'",
        team,
    )
    await forget_limits(here)
    rows = await here.pool.fetch("SELECT bucket FROM rate_limits WHERE owner = $1 ORDER BY bucket", team)
    assert [row["bucket"] for row in rows] == ["slow", "waiting"]
    names = await here.pool.fetch("SELECT name FROM rate_limit_aliases WHERE owner = $1", team)
    assert [row["name"] for row in names] == ["name"]
