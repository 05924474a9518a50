"""Performing actions over HTTP."""

from __future__ import annotations

import httpx
import pytest

from metagov_sdk import Rejected, Retry, Unauthorized
from tests.conftest import Driver
from tests.support import probe

PROBE = {"name": "probe", "config": {"label": "a"}}
DICE = {"name": "randomness", "config": {"default_low": 3, "default_high": 3}}


@pytest.fixture(autouse=True)
async def _town(driver: Driver) -> None:
    assert (await driver.put(plugins=[PROBE, DICE])).status_code == 201


async def test_an_action_answers_its_result(driver: Driver) -> None:
    answer = await driver.act("randomness.random-int")
    assert (answer.status_code, answer.json()) == (200, {"value": 3})


async def test_the_internal_path_is_the_same_route(driver: Driver) -> None:
    answer = await driver.post("action/randomness.random-int", {"parameters": {"low": 7, "high": 7}})
    assert (answer.status_code, answer.json()) == (200, {"value": 7})


async def test_state_is_kept_between_calls(driver: Driver) -> None:
    await driver.act("probe.count", {"by": 2})
    await driver.act("probe.count", {"by": 3})
    assert (await driver.act("probe.read")).json() == {"count": 5}


async def test_what_an_action_emits_is_an_event(driver: Driver) -> None:
    assert (await driver.act("probe.echo", {"text": "hello"})).status_code == 200
    events = (await driver.get("events", type="poked")).json()["events"]
    assert [(event["data"], event["source"], event["community"]) for event in events] == [
        ({"text": "hello"}, "probe", "town")
    ]
    assert events[0]["initiator"] == {
        "user_id": "u1",
        "provider": "probe",
        "is_metagov_bot": False,
    }


async def test_nothing_is_emitted_by_an_action_that_fails(driver: Driver) -> None:
    probe.BEHAVIOUR["action"] = Rejected("the platform says no")
    answer = await driver.act("probe.count")
    assert answer.status_code == 502
    assert "the platform says no" in answer.json()["detail"]
    probe.BEHAVIOUR.clear()
    assert (await driver.act("probe.read")).json() == {"count": 0}


async def test_wrong_parameters_are_named(driver: Driver) -> None:
    answer = await driver.act("probe.echo", {"text": 5, "extra": 1})
    assert answer.status_code == 422
    assert {error["pointer"] for error in answer.json()["errors"]} == {"/parameters/text", "/parameters/extra"}


@pytest.mark.parametrize(
    ("error", "status", "header"),
    [
        (Rejected("no"), 502, None),
        (Retry("later", after=7), 503, "7"),
        (ZeroDivisionError("secret detail"), 502, None),
    ],
)
async def test_a_failing_plugin_is_a_documented_answer(
    driver: Driver, error: Exception, status: int, header: str | None
) -> None:
    probe.BEHAVIOUR["action"] = error
    answer = await driver.act("probe.count")
    assert answer.status_code == status
    assert answer.headers.get("retry-after") == header
    assert "secret detail" not in answer.text


async def test_refused_credentials_are_shown_on_the_instance(driver: Driver) -> None:
    probe.BEHAVIOUR["action"] = Unauthorized("the token was revoked")
    answer = await driver.act("probe.count")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:metagov:needs_auth")
    probe.BEHAVIOUR.clear()
    assert (await driver.act("probe.count")).status_code == 409
    town = (await driver.get("community/town")).json()
    assert {plugin["name"]: plugin["status"] for plugin in town["plugins"]} == {
        "probe": "needs_auth",
        "randomness": "enabled",
    }
    events = (await driver.get("events")).json()["events"]
    assert [event["event_type"] for event in events] == ["instance.needs_auth"]


async def test_unknown_action_plugin_and_community(driver: Driver) -> None:
    assert (await driver.act("probe.nothing")).status_code == 404
    assert (await driver.act("nothing.count")).status_code == 404
    assert (await driver.act("github.method")).status_code == 404
    assert (await driver.act("probe.count", slug="elsewhere")).status_code == 400


async def test_a_plugin_that_is_not_enabled(driver: Driver) -> None:
    await driver.put("village", plugins=[])
    assert (await driver.act("probe.count", slug="village")).status_code == 404


async def test_public_actions_need_no_key_others_do(anonymous: httpx.AsyncClient, driver: Driver) -> None:
    headers = {"X-Metagov-Community": "town"}
    assert (await anonymous.post("/api/action/probe.read", json={}, headers=headers)).json() == {"count": 0}
    assert (await anonymous.post("/api/action/probe.count", json={}, headers=headers)).status_code == 401


async def test_public_actions_are_rate_limited(anonymous: httpx.AsyncClient, driver: Driver) -> None:
    headers = {"X-Metagov-Community": "town"}
    answers = [await anonymous.post("/api/action/probe.read", json={}, headers=headers) for _ in range(80)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert refused[0].headers["retry-after"].isdigit()


async def test_several_instances_have_to_be_told_apart(driver: Driver) -> None:
    secret = {"webhook_secret": "s"}
    await driver.put(
        plugins=[
            {"name": "probe", "config": {"label": "a", "team": "T1", **secret}},
            {"name": "probe", "config": {"label": "b", "team": "T2", **secret}},
        ]
    )
    answer = await driver.act("probe.count")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:metagov:ambiguous-instance")
    named = await driver.post("action/probe.count", {"parameters": {}, "community_platform_id": "T2"})
    assert named.status_code == 200
    assert (await driver.post("action/probe.count", {"community_platform_id": "T3"})).status_code == 404
