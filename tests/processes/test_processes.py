"""Governance processes: started, moved by signals and deadlines, closed, told to drivers."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from app.gateway import Gateway
from app.worker import Drains
from metagov_sdk import Rejected, Retry
from tests.conftest import Driver
from tests.processes.conftest import VOTE, cast, make_due, state_of
from tests.support import probe
from tests.support.sink import Sink


async def test_a_vote_from_start_to_outcome(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains, sink: Sink
) -> None:
    body = {"title": "V1", "callback_url": f"{sink.url}/cb", "correlation_id": "c-1"}
    started = await town.post(VOTE, body)
    assert started.status_code == 202
    process = started.json()
    assert (process["status"], process["name"], process["correlation_id"]) == ("pending", "probe.vote", "c-1")
    assert process["url"] == f"https://platform.example/{process['id']}"
    await cast(anonymous, "V1", "ann", "yes")
    await cast(anonymous, "V1", "bob", "no")
    await cast(anonymous, "V1", "ann", "no")
    await drains.until_idle()
    assert (await state_of(town, started))["outcome"]["votes"] == {"ann": "no", "bob": "no"}
    closed = await town.http.delete(started.headers["location"], headers={"X-Metagov-Community": "town"})
    assert closed.status_code == 200
    assert closed.json()["status"] == "completed"
    assert closed.json()["outcome"] == {"votes": {"ann": "no", "bob": "no"}, "why": "driver"}
    await drains.until_idle()
    last = sink.posts[-1]
    assert last.path == "/cb"
    assert last.verify(town.signing_secret) == closed.json(), "the callback gets the bare Process, signed"
    updates = (await town.get("events", type="process.updated")).json()["events"]
    assert updates[-1]["data"] == closed.json()


async def test_effects_and_rendering_happen_after_the_step(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains, gateway: Gateway
) -> None:
    await town.post(VOTE, {"title": "V1"})
    await drains.until_idle()
    for number in range(20):
        await cast(anonymous, "V1", f"voter{number}", "yes")
    await drains.until_idle()
    await make_due(gateway)
    await drains.until_idle()
    assert sum(line.startswith("tell") for line in probe.LOG) == 20
    drawn = [line for line in probe.LOG if line.startswith("render")]
    assert drawn[-1] == "render 20 pending"
    assert len(drawn) < 10, "twenty votes cost a few redraws"


async def test_a_click_that_comes_before_the_start_is_committed(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    await cast(anonymous, "early", "ann", "yes")
    await drains.until_idle()
    started = await town.post(VOTE, {"title": "early"})
    await drains.until_idle()
    assert (await state_of(town, started))["outcome"]["votes"] == {"ann": "yes"}


async def test_the_deadline_closes_it(town: Driver, drains: Drains) -> None:
    started = await town.post(VOTE, {"title": "V1", "seconds": 1})
    await drains.until_idle()
    assert (await state_of(town, started))["status"] == "pending"
    await asyncio.sleep(1.1)
    await drains.until_idle()
    closed = await state_of(town, started)
    assert (closed["status"], closed["outcome"]["why"]) == ("completed", "deadline")


async def test_the_final_observation_counts(town: Driver, drains: Drains) -> None:
    probe.BEHAVIOUR.update(observed="eve", key="V1")
    started = await town.post(VOTE, {"title": "V1", "seconds": 0.1})
    await asyncio.sleep(0.2)
    await drains.until_idle()
    assert (await state_of(town, started))["outcome"]["votes"] == {"eve": "seen"}


async def test_closing_twice_is_409_and_one_outcome(town: Driver, drains: Drains) -> None:
    started = await town.post(VOTE, {"title": "V1"})
    where, header = started.headers["location"], {"X-Metagov-Community": "town"}
    answers = await asyncio.gather(*(town.http.delete(where, headers=header) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
    await drains.until_idle()
    completed = [
        event
        for event in (await town.get("events", type="process.updated")).json()["events"]
        if event["data"]["status"] == "completed"
    ]
    assert len(completed) == 1


async def test_a_kind_that_cannot_be_closed_is_405(town: Driver) -> None:
    started = await town.post("process/probe.fragile", {"title": "F"})
    closed = await town.http.delete(started.headers["location"], headers={"X-Metagov-Community": "town"})
    assert closed.status_code == 405


async def test_respond_async_starts_in_the_worker(town: Driver, drains: Drains) -> None:
    started = await town.post(VOTE, {"title": "V1"}, Prefer="respond-async")
    assert (started.status_code, started.json()["status"]) == (202, "created")
    await drains.until_idle()
    assert (await state_of(town, started))["status"] == "pending"
    updates = (await town.get("events", type="process.updated")).json()["events"]
    assert [event["data"]["status"] for event in updates] == ["pending"]


async def test_a_refused_start_is_a_failed_process(town: Driver) -> None:
    probe.BEHAVIOUR["start"] = Rejected("no such channel")
    answer = await town.post(VOTE, {"title": "V1"})
    assert answer.status_code == 502
    assert "no such channel" in answer.json()["detail"]
    (process,) = (await town.get("process", status="completed")).json()["processes"]
    assert process["errors"] == {"start": "no such channel"}


async def test_a_start_that_the_platform_puts_off_is_tried_again(
    town: Driver, drains: Drains, gateway: Gateway
) -> None:
    probe.BEHAVIOUR["start"] = Retry("busy")
    started = await town.post(VOTE, {"title": "V1"})
    assert (started.status_code, started.json()["status"]) == (202, "created")
    probe.BEHAVIOUR.clear()
    await make_due(gateway)
    await drains.until_idle()
    assert (await state_of(town, started))["status"] == "pending"
    assert [line.split()[0] for line in probe.LOG if "render" not in line] == ["start", "start"]


async def lost_answer(gateway: Gateway, town: Driver, kind: str) -> httpx.Response:
    """A start whose process died between asking the platform and writing down the answer."""
    answer = await town.post(f"process/probe.{kind}", {"title": "V1"}, Prefer="respond-async")
    await gateway.db.pool.execute("UPDATE processes SET starting = true, attempt = 1")
    return answer


async def test_a_lost_start_is_looked_for_first(town: Driver, drains: Drains, gateway: Gateway) -> None:
    probe.BEHAVIOUR["found"] = True
    started = await lost_answer(gateway, town, "vote")
    await drains.until_idle()
    assert (await state_of(town, started))["status"] == "pending"
    assert [line.split()[0] for line in probe.LOG if "render" not in line] == ["find"], "never two polls"


async def test_a_lost_start_that_left_nothing_is_started(town: Driver, drains: Drains, gateway: Gateway) -> None:
    started = await lost_answer(gateway, town, "vote")
    await drains.until_idle()
    assert (await state_of(town, started))["status"] == "pending"
    assert [line.split()[0] for line in probe.LOG if "render" not in line] == ["find", "start"]


async def test_a_lost_start_that_cannot_be_looked_for_fails(town: Driver, drains: Drains, gateway: Gateway) -> None:
    started = await lost_answer(gateway, town, "fragile")
    await drains.until_idle()
    failed = await state_of(town, started)
    assert failed["status"] == "completed"
    assert list(failed["errors"]) == ["start_unknown"]
    assert probe.LOG == []


async def test_a_step_that_crashes_fails_its_process_visibly(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    started = await town.post(VOTE, {"title": "V1"})
    await cast(anonymous, "V1", "ann", "yes", kind="crash")
    await drains.until_idle()
    failed = await state_of(town, started)
    assert (failed["status"], list(failed["errors"])) == ("completed", ["step"])


async def test_deleting_the_instance_closes_its_processes(town: Driver, drains: Drains) -> None:
    started = await town.post(VOTE, {"title": "V1"})
    (plugin,) = (row for row in (await town.get("plugin")).json()["plugins"] if row["name"] == "probe")
    deleted = await town.http.delete(
        f"/api/internal/plugin/probe/{plugin['id']}", headers={"X-Metagov-Community": "town"}
    )
    assert deleted.status_code == 204
    await drains.until_idle()
    closed = await state_of(town, started)
    assert (closed["status"], closed["outcome"]["why"]) == ("completed", "deleted")


async def test_a_state_nobody_can_read_is_parked(town: Driver, drains: Drains, gateway: Gateway) -> None:
    started = await town.post(VOTE, {"title": "V1"})
    await drains.until_idle()
    await gateway.db.pool.execute("UPDATE processes SET state_version = 99, wake_at = now(), next_at = now()")
    await drains.until_idle()
    parked = await state_of(town, started)
    assert parked["status"] == "pending"
    assert "version 99" in parked["parked"]
    await gateway.db.pool.execute("UPDATE processes SET state_version = 1, next_at = now()")
    await drains.until_idle()
    assert (await state_of(town, started))["parked"] is None, "a worker that can read it goes on"


async def test_the_list_filters_and_pages(town: Driver) -> None:
    made = [(await town.post(VOTE, {"title": f"V{number}"})).json()["id"] for number in range(3)]
    first = (await town.get("process", limit=2)).json()
    rest = (await town.get("process", limit=2, after=first["next"])).json()
    assert [row["id"] for row in first["processes"] + rest["processes"]] == made[::-1]
    assert (await town.get("process", status="completed")).json()["processes"] == []
    assert (await town.get("process", plugin="github")).json()["processes"] == []


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"title": 5}, "/title"),
        ({"seconds": "soon"}, "/seconds"),
        ({"unknown": 1}, "/unknown"),
        ({"callback_url": "ftp://x/"}, "/callback_url"),
        ({"callback_url": 7}, "/callback_url"),
        ([], ""),
    ],
)
async def test_wrong_parameters_are_named(town: Driver, body: Any, pointer: str) -> None:
    answer = await town.post(VOTE, body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert (await town.get("process")).json()["processes"] == []


async def test_the_same_idempotency_key_starts_one_process(town: Driver) -> None:
    answers = [await town.post(VOTE, {"title": "V1"}, Idempotency_Key="k") for _ in range(3)]
    assert {answer.json()["id"] for answer in answers} == {answers[0].json()["id"]}
    assert answers[2].headers["location"] == answers[0].headers["location"]
    assert len((await town.get("process")).json()["processes"]) == 1


async def test_the_last_vote_to_come_in_counts_not_the_last_handled(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains, gateway: Gateway
) -> None:
    started = await town.post(VOTE, {"title": "V1"})
    probe.BEHAVIOUR["handler"] = Retry("busy")
    await cast(anonymous, "V1", "ann", "first")
    await drains.until_idle()
    probe.BEHAVIOUR.clear()
    await cast(anonymous, "V1", "ann", "second")
    await drains.until_idle()
    await gateway.db.pool.execute("UPDATE receipts SET next_at = now() WHERE status = 'retrying'")
    await drains.until_idle()
    assert {row["status"] for row in (await town.get("receipts")).json()["receipts"]} == {"done"}
    assert (await state_of(town, started))["outcome"]["votes"] == {"ann": "second"}


async def test_one_callback_url_serves_many_processes(town: Driver, gateway: Gateway, sink: Sink) -> None:
    """More than the five executions after which Postgres plans a prepared statement without looking at its values."""
    for number in range(12):
        answer = await town.post(VOTE, {"title": f"V{number}", "callback_url": sink.url})
        assert answer.status_code == 202, answer.text
    assert await gateway.db.pool.fetchval("SELECT count(*) FROM endpoints WHERE kind = 'callback'") == 1


@pytest.mark.parametrize("by", ["key", "id"])
async def test_a_signal_makes_its_process_due_by_key_or_by_id(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains, gateway: Gateway, by: str
) -> None:
    """A button can carry the process's id before there is a message whose id would be the key."""
    started = await town.post(VOTE, {"title": "V1"})
    await drains.until_idle()
    await gateway.db.pool.execute("UPDATE processes SET next_at = now() + interval '1 hour', paced_until = NULL")
    await cast(anonymous, "V1" if by == "key" else started.json()["id"], "ann", "yes")
    assert await drains.receipts() == 1
    assert await gateway.db.pool.fetchval("SELECT next_at <= now() FROM processes")
    await drains.until_idle()
    assert (await state_of(town, started))["outcome"]["votes"] == {"ann": "yes"}
