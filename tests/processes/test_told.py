"""What drivers are told of a process: in order, and nothing before they can know its id."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from aiohttp import web
from fastapi import FastAPI

from app.gateway import Gateway
from app.worker import Drains
from metagov_sdk import errors
from tests.conftest import Driver
from tests.processes.conftest import HEADER, VOTE, cast, make_due, open_ballot, state_of, vote
from tests.support import probe
from tests.support.sink import Sink


async def told(driver: Driver) -> list[str]:
    """The status in each update, in order."""
    events = (await driver.get("events", type="process.updated")).json()["events"]
    return [event["data"]["status"] for event in events]


@pytest.fixture
def impatient(app: FastAPI, gateway: Gateway) -> Iterator[None]:
    """Requests do not wait long for a start."""
    app.state.runner = replace(gateway.runner, start_timeout=0.1)
    yield
    app.state.runner = gateway.runner


async def test_the_answer_tells_of_the_start_and_no_event_does(town: Driver, drains: Drains) -> None:
    await town.post(VOTE, {"title": "V1"})
    await drains.until_idle()
    assert await told(town) == []


async def test_a_start_that_goes_on_in_the_worker_is_told_by_an_event(
    town: Driver, drains: Drains, impatient: None
) -> None:
    probe.BEHAVIOUR["start"] = 0.4
    started = await town.post(VOTE, {"title": "V1", "correlation_id": "c"})
    assert (started.status_code, started.json()["status"]) == (202, "created")
    assert await told(town) == []
    await asyncio.sleep(0.6)
    events = (await town.get("events", type="process.updated")).json()["events"]
    assert [(event["data"]["id"], event["data"]["status"]) for event in events] == [(started.json()["id"], "pending")]
    assert events[0]["data"]["correlation_id"] == "c"


async def test_what_ends_with_its_start_is_told_after_the_answer(
    town: Driver, drains: Drains, gateway: Gateway, sink: Sink
) -> None:
    await town.put(plugins=[{"name": "randomness", "config": {"default_low": 1, "default_high": 6}}])
    body = {"options": ["a", "b"], "delay": 0, "callback_url": f"{sink.url}/cb"}
    started = await town.post("process/randomness.delayed-stochastic-vote", body)
    assert started.json()["status"] == "completed"
    assert await told(town) == [], "not in the commit that the answer waits for"
    await drains.until_idle()
    await make_due(gateway)
    await drains.until_idle()
    assert await told(town) == ["completed"], "once"
    assert [post.verify(town.signing_secret) for post in sink.posts] == [started.json()]


async def test_an_early_click_is_told_of_after_the_answer(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains, gateway: Gateway
) -> None:
    await cast(anonymous, "V1", "ann", "yes")
    await drains.until_idle()
    probe.BEHAVIOUR["start"] = 0.3
    starting = asyncio.create_task(town.post(VOTE, {"title": "V1"}))
    while not starting.done():
        await drains.processes()
        await asyncio.sleep(0.01)
        told_of = await gateway.db.pool.fetchval("SELECT count(*) FROM events WHERE event_type = 'process.updated'")
        assert starting.done() or told_of == 0
    await drains.until_idle()
    assert (await state_of(town, await starting))["outcome"]["votes"] == {"ann": "yes"}
    assert await told(town) == ["pending"]


async def test_callbacks_of_one_process_keep_their_order(
    town: Driver, drains: Drains, gateway: Gateway, sink: Sink
) -> None:
    refusing = True
    sink.answer = lambda posted: web.Response(status=500 if refusing else 204)
    slow = await open_ballot(town, callback_url=f"{sink.url}/cb", correlation_id="slow")
    for voter in ("ann", "bob", "cy"):
        await vote(town, slow.json()["id"], voter, "yes")
        await make_due(gateway)
        await drains.until_idle()
    await town.http.delete(slow.headers["location"], headers=HEADER)
    await drains.until_idle()
    assert {post.verify(town.signing_secret)["outcome"]["total_voters"] for post in sink.posts} == {1}, "only the first"
    refusing = False
    sink.posts.clear()
    for _ in range(6):
        await gateway.db.pool.execute("UPDATE deliveries SET next_at = now() WHERE next_at IS NOT NULL")
        await gateway.db.pool.execute("UPDATE endpoints SET not_before = NULL, failures = 0")
        await drains.until_idle()
    updates = [post.verify(town.signing_secret) for post in sink.posts]
    assert [update["outcome"]["total_voters"] for update in updates] == [1, 2, 3, 3]
    assert [update["status"] for update in updates] == ["pending", "pending", "pending", "completed"]
    assert {update["correlation_id"] for update in updates} == {"slow"}


async def test_one_process_does_not_hold_up_anothers_callbacks(
    town: Driver, drains: Drains, gateway: Gateway, sink: Sink
) -> None:
    first = (await open_ballot(town, title="first", callback_url=sink.url)).json()["id"]

    def answer(posted: Any) -> web.Response:
        return web.Response(status=500 if first.encode() in posted.body else 204)

    sink.answer = answer
    second = (await open_ballot(town, title="second", callback_url=sink.url)).json()["id"]
    for process in (first, second):
        await vote(town, process, "ann", "yes")
    await drains.until_idle()
    rows = await gateway.db.pool.fetch("SELECT lane, status FROM deliveries")
    assert {row["lane"]: row["status"] for row in rows} == {first: "pending", second: "delivered"}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.NotFound("there is no such channel"), 404),
        (errors.Forbidden("not for this one"), 403),
        (errors.Conflict("it is taken"), 409),
    ],
)
async def test_the_plugins_words_for_what_is_wrong(town: Driver, error: Exception, status: int) -> None:
    probe.BEHAVIOUR.update(action=error, start=error)
    acted = await town.act("probe.count")
    started = await town.post(VOTE, {"title": "V1"})
    assert (acted.status_code, started.status_code) == (status, status)
    assert acted.json()["detail"] == started.json()["detail"] == str(error)


async def test_what_a_plugin_finds_invalid_has_a_pointer(town: Driver, gateway: Gateway) -> None:
    probe.BEHAVIOUR.update(
        action=errors.Invalid("/by", "too much"), start=errors.Invalid("/title", "there is one of that title")
    )
    acted = await town.act("probe.count")
    assert (acted.status_code, acted.json()["errors"][0]["pointer"]) == (422, "/parameters/by")
    started = await town.post(VOTE, {"title": "V1"})
    assert (started.status_code, started.json()["errors"][0]["pointer"]) == (422, "/title")
    assert (await town.get("process")).json()["processes"] == [], "what was refused as invalid is no process"


async def test_a_deadline_in_the_past_is_refused_before_anything_is_stored(town: Driver) -> None:
    body = {"title": "t", "options": ["a", "b"], "closing_at": "2020-01-01T00:00:00Z"}
    answer = await town.post("process/ballot.vote", body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/closing_at")
    assert (await town.get("process")).json()["processes"] == []


async def test_updates_of_an_open_vote_name_no_voters(
    town: Driver, drains: Drains, gateway: Gateway, sink: Sink
) -> None:
    """Events, callbacks and the history; GET names them meanwhile, and the last of each."""
    started = await open_ballot(town, callback_url=sink.url)
    for voter in ("ann", "bob"):
        await vote(town, started.json()["id"], voter, "yes")
        await make_due(gateway)
        await drains.until_idle()
    shown = await state_of(town, started)
    assert shown["outcome"]["options"][0]["voters"] == ["ann", "bob"]
    bare = {option["option"]: (option["count"], "voters" in option) for option in shown["outcome"]["options"]}
    assert bare == {"yes": (2, True), "no": (0, True)}
    closed = (await town.http.delete(started.headers["location"], headers=HEADER)).json()
    await drains.until_idle()
    events = [event["data"] for event in (await town.get("events", type="process.updated")).json()["events"]]
    posts = [post.verify(town.signing_secret) for post in sink.posts]
    history = (await town.http.get(f"{started.headers['location']}/history", headers=HEADER)).json()["transitions"]
    assert events == posts
    for told_of in (events, [step for step in history if step["kind"] != "start"]):
        *running, last = [each["outcome"] for each in told_of]
        assert [outcome["total_voters"] for outcome in running] == [1, 2]
        assert [option for outcome in running for option in outcome["options"] if "voters" in option] == []
        assert last == closed["outcome"]
        assert last["options"][0]["voters"] == ["ann", "bob"]
    assert all({**event, "outcome": None} == {**shown, "outcome": None} for event in events[:-1])


async def test_a_process_that_fails_is_told_of_with_its_whole_outcome(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe.Vote, "update_of", classmethod(lambda cls, outcome: probe.Tally(why="not yet")))
    started = await town.post(VOTE, {"title": "V1"})
    for kind in ("ballot", "crash"):
        await cast(anonymous, "V1", "ann", "yes", kind=kind)
        await make_due(gateway)
        await drains.until_idle()
    events = [event["data"] for event in (await town.get("events", type="process.updated")).json()["events"]]
    assert [event["outcome"] for event in events] == [
        {"votes": {}, "why": "not yet"},
        {"votes": {"ann": "yes"}, "why": ""},
    ]
    assert events[-1] == await state_of(town, started)
    assert list(events[-1]["errors"]) == ["step"]


@pytest.mark.parametrize("broken", [lambda cls, outcome: 1 / 0, lambda cls, outcome: {"a": "dict"}])
async def test_an_update_that_cannot_be_made_ends_the_process_visibly(
    town: Driver,
    anonymous: httpx.AsyncClient,
    drains: Drains,
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
    broken: Any,
) -> None:
    started = await town.post(VOTE, {"title": "V1"})
    monkeypatch.setattr(probe.Vote, "update_of", classmethod(broken))
    await cast(anonymous, "V1", "ann", "yes")
    await make_due(gateway)
    await drains.until_idle()
    shown = await state_of(town, started)
    assert (shown["status"], list(shown["errors"])) == ("completed", ["step"])
