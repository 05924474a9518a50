"""Idempotency-Key: one effect per key, and the first answer again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.accounts.idempotency import forget_old_keys
from app.gateway import Gateway
from metagov_sdk import Rejected, Retry
from tests.conftest import Driver
from tests.support.probe import BEHAVIOUR
from tests.support.problems import problem

PROBE = [{"name": "probe", "config": {"label": "a"}}]


@pytest.fixture
async def town(driver: Driver) -> Driver:
    await driver.put(plugins=PROBE)
    return driver


async def count(driver: Driver, slug: str = "town") -> int:
    return int((await driver.act("probe.read", slug=slug)).json()["count"])


async def add(driver: Driver, key: str, by: int = 1) -> httpx.Response:
    return await driver.post("action/probe.count", {"parameters": {"by": by}}, Idempotency_Key=key)


async def test_the_same_answer_again_and_one_effect(town: Driver) -> None:
    first = await add(town, "k")
    await town.act("probe.count")
    again = await add(town, "k")
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert await count(town) == 2


async def test_status_and_location_are_repeated(town: Driver) -> None:
    first = await town.post("process/probe.vote", {"title": "q"}, Idempotency_Key="k")
    again = await town.post("process/probe.vote", {"title": "q"}, Idempotency_Key="k")
    assert first.status_code == again.status_code == 202
    assert first.headers["location"] == again.headers["location"]
    assert first.json() == again.json()
    assert len((await town.get("process")).json()["processes"]) == 1
    made = await town.http.post(
        "/api/internal/community", json={"readable_name": "x"}, headers={"Idempotency-Key": "c"}
    )
    same = await town.http.post(
        "/api/internal/community", json={"readable_name": "x"}, headers={"Idempotency-Key": "c"}
    )
    assert (same.status_code, same.json()) == (201, made.json())
    assert len((await town.http.get("/api/internal/community")).json()["communities"]) == 2


async def test_another_request_under_the_same_key_is_422(town: Driver) -> None:
    await town.put("city", plugins=PROBE)
    await add(town, "k")
    problem(await add(town, "k", by=2), 422)
    problem(await town.post("action/probe.count-exclusively", {"parameters": {"by": 1}}, Idempotency_Key="k"), 422)
    elsewhere = await town.post("action/probe.count", {"parameters": {"by": 1}}, slug="city", Idempotency_Key="k")
    problem(elsewhere, 422)
    assert [await count(town), await count(town, "city")] == [1, 0]


async def test_at_once_there_is_one_effect(town: Driver) -> None:
    BEHAVIOUR["action"] = 0.05
    answers = await asyncio.gather(*(add(town, "k") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200, 409}
    for answer in answers:
        if answer.status_code == 409:
            problem(answer, 409)
            assert answer.headers["retry-after"] == "1"
    BEHAVIOUR.clear()
    assert (await add(town, "k")).status_code == 200
    assert await count(town) == 1


@pytest.mark.parametrize("failure", [Rejected("no"), Retry("busy"), ZeroDivisionError()])
async def test_a_failure_of_the_platform_is_not_the_last_word(town: Driver, failure: Exception) -> None:
    BEHAVIOUR["action"] = failure
    assert (await add(town, "k")).status_code in (502, 503)
    BEHAVIOUR.clear()
    assert (await add(town, "k")).status_code == 200
    assert await count(town) == 1


async def test_a_refusal_is_repeated(town: Driver) -> None:
    first = await town.post("action/probe.count", {"parameters": {"by": "x"}}, Idempotency_Key="k")
    again = await town.post("action/probe.count", {"parameters": {"by": "x"}}, Idempotency_Key="k")
    assert problem(first, 422) == problem(again, 422)


async def test_keys_of_two_drivers_have_nothing_to_do_with_each_other(town: Driver, other_driver: Driver) -> None:
    await other_driver.put("city", plugins=PROBE)
    first = await add(town, "k")
    other = await other_driver.post("action/probe.count", {"parameters": {"by": 5}}, slug="city", Idempotency_Key="k")
    assert (first.status_code, other.status_code) == (200, 200)
    assert [await count(town), await count(other_driver, "city")] == [1, 5]
    starts = [
        await town.post("process/probe.vote", {}, Idempotency_Key="start"),
        await other_driver.post("process/probe.vote", {}, slug="city", Idempotency_Key="start"),
    ]
    assert starts[0].json()["id"] != starts[1].json()["id"]


async def test_a_secret_shown_once_is_sealed_in_the_database(driver: Driver, gateway: Gateway) -> None:
    asked: Any = {"json": {"url": "http://127.0.0.1:9/x"}, "headers": {"Idempotency-Key": "k"}}
    first = await driver.http.post("/api/internal/driver/endpoints", **asked)
    assert first.status_code == 201
    secret = first.json()["secret"]
    row = await gateway.db.pool.fetchrow("SELECT * FROM idempotency_keys")
    assert row is not None
    assert secret not in repr(row)
    assert secret in gateway.vault.open(row["answer"])[2]
    again = await driver.http.post("/api/internal/driver/endpoints", **asked)
    assert (again.status_code, again.json()) == (201, first.json())
    assert len((await driver.http.get("/api/internal/driver/endpoints")).json()["endpoints"]) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "\u00a0"])
async def test_unusable_keys(town: Driver, key: str) -> None:
    headers: Any = {"X-Metagov-Community": "town", "Idempotency-Key": key.encode("latin-1")}
    answer = await town.http.post("/api/action/probe.count", json={}, headers=headers)
    problem(answer, 422)
    assert await count(town) == 0


async def test_a_key_is_worth_nothing_without_its_driver(town: Driver) -> None:
    answer = await town.http.post(
        "/api/action/probe.count",
        json={},
        headers={"X-Metagov-Community": "town", "Idempotency-Key": "k", "Authorization": "Bearer wrong"},
    )
    problem(answer, 401)
    assert (await add(town, "k")).status_code == 200


async def test_a_request_that_died_frees_its_key(town: Driver, gateway: Gateway) -> None:
    await add(town, "k")
    await gateway.db.pool.execute("UPDATE idempotency_keys SET answer = NULL")
    problem(await add(town, "k"), 409)
    await gateway.db.pool.execute("UPDATE idempotency_keys SET locked_until = now() - interval '1 second'")
    problem(await add(town, "k", by=2), 422)
    assert (await add(town, "k")).status_code == 200


async def test_after_a_day_a_key_is_fresh(town: Driver, gateway: Gateway) -> None:
    await add(town, "k")
    await add(town, "young")
    await gateway.db.pool.execute(
        "UPDATE idempotency_keys SET created_at = now() - $1::interval WHERE key = 'k'", timedelta(hours=25)
    )
    assert (await add(town, "k", by=2)).status_code == 200
    assert await count(town) == 4
    await gateway.db.pool.execute(
        "UPDATE idempotency_keys SET created_at = now() - $1::interval WHERE key = 'k'", timedelta(hours=25)
    )
    await forget_old_keys(gateway.db)
    assert [row["key"] for row in await gateway.db.pool.fetch("SELECT key FROM idempotency_keys")] == ["young"]
