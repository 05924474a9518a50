"""The randomness plugin: ranges, the lucky number, and votes decided by lot."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from metagov_sdk import Completed, Rejected
from metagov_sdk.testing import NOW, bind, close, perform, start_process
from plugins.randomness import manifest
from plugins.randomness.models import EXACT, VoteState
from plugins.randomness.processes import DelayedStochasticVote

CONFIG = {"default_low": 1, "default_high": 6}


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"default_low": 7, "default_high": 6}, "default_high"),
        ({"default_low": 1}, "default_high"),
        ({"default_high": 1}, "default_low"),
        ({"default_low": "many", "default_high": 6}, "default_low"),
        ({"default_low": 1, "default_high": EXACT + 1}, "default_high"),
        ({**CONFIG, "sides": 6}, "sides"),
    ],
)
def test_a_config_that_does_not_fit_names_its_field(config: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as raised:
        bind(manifest, config=config)
    assert [error["loc"] for error in raised.value.errors()] == [(field,)]


async def test_both_ends_of_the_range_come_up() -> None:
    drawn = {
        (await perform(manifest, "random-int", {"low": 3, "high": 4}, config=CONFIG)).result["value"]
        for _ in range(200)
    }
    assert drawn == {3, 4}


async def test_the_config_gives_the_range_that_the_call_leaves_out() -> None:
    values = [(await perform(manifest, "random-int", config=CONFIG)).result["value"] for _ in range(100)]
    assert all(1 <= value <= 6 for value in values)
    assert len(set(values)) > 1
    assert (await perform(manifest, "random-int", {"low": 6}, config=CONFIG)).result == {"value": 6}
    assert (await perform(manifest, "random-int", {"high": 1}, config=CONFIG)).result == {"value": 1}


async def test_a_range_upside_down_is_a_fault_of_the_parameters() -> None:
    with pytest.raises(ValidationError) as raised:
        await perform(manifest, "random-int", {"low": 5, "high": 4}, config=CONFIG)
    assert [error["loc"] for error in raised.value.errors()] == [("high",)]


async def test_a_low_above_the_configured_high_is_refused_in_plain_words() -> None:
    with pytest.raises(Rejected, match="low is 9 and high is 6"):
        await perform(manifest, "random-int", {"low": 9}, config=CONFIG)


async def test_the_lucky_number_is_answered_and_remembered() -> None:
    ran = await perform(manifest, "set-lucky-number", {"lucky_number": 7}, config=CONFIG)
    assert ran.result == {"lucky_number": 7}
    assert ran.state.model_dump() == {"lucky_number": 7}


async def test_a_vote_tells_its_winner_when_the_delay_is_over() -> None:
    vote = await start_process(
        manifest, "delayed-stochastic-vote", {"options": ["red", "blue"], "delay": 1.5}, config=CONFIG
    )
    assert (vote.status, vote.outcome, vote.closing_at) == ("pending", None, NOW + timedelta(seconds=90))
    vote.advance(NOW + timedelta(seconds=89))
    assert (vote.status, vote.outcome) == ("pending", None)
    vote.advance(NOW + timedelta(seconds=90))
    assert (vote.status, vote.outcome) in [("completed", {"winner": "red"}), ("completed", {"winner": "blue"})]


async def test_a_driver_that_closes_early_gets_the_winner() -> None:
    vote = await start_process(manifest, "delayed-stochastic-vote", {"options": ["only"], "delay": 60}, config=CONFIG)
    vote.close()
    assert (vote.status, vote.outcome, vote.errors) == ("completed", {"winner": "only"}, {})


async def test_without_a_delay_the_winner_is_known_at_once() -> None:
    vote = await start_process(manifest, "delayed-stochastic-vote", {"options": ["only"], "delay": 0}, config=CONFIG)
    assert (vote.status, vote.outcome) == ("completed", {"winner": "only"})


async def test_every_option_can_win() -> None:
    winners = set()
    for _ in range(200):
        vote = await start_process(
            manifest, "delayed-stochastic-vote", {"options": ["a", "b"], "delay": 0}, config=CONFIG
        )
        winners.add((vote.outcome or {})["winner"])
    assert winners == {"a", "b"}


@pytest.mark.parametrize("why", ["driver", "deadline", "disabled", "deleted"])
def test_closing_reads_the_lot_that_was_drawn_at_the_start(why: Any) -> None:
    step = close(DelayedStochasticVote, VoteState(options=("a", "b", "c"), drawn=2), why)
    assert isinstance(step, Completed)
    assert step.outcome.winner == "c"


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"options": [], "delay": 1}, "options"),
        ({"options": "red", "delay": 1}, "options"),
        ({"options": [""], "delay": 1}, "options"),
        ({"options": ["red"]}, "delay"),
        ({"options": ["red"], "delay": -0.1}, "delay"),
        ({"options": ["red"], "delay": 5_259_601}, "delay"),
        ({"options": ["red"], "delay": float("nan")}, "delay"),
        ({"options": ["red"], "delay": "soon"}, "delay"),
    ],
)
async def test_a_vote_that_does_not_fit_names_its_field(params: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as raised:
        await start_process(manifest, "delayed-stochastic-vote", params, config=CONFIG)
    assert raised.value.errors()[0]["loc"][0] == field


async def test_a_lost_start_may_be_repeated() -> None:
    plugin = bind(manifest, config=CONFIG)
    process = DelayedStochasticVote(plugin, id="prc_1", now=NOW, idempotency_key="key")
    params = manifest.processes["delayed-stochastic-vote"].params.model_validate({"options": ["a"], "delay": 1})
    assert await process.find_started(params) is None
