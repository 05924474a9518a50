"""A vote held in the gateway from its start to its outcome, as a driver sees it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.worker import Drains
from tests.conftest import Driver

VOTE = "process/ballot.vote"
ASKED = {"title": "Which tree?", "options": ["apple", "pear", "plum"]}
TOWN = {"X-Metagov-Community": "town"}


@pytest.fixture
async def town(driver: Driver) -> Driver:
    put = await driver.put(plugins=[{"name": "ballot", "config": {}}])
    assert put.status_code == 201
    return driver


async def cast(driver: Driver, vote: httpx.Response, voter: str, choice: Any) -> httpx.Response:
    return await driver.act("ballot.cast", {"process_id": vote.json()["id"], "voter": voter, "choice": choice})


async def shown(driver: Driver, vote: httpx.Response) -> dict[str, Any]:
    answer = await driver.http.get(vote.headers["location"], headers=TOWN)
    assert answer.status_code == 200
    process: dict[str, Any] = answer.json()
    return process


async def counts(driver: Driver, vote: httpx.Response) -> dict[str, int]:
    outcome = (await shown(driver, vote))["outcome"]
    return {tally["option"]: tally["count"] for tally in outcome["options"]}


async def test_a_vote_from_start_to_outcome(town: Driver, drains: Drains) -> None:
    vote = await town.post(VOTE, {**ASKED, "kind": "ranked", "threshold": 0.5, "weights": {"cyd": 0.5}})
    assert vote.status_code == 202
    assert await counts(town, vote) == {"apple": 0, "pear": 0, "plum": 0}
    first = await cast(town, vote, "ada", ["apple", "pear"])
    again = await cast(town, vote, "ada", ["pear", "apple"])
    assert first.status_code == again.status_code == 200
    assert again.json()["position"] > first.json()["position"]
    assert first.json() == {"accepted": True, "position": first.json()["position"]}
    await cast(town, vote, "bob", ["pear"])
    await cast(town, vote, "cyd", ["plum"])
    await cast(town, vote, "dan", None)
    await drains.until_idle()
    assert await counts(town, vote) == {"apple": 0, "pear": 2, "plum": 1}, "running tallies"
    closed = await town.http.delete(vote.headers["location"], headers=TOWN)
    assert closed.status_code == 200
    assert closed.json()["status"] == "completed"
    assert closed.json()["outcome"] == {
        "kind": "ranked",
        "options": [
            {"option": "apple", "count": 0, "weight": 0, "voters": []},
            {"option": "pear", "count": 2, "weight": 2, "voters": ["ada", "bob"]},
            {"option": "plum", "count": 1, "weight": 0.5, "voters": ["cyd"]},
        ],
        "winners": ["pear"],
        "tie": False,
        "total_voters": 4,
        "abstained": 1,
        "quorum_met": True,
        "threshold_met": True,
        "unread": 0,
        "rule": "Schulze, winning votes; each voter's last vote that came before closing",
    }


async def test_what_was_accepted_is_counted_at_closing(town: Driver) -> None:
    vote = await town.post(VOTE, ASKED)
    answers = await asyncio.gather(*(cast(town, vote, f"voter {number}", "plum") for number in range(30)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["position"] for answer in answers}) == 30
    closed = await town.http.delete(vote.headers["location"], headers=TOWN)
    assert closed.json()["outcome"]["total_voters"] == 30


async def test_the_deadline_closes_it_and_late_votes_are_refused(town: Driver, drains: Drains) -> None:
    closing_at = datetime.now(UTC) + timedelta(seconds=1)
    vote = await town.post(VOTE, {**ASKED, "closing_at": closing_at.isoformat()})
    assert (await cast(town, vote, "ada", "plum")).status_code == 200
    await asyncio.sleep(max(0, (closing_at - datetime.now(UTC)).total_seconds()) + 0.1)
    late = await cast(town, vote, "bob", "plum")
    assert (late.status_code, late.headers["content-type"]) == (409, "application/problem+json")
    for _ in range(50):
        await drains.until_idle()
        process = await shown(town, vote)
        if process["status"] == "completed":
            break
        await asyncio.sleep(0.1)
    assert process["status"] == "completed"
    assert process["outcome"]["winners"] == ["plum"]
    assert process["outcome"]["total_voters"] == 1


async def test_who_may_not_vote_is_refused_and_not_counted(town: Driver) -> None:
    vote = await town.post(VOTE, {**ASKED, "eligible_voters": ["ada", "bob"], "ineligible_voters": ["bob"]})
    assert (await cast(town, vote, "ada", "plum")).status_code == 200
    for voter in ("bob", "eve", "Ada"):
        refused = await cast(town, vote, voter, "plum")
        assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json")
    closed = await town.http.delete(vote.headers["location"], headers=TOWN)
    assert closed.json()["outcome"]["total_voters"] == 1
    assert (await cast(town, vote, "ada", "plum")).status_code == 409


@pytest.mark.parametrize(
    ("choice", "pointer"),
    [
        ("lemon", "/parameters/choice"),
        (["plum", "plum"], "/parameters/choice/1"),
        ([], "/parameters/choice"),
        (["plum", "pear", "apple"], "/parameters/choice"),
        ({"plum": 3}, "/parameters/choice"),
    ],
)
async def test_a_choice_that_does_not_fit_is_refused_where_it_stands(town: Driver, choice: Any, pointer: str) -> None:
    vote = await town.post(VOTE, {**ASKED, "kind": "multiple", "max_choices": 2})
    refused = await cast(town, vote, "ada", choice)
    assert refused.status_code == 422
    assert [error["pointer"] for error in refused.json()["errors"]] == [pointer]
    assert (await shown(town, vote))["outcome"]["total_voters"] == 0


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"closing_at": "2020-01-01T00:00:00Z"}, "/closing_at"),
        ({"closing_at": "9999-12-31T23:59:59-14:00"}, "/closing_at"),
        ({"closing_at": "2030-01-01T00:00:00"}, "/closing_at"),
        ({"options": [f"option {number}" for number in range(10_000)]}, "/options"),
        ({"options": ["apple", "apple"]}, "/options"),
        ({"weights": {"ada": -1}}, "/weights/ada"),
        ({"title": ""}, "/title"),
    ],
)
async def test_parameters_that_do_not_fit_leave_nothing_behind(
    town: Driver, change: dict[str, Any], pointer: str
) -> None:
    refused = await town.post(VOTE, {**ASKED, **change})
    assert refused.status_code == 422
    assert [error["pointer"] for error in refused.json()["errors"]] == [pointer]
    assert (await town.get("process")).json()["processes"] == []


async def test_an_anonymous_vote_names_no_voter_anywhere(town: Driver, drains: Drains) -> None:
    vote = await town.post(VOTE, {**ASKED, "anonymous": True})
    await cast(town, vote, "ada-lovelace", "plum")
    await drains.until_idle()
    closed = await town.http.delete(vote.headers["location"], headers=TOWN)
    assert closed.json()["outcome"]["options"][2] == {"option": "plum", "count": 1, "weight": 1}
    history = await town.http.get(f"{vote.headers['location']}/history", headers=TOWN)
    events = await town.get("events")
    assert history.status_code == 200
    assert "ada-lovelace" not in closed.text + history.text + events.text


async def test_another_communitys_vote_is_not_found(town: Driver) -> None:
    vote = await town.post(VOTE, ASKED)
    await town.put("village", plugins=[{"name": "ballot", "config": {}}])
    parameters = {"process_id": vote.json()["id"], "voter": "ada", "choice": "plum"}
    assert (await town.act("ballot.cast", parameters, slug="village")).status_code == 404
    assert (await cast(town, vote, "ada", "plum")).status_code == 200
    unknown = {**parameters, "process_id": "prc_unknown"}
    assert (await town.act("ballot.cast", unknown)).status_code == 404
