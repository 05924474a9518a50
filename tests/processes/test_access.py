"""What actions can do with processes: what is accepted is stored by then, and counted."""

from __future__ import annotations

import asyncio

from app.gateway import Gateway
from app.runtime import instances
from app.worker import Drains
from metagov_sdk.ballot import VOTE, vote_data
from plugins.ballot.processes import BallotVote
from tests.conftest import Driver
from tests.processes.conftest import HEADER, counts, open_ballot, state_of, vote
from tests.processes.conftest import VOTE as PROBE_VOTE


async def test_votes_at_once_are_each_stored_and_the_last_counts(town: Driver, drains: Drains) -> None:
    started = await open_ballot(town)
    process = started.json()["id"]
    answers = await asyncio.gather(*(vote(town, process, f"v{n % 20}", "yes" if n % 2 else "no") for n in range(100)))
    assert {answer.status_code for answer in answers} == {200}
    last: dict[str, tuple[int, str]] = {}
    for number, answer in enumerate(answers):
        position, choice = answer.json()["position"], "yes" if number % 2 else "no"
        last[f"v{number % 20}"] = max(last.get(f"v{number % 20}", (0, "")), (position, choice))
    assert len({answer.json()["position"] for answer in answers}) == 100
    await drains.until_idle()
    chosen = [choice for _, choice in last.values()]
    outcome = (await state_of(town, started))["outcome"]
    assert counts(outcome) == {"yes": chosen.count("yes"), "no": chosen.count("no")}


async def test_a_voter_changes_their_vote(town: Driver, drains: Drains) -> None:
    started = await open_ballot(town)
    for choice in ("yes", "no", "yes", "no"):
        assert (await vote(town, started.json()["id"], "ann", choice)).json()["accepted"] is True
        await drains.until_idle()
        assert counts((await state_of(town, started))["outcome"]) == {"yes": choice == "yes", "no": choice == "no"}


async def test_nobody_votes_in_what_is_not_there_not_theirs_or_over(
    town: Driver, other_driver: Driver, drains: Drains
) -> None:
    started = await open_ballot(town, eligible_voters=["ann"])
    process = started.json()["id"]
    assert (await vote(town, "prc_unknown", "ann", "yes")).status_code == 404
    assert (await vote(town, process, "bob", "yes")).status_code == 403
    assert (await vote(town, process, "ann", "perhaps")).status_code == 422
    other = (await town.post(PROBE_VOTE, {"title": "V1"})).json()["id"]
    assert (await vote(town, other, "ann", "yes")).status_code == 404, "a process of another plugin"
    await other_driver.put("elsewhere", plugins=[{"name": "ballot", "config": {}}])
    parameters = {"process_id": process, "voter": "ann", "choice": "yes"}
    assert (await other_driver.act("ballot.cast", parameters, "elsewhere")).status_code == 404
    assert (await vote(town, process, "ann", "yes")).status_code == 200
    closed = await town.http.delete(started.headers["location"], headers=HEADER)
    assert counts(closed.json()["outcome"]) == {"yes": 1, "no": 0}
    assert (await vote(town, process, "ann", "no")).status_code == 409


async def test_what_is_sent_before_the_start_is_taken_after_it(town: Driver, drains: Drains, gateway: Gateway) -> None:
    body = {"title": "t", "options": ["yes", "no"]}
    started = await town.post("process/ballot.vote", body, Prefer="respond-async")
    found = await instances.by_id(
        gateway.db.pool, gateway.vault, await gateway.db.pool.fetchval("SELECT instance_id FROM processes")
    )
    assert found is not None
    processes = gateway.performer.mailroom.of(found[0])
    assert (await processes.get(BallotVote, started.json()["id"])).state is None
    await processes.send(BallotVote, started.json()["id"], VOTE, vote_data("ann", "yes"))
    await drains.until_idle()
    assert counts((await state_of(town, started))["outcome"]) == {"yes": 1, "no": 0}
    view = await processes.get(BallotVote, started.json()["id"])
    assert view.status == "pending"
    assert view.state is not None
    assert list(view.state.votes) == ["ann"]
