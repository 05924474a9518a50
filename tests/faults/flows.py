"""What goes through a gateway while one of its processes dies at a kill point, and how it has to look in the end.

A flow starts the doomed process, sees it die, puts a healthy one in its place, and checks the end: events delivered
under one id each, effects on the database exactly once. It returns when the rows that the dead process had in hand were
taken up again.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from app.core.killpoints import KillPoint
from tests.faults.clones import HOOK, VotesRig
from tests.faults.rig import stalling, until

PATIENCE = 90
"""Longer than any lease."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """Seconds after the death."""

    after: float = 0.0
    """Until the last row that was in hand was taken up again; 0 when there was none."""
    booted: float = 0.0
    """Until the process in the dead one's place was at work; 0 when another was at work all the time."""


async def webhook_with_worker_killed(rig: VotesRig, point: KillPoint) -> Resumed:
    """A webhook is handled, its event delivered."""
    rig.start_doomed("worker", point)
    assert await rig.send("hello", vote="nobody", voter="ann", choice="yes") == 202
    await rig.died("worker", point)
    resumed = await taken_up(rig)
    await _check_webhook(rig, point)
    return resumed


async def webhook_with_api_killed(rig: VotesRig, point: KillPoint) -> Resumed:
    """The API dies over a webhook; the platform repeats it."""
    rig.start("worker")
    body, headers = stalling("hello", vote="nobody", voter="ann", choice="yes")
    async with dying(rig, point), rig.client() as http:
        await http.post(HOOK, content=body, headers=headers)
    rig.start("api")
    repeated = await rig.send("hello", vote="nobody", voter="ann", choice="yes")
    assert repeated == (200 if point is KillPoint.WEBHOOKS_STORED else 202)
    await _check_webhook(rig, point)
    return Resumed()


async def _check_webhook(rig: VotesRig, point: KillPoint) -> None:
    await until(lambda: idle(rig), PATIENCE, "every row worked off")
    assert await column(rig, "SELECT status FROM receipts") == ["done"]
    assert await column(rig, "SELECT state ->> 'handled' FROM instance_states") == ["1"]
    assert await column(rig, "SELECT key FROM signals") == ["nobody"]
    posts = await check_events(rig, heard=["hello"])
    assert [len(same) for same in posts.values()] == [2 if point is KillPoint.DELIVERY_ANSWERED else 1]


async def poll(rig: VotesRig, point: KillPoint) -> Resumed:
    """A poll finds news."""
    (rig.platform / "news").write_text("".join(json.dumps({"text": f"line {number}"}) + "\n" for number in (1, 2)))
    rig.start_doomed("worker", point)
    await rig.died("worker", point)
    resumed = await taken_up(rig)

    async def heard() -> bool:
        return await column(rig, "SELECT cursor::text FROM polls") == ["2"] and await idle(rig)

    await until(heard, PATIENCE, "the news delivered")
    await check_events(rig, news=["line 1", "line 2"])
    return resumed


async def process_with_worker_killed(rig: VotesRig, point: KillPoint) -> Resumed:
    """A vote is opened, cast, closed, shown and told of."""
    rig.start_doomed("worker", point)
    async with rig.client() as http:
        started = await http.post(
            "/api/internal/process/votes.vote",
            json={"seconds": 600, "voters": 2},
            headers={"Prefer": "respond-async"},
        )
    assert started.status_code == 202, started.text
    await _vote(rig, started.json()["id"])
    await rig.died("worker", point)
    resumed = await taken_up(rig)
    await _check_process(rig, point)
    return resumed


async def process_with_api_killed(rig: VotesRig, point: KillPoint) -> Resumed:
    """The API dies over the start of a vote; a worker opens it, and the driver finds it among its processes."""
    rig.start("worker")
    async with dying(rig, point), rig.client() as http:
        await http.post("/api/internal/process/votes.vote", json={"seconds": 600, "voters": 2})
    (process,) = await column(rig, "SELECT id FROM processes")
    resumed, _ = await asyncio.gather(taken_up(rig, "api"), _vote(rig, process))
    await _check_process(rig, point)
    return resumed


async def _vote(rig: VotesRig, process: str) -> None:
    for voter in ("ann", "ben"):
        await rig.send(f"ballot of {voter}", vote=process, voter=voter, choice="yes")


async def _check_process(rig: VotesRig, point: KillPoint) -> None:
    async def over() -> bool:
        rows = await rig.rows("SELECT status, version = rendered FROM processes")
        return [tuple(row) for row in rows] == [("completed", True)] and await idle(rig)

    await until(over, PATIENCE, "the vote is over, shown, told and delivered")
    (process,) = await rig.rows("SELECT id, outcome, errors FROM processes")
    assert json.loads(process["outcome"]) == {"counts": {"yes": 2}}
    assert json.loads(process["errors"]) == {}
    assert [line["id"] for line in rig.on_platform("opened")] == [process["id"]], "opened once"
    told = rig.on_platform("told")
    assert len({line["key"] for line in told}) == 1, "under one idempotency key"
    assert len(told) == (2 if point is KillPoint.EFFECT_PERFORMED else 1)
    assert rig.on_platform("shown")[-1] == {"id": process["id"], "status": "completed"}
    assert await column(rig, "SELECT applied_at IS NOT NULL FROM signals") == [True, True]
    await check_events(rig, heard=["ballot of ann", "ballot of ben"], completed=[process["id"]])


async def taken_up(rig: VotesRig, healthy: str = "healthy worker") -> Resumed:
    """Put a healthy process in the place of one that died just now; wait until what was in hand is taken up."""
    died = time.monotonic()
    held = await _in_hand(rig)
    before = set(await column(rig, "SELECT id FROM heartbeats"))
    rig.start(healthy)
    booted = 0.0
    if healthy != "api":

        async def beats() -> bool:
            return bool(set(await column(rig, "SELECT id FROM heartbeats")) - before)

        booted = await until(beats, PATIENCE, "the healthy worker is at work")
    if not held:
        return Resumed(0, booted)

    async def others() -> bool:
        return not held & await _in_hand(rig)

    await until(others, PATIENCE, f"somebody takes up {held}")
    return Resumed(time.monotonic() - died, booted)


async def _in_hand(rig: VotesRig) -> set[tuple[str, int]]:
    """The claims that have neither been worked off nor taken over: ids and epochs."""
    tables = ("receipts", "polls", "deliveries", "processes", "effects", "mirror_partitions", "graphs")
    query = " UNION ALL ".join(f"SELECT id, epoch FROM {table} WHERE lease_until IS NOT NULL" for table in tables)
    return {(row["id"], row["epoch"]) for row in await rig.rows(query)}


@asynccontextmanager
async def dying(rig: VotesRig, point: KillPoint) -> AsyncIterator[None]:
    """The API dies at the point during this block, and what was asked of it gets no answer."""
    with pytest.raises(httpx.TransportError):
        yield
    await rig.died("api", point, 10)


async def check_events(
    rig: VotesRig, *, heard: Sequence[str] = (), news: Sequence[str] = (), completed: Sequence[str] = ()
) -> dict[str, list[Any]]:
    """Exactly these events are stored, each was delivered, and what was posted twice came under the same id."""
    rows = await rig.rows("SELECT id, event_type, data FROM events WHERE source = 'votes'")
    stored: Counter[tuple[str, str]] = Counter()
    for row in rows:
        data = json.loads(row["data"])
        if row["event_type"] != "process.updated":
            stored[row["event_type"], data["text"]] += 1
        elif data["status"] == "completed":
            stored["completed", data["id"]] += 1
    wanted = [("heard", text) for text in heard] + [("news", text) for text in news]
    assert stored == Counter(wanted + [("completed", process) for process in completed])
    posts = rig.posts_by_id()
    assert posts.keys() == {row["id"] for row in rows}, "each event's one id, heard by the endpoint"
    assert await rig.count("SELECT count(*) FROM deliveries WHERE status <> 'delivered'") == 0
    for same in posts.values():
        assert len({post.body for post in same}) == 1
    return posts


async def idle(rig: VotesRig) -> bool:
    """Whether nothing is due or will be soon."""
    waiting = "SELECT count(*) FROM {} WHERE next_at IS NOT NULL"
    return not any(
        [await rig.count(waiting.format(table)) for table in ("receipts", "deliveries", "effects")]
        + [await rig.count("SELECT count(*) FROM processes WHERE next_at < clock_timestamp() + interval '1 minute'")]
    )


async def column(rig: VotesRig, query: str) -> list[Any]:
    """A query's first column."""
    return [row[0] for row in await rig.rows(query)]
