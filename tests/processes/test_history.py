"""What is written down of each step, and that it can be repeated."""

from __future__ import annotations

import json
from typing import Any

import httpx

from app.gateway import Gateway
from app.processes.history import replay
from app.worker import Drains
from metagov_sdk import ProcessSpec
from plugins.ballot.processes import BallotVote
from tests.conftest import Driver
from tests.processes.conftest import HEADER, VOTE, cast, make_due, open_ballot, state_of, vote
from tests.support import probe


async def history(driver: Driver, process: dict[str, Any], **query: Any) -> dict[str, Any]:
    """A page of a process's history."""
    answer = await driver.get(f"process/{process['name']}/{process['id']}/history", **query)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


async def voted(town: Driver, drains: Drains, *, rounds: int = 3, **params: Any) -> dict[str, Any]:
    """A ballot in which voters change their votes, closed by the driver."""
    started = await open_ballot(town, **params)
    for number in range(rounds):
        for voter in range(10):
            choice = "yes" if (voter + number) % 3 else "no"
            assert (await vote(town, started.json()["id"], f"voter {voter}", choice)).status_code == 200
        await drains.until_idle()
    closed = await town.http.delete(started.headers["location"], headers=HEADER)
    process: dict[str, Any] = closed.json()
    return process


async def test_each_step_is_there_in_order(town: Driver, drains: Drains) -> None:
    process = await voted(town, drains)
    steps = (await history(town, process))["transitions"]
    assert [step["version"] for step in steps] == list(range(1, len(steps) + 1))
    assert steps[0]["kind"] == "start"
    assert (steps[-1]["kind"], steps[-1]["reason"], steps[-1]["status"]) == ("close", "driver", "completed")
    assert steps[-1]["outcome"] == process["outcome"]
    assert sum(step["signals"] for step in steps) == 30
    positions = [(step["first_position"], step["last_position"]) for step in steps if step["signals"]]
    flat = [position for pair in positions for position in pair]
    assert flat == sorted(flat)


async def test_it_is_paged(town: Driver, drains: Drains) -> None:
    process = await voted(town, drains)
    everything = (await history(town, process))["transitions"]
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = await history(town, process, limit=2, **after)
        found += page["transitions"]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert found == everything


async def test_it_does_not_tell_who_voted_what(town: Driver, drains: Drains) -> None:
    process = await voted(town, drains, anonymous=True)
    assert "voter 1" not in json.dumps(await history(town, process))


async def test_another_drivers_history_is_404(town: Driver, other_driver: Driver, drains: Drains) -> None:
    process = await voted(town, drains, rounds=1)
    await other_driver.put("elsewhere")
    answer = await other_driver.get(f"process/ballot.vote/{process['id']}/history", slug="elsewhere")
    assert answer.status_code == 404


async def test_it_replays_to_the_same_outcome(town: Driver, drains: Drains, gateway: Gateway) -> None:
    process = await voted(town, drains)
    await gateway.db.pool.execute("DELETE FROM signals")  # as retention does
    async with gateway.db.begin() as session:
        again = await replay(session, ProcessSpec(BallotVote), process["id"])
    assert (again.status, again.outcome, again.errors) == ("completed", process["outcome"], {})


async def test_what_a_timer_and_a_crash_did_replays_too(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains, gateway: Gateway
) -> None:
    started = await town.post(VOTE, {"title": "V1"})
    await cast(anonymous, "V1", "ann", "yes")
    await drains.until_idle()
    await cast(anonymous, "V1", "ann", "yes", kind="crash")
    await make_due(gateway)
    await drains.until_idle()
    process = await state_of(town, started)
    assert list(process["errors"]) == ["step"]
    async with gateway.db.begin() as session:
        again = await replay(session, ProcessSpec(probe.Vote), process["id"])
    assert (again.status, again.outcome, again.errors) == ("completed", process["outcome"], process["errors"])


async def test_a_step_that_changes_nothing_is_written_down_and_not_drawn(
    town: Driver, anonymous: httpx.AsyncClient, drains: Drains, gateway: Gateway
) -> None:
    started = await town.post(VOTE, {"title": "V1"})
    for choice in ("yes", "no"):
        await cast(anonymous, "V1", "ann", choice)
        await make_due(gateway)
        await drains.until_idle()
    await gateway.db.pool.execute("UPDATE processes SET render_at = NULL, next_at = now()")
    await drains.until_idle()
    probe.LOG.clear()
    # The first vote once more: a later one of the same voter is counted, so nothing changes.
    await gateway.db.pool.execute(
        "INSERT INTO signals (position, instance_id, process, key, kind, data, at) "
        "SELECT position, instance_id, process, key, kind, data, at FROM signals ORDER BY position LIMIT 1"
    )
    await gateway.db.pool.execute("UPDATE processes SET render_at = NULL, next_at = now()")
    await drains.until_idle()
    await gateway.db.pool.execute("UPDATE processes SET render_at = NULL, next_at = now()")
    await drains.until_idle()
    assert probe.LOG == []
    process = await state_of(town, started)
    steps = (await history(town, process))["transitions"]
    assert [step["signals"] for step in steps] == [0, 1, 1, 1]
    assert [step["outcome"] and step["outcome"]["votes"] for step in steps] == [{}, {"ann": "yes"}, {"ann": "no"}, None]
    await cast(anonymous, "V1", "ann", "yes")
    await make_due(gateway)
    await drains.until_idle()
    assert "render 1 pending" in probe.LOG
