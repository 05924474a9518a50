"""Many requests at once on one community: nothing lost, one consistent result, only documented answers."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import httpx
import pytest

from app.core.errors import Conflict
from app.gateway import Gateway
from app.runtime.turns import Turns
from tests.conftest import Driver
from tests.support.problems import problem
from tests.support.servers import Server

TOWN = {"X-Metagov-Community": "town"}
CALLS = 200


@pytest.fixture
async def town(driver: Driver) -> Driver:
    await driver.put(plugins=[{"name": "probe", "config": {"label": "a"}}])
    return driver


async def count(driver: Driver) -> int:
    return int((await driver.act("probe.read")).json()["count"])


async def test_no_change_of_state_is_lost(town: Driver) -> None:
    answers = await asyncio.gather(*(town.act("probe.count", {"by": number}) for number in range(CALLS)))
    assert Counter(answer.status_code for answer in answers) == {200: CALLS}
    assert await count(town) == sum(range(CALLS))


async def test_exclusive_actions_go_one_at_a_time(town: Driver) -> None:
    """Each reads the counter, waits, and writes it raised by one: right only if nobody is in between."""
    answers = await asyncio.gather(*(town.act("probe.count-exclusively") for _ in range(CALLS)))
    for answer in answers:
        if answer.status_code != 200:
            problem(answer, 409, "busy")
    done = sum(answer.status_code == 200 for answer in answers)
    assert await count(town) == done
    assert done == CALLS, f"{CALLS - done} waited in vain"
    assert sorted(answer.json()["count"] for answer in answers) == list(range(CALLS)), "no two saw the same"


async def test_turns_are_kept_between_processes_too(town: Driver, gateway: Gateway) -> None:
    """Each `Turns` is one process's; what is between them is the database."""
    instance = (await town.get("plugin")).json()["plugins"][0]["id"]
    inside = 0
    most = 0

    async def work(turns: Turns) -> None:
        nonlocal inside, most
        async with turns.take(gateway.db, instance, lease=30, patience=20):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.002)
            inside -= 1

    processes = [Turns() for _ in range(3)]
    await asyncio.gather(*(work(turns) for turns in processes * 10))
    assert most == 1
    async with processes[0].take(gateway.db, instance, lease=30, patience=1):
        for turns in processes[:2]:
            with pytest.raises(Conflict):
                await work_once(turns, gateway, instance)
    await work_once(processes[1], gateway, instance)


async def work_once(turns: Turns, gateway: Gateway, instance: str) -> None:
    async with turns.take(gateway.db, instance, lease=30, patience=0.05):
        pass


async def test_a_turn_ends_with_its_lease(town: Driver, gateway: Gateway) -> None:
    """A process that died in its turn holds up nobody for longer than the lease."""
    instance = (await town.get("plugin")).json()["plugins"][0]["id"]
    async with (
        Turns().take(gateway.db, instance, lease=0.05, patience=1) as dead,
        Turns().take(gateway.db, instance, lease=30, patience=5) as alive,
    ):
        assert alive == dead + 1
    with pytest.raises(Conflict):
        async with Turns().take(gateway.db, instance, lease=30, patience=1):
            await work_once(Turns(), gateway, instance)


async def test_changes_and_exclusive_actions_together(town: Driver, gateway: Gateway) -> None:
    """An exclusive action may overwrite a plain change that came in between; it may not be lost itself or crash."""
    names = ["probe.count", "probe.count-exclusively"] * 20
    answers = await asyncio.gather(*(town.act(name) for name in names))
    assert {answer.status_code for answer in answers} == {200}
    assert 20 <= await count(town) <= 40
    lease = await gateway.db.pool.fetchval("SELECT lease_until FROM instance_states")
    assert lease is None, "the turn was given back"


def wanted(number: int) -> list[dict[str, Any]]:
    """One of eight plugin sets, its configs marked with the number."""
    probe = {"name": "probe", "config": {"label": f"n{number}", "token": f"t{number}", "webhook_secret": "s"}}
    dice = {"name": "randomness", "config": {"default_low": number, "default_high": number}}
    team = {"name": "probe", "config": {"label": f"n{number}", "team": "T1", "webhook_secret": "s"}}
    named_probe = {**probe, "community_platform_id": "T0"}
    return [item for bit, item in enumerate((named_probe, dice, team)) if number >> bit & 1]


async def test_puts_at_once_leave_one_of_the_wanted_sets(driver: Driver, gateway: Gateway) -> None:
    answers = await asyncio.gather(*(driver.put(plugins=wanted(number)) for number in range(CALLS)))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) <= {200, 201, 409}
    assert statuses[201] == 1
    assert statuses[200] > CALLS // 2
    for answer in answers:
        if answer.status_code == 409:
            problem(answer, 409)
    plugins = (await driver.http.get("/api/internal/community/town")).json()["plugins"]
    enabled = [plugin for plugin in plugins if plugin["status"] == "enabled"]
    numbers = {int(plugin["config"].get("label", "n")[1:] or plugin["config"].get("default_low")) for plugin in enabled}
    shown = {(plugin["name"], plugin["community_platform_id"]) for plugin in enabled}
    if enabled:
        (number,) = numbers
        assert len(shown) == len(wanted(number)), "the last word is one PUT's, whole"
        for plugin in enabled:
            if plugin["community_platform_id"] == "T0":
                secrets = await gateway.db.pool.fetchval("SELECT secrets FROM instances WHERE id = $1", plugin["id"])
                assert gateway.vault.open(secrets)["token"] == f"t{number}", "config and secrets are of one PUT"
    rows = await gateway.db.pool.fetch(
        "SELECT plugin, community_platform_id, count(*) FROM instances WHERE deleted_at IS NULL GROUP BY 1, 2"
    )
    assert all(row[2] == 1 for row in rows), "no identity twice"


async def test_puts_actions_and_deletes_together(driver: Driver, gateway: Gateway) -> None:
    dice = random.Random(7)

    async def one(number: int) -> httpx.Response:
        kind = dice.choice(["put", "put", "act", "act", "start", "delete", "read", "patch", "remove"])
        if kind == "put":
            return await driver.put(plugins=wanted(number % 8))
        if kind == "act":
            body = {"community_platform_id": dice.choice(["T0", "T1"])}
            return await driver.post("action/probe.count", body)
        if kind == "start":
            return await driver.post("process/probe.vote", {"community_platform_id": "T1"})
        if kind == "delete":
            return await driver.http.delete("/api/internal/community/town")
        listed = (await driver.get("plugin")).json().get("plugins", [])
        if kind == "read" or not listed:
            return await driver.http.get("/api/internal/community/town")
        chosen = dice.choice(listed)
        path = f"/api/internal/plugin/{chosen['name']}/{chosen['id']}"
        if kind == "remove":
            return await driver.http.delete(path, headers=TOWN)
        return await driver.http.patch(path, json={"enabled": bool(number % 2)}, headers=TOWN)

    answers = await asyncio.gather(*(one(number) for number in range(CALLS)))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) <= {200, 201, 202, 204, 400, 404, 409}, statuses
    for answer in answers:
        if answer.is_error:
            problem(answer, answer.status_code)
    assert (await driver.put(plugins=wanted(7))).is_success
    assert len([p for p in (await driver.get("plugin")).json()["plugins"] if p["status"] == "enabled"]) == 3


async def test_one_slug_asked_for_at_once_is_made_once(driver: Driver) -> None:
    answers = await asyncio.gather(
        *(driver.put("new", plugins=[{"name": "probe", "config": {"label": "a"}}]) for _ in range(30))
    )
    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 29}
    assert len({answer.json()["plugins"][0]["id"] for answer in answers}) == 1


async def test_the_same_over_sockets(server: Server) -> None:
    """Real connections, real processes."""
    headers = {"Authorization": f"Bearer {server.api_key}", "X-Metagov-Community": "crowd"}
    limits = httpx.Limits(max_connections=50)
    async with httpx.AsyncClient(
        base_url=server.url, headers=headers, trust_env=False, timeout=30, limits=limits
    ) as http:

        async def put(number: int) -> int:
            plugin = {"name": "randomness", "config": {"default_low": number, "default_high": number}}
            return (await http.put("/api/internal/community/crowd", json={"plugins": [plugin]})).status_code

        async def act(number: int) -> int:
            body = {"parameters": {"lucky_number": number}}
            return (await http.post("/api/action/randomness.set-lucky-number", json=body)).status_code

        assert await put(0) == 201
        statuses = await asyncio.gather(*(put(number) for number in range(100)), *(act(n) for n in range(100)))
        assert Counter(statuses) == {200: 200}
