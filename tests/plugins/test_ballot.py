"""The ballot plugin: votes that need no platform."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from metagov_sdk.errors import Conflict, Forbidden, Invalid, NotFound
from metagov_sdk.testing import NOW, ProcessesInMemory, Ran, RunningProcess, perform, start_process
from plugins.ballot import manifest


async def opened(**params: Any) -> RunningProcess:
    return await start_process(manifest, "vote", {"title": "Lunch?", "options": ["soup", "salad"], **params})


async def cast(vote: RunningProcess, voter: Any, choice: Any, process_id: Any = "prc_test") -> Ran:
    params = {"process_id": process_id, "voter": voter, "choice": choice}
    return await perform(manifest, "cast", params, processes=ProcessesInMemory(vote))


async def test_a_vote_is_cast_changed_and_counted() -> None:
    vote = await opened(kind="multiple")
    first = await cast(vote, "ada", ["soup", "salad"])
    second = await cast(vote, "ada", "salad")
    assert first.result == {"accepted": True, "position": first.result["position"]}
    assert second.result["position"] > first.result["position"]
    vote.close()
    assert vote.outcome is not None
    assert vote.outcome["winners"] == ["salad"]
    assert vote.outcome["options"][0]["voters"] == []


async def test_a_vote_without_a_choice_abstains() -> None:
    vote = await opened()
    await perform(manifest, "cast", {"process_id": vote.id, "voter": "ada"}, processes=ProcessesInMemory(vote))
    assert vote.outcome is not None
    assert vote.outcome["abstained"] == 1


@pytest.mark.parametrize(("voter", "error"), [("eve", Forbidden), ("bob", Forbidden), ("ada", None)])
async def test_only_those_who_may_can_vote(voter: str, error: type[Exception] | None) -> None:
    vote = await opened(eligible_voters=["ada", "bob"], ineligible_voters=["bob"])
    if error is None:
        await cast(vote, voter, "soup")
    else:
        with pytest.raises(error):
            await cast(vote, voter, "soup")
    assert vote.outcome is not None
    assert vote.outcome["total_voters"] == (error is None)


async def test_a_choice_that_is_not_on_the_ballot_is_refused_where_it_stands() -> None:
    vote = await opened(kind="ranked")
    with pytest.raises(Invalid) as raised:
        await cast(vote, "ada", ["soup", "pizza"])
    assert raised.value.pointer == "/choice/1"
    assert not vote.state.votes


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"process_id": "p", "voter": "", "choice": None}, "voter"),
        ({"process_id": "p", "voter": "a\0", "choice": None}, "voter"),
        ({"process_id": "p", "voter": "\ud800", "choice": None}, "voter"),
        ({"process_id": "p", "voter": 7, "choice": None}, "voter"),
        ({"process_id": "", "voter": "ada", "choice": None}, "process_id"),
        ({"process_id": "p\0", "voter": "ada", "choice": None}, "process_id"),
        ({"voter": "ada", "choice": None}, "process_id"),
        ({"process_id": "p", "voter": "ada", "choose": None}, "choose"),
    ],
)
async def test_bad_parameters_name_their_field(params: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as raised:
        await perform(manifest, "cast", params)
    assert [error["loc"] for error in raised.value.errors()] == [(field,)]


async def test_a_vote_that_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFound):
        await cast(await opened(), "ada", "soup", process_id="prc_other")


async def test_a_closed_vote_takes_no_more() -> None:
    closed = await opened()
    closed.close()
    with pytest.raises(Conflict):
        await cast(closed, "ada", "soup")
    due = await opened(closing_at=(NOW + timedelta(minutes=1)).isoformat())
    due.now = NOW + timedelta(minutes=1)
    with pytest.raises(Conflict):
        await cast(due, "ada", "soup")
    assert due.outcome is not None
    assert due.outcome["total_voters"] == 0


async def test_a_start_that_waited_beyond_its_time_fails_in_plain_words() -> None:
    vote = await opened(closing_at=(NOW + timedelta(minutes=1)).isoformat())
    vote.now = NOW + timedelta(minutes=2)
    with pytest.raises(Invalid, match="closed before it opened"):
        await vote.start()
