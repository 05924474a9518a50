"""A vote as a process: what counts, what is shown, and what a platform's vote adds to it."""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest

from metagov_sdk import Completed, Config, Do, Failed, Manifest, Pending, Plugin, Process, Received, Signal, State, Step
from metagov_sdk.ballot import (
    VOTE,
    BallotOutcome,
    BallotParams,
    BallotProcess,
    BallotState,
    vote_data,
)
from metagov_sdk.errors import Invalid, NotFound
from metagov_sdk.models import Model
from metagov_sdk.testing import NOW, ContractError, ProcessesInMemory, RunningProcess, fold, start_process


class Chat(Plugin[Config]):
    """A chat where votes are messages."""

    name = "chat"


class MessageParams(BallotParams):
    """A vote in a channel."""

    channel: str = "general"
    """Where it is posted."""


class MessageState(BallotState):
    message_ts: str


class MessageOutcome(BallotOutcome):
    message_ts: str


class MessageVote(BallotProcess[MessageParams, MessageState, MessageOutcome]):
    """A vote by message."""

    name = "message-vote"
    in_time = "each voter's last click before closing"

    async def start(self, params: MessageParams) -> Step[MessageState, MessageOutcome]:
        return self.opened(
            params, MessageState(rules=params.rules(), message_ts="17.5"), key="17.5", url="https://x.example"
        )

    @classmethod
    def tally(cls, state: MessageState) -> MessageOutcome:
        return super().tally(state).extended(MessageOutcome, message_ts=state.message_ts)


class PlainVote(BallotProcess):
    """A vote with nothing of its own."""

    name = "plain-vote"

    async def start(self, params: BallotParams) -> Step[BallotState, BallotOutcome]:
        return self.opened(params, key=self.id)


manifest = Manifest(Chat, processes=[MessageVote, PlainVote])


async def opened(**params: Any) -> RunningProcess:
    return await start_process(manifest, "plain-vote", {"title": "Lunch?", "options": ["soup", "salad"], **params})


def standing(vote: RunningProcess) -> dict[str, int]:
    assert vote.outcome is not None
    return {tally["option"]: tally["count"] for tally in vote.outcome["options"]}


def received(voter: Any, choice: Any, position: int) -> Received:
    return Received(VOTE, {"voter": voter, "choice": choice}, position, NOW)


async def test_the_outcome_has_the_one_shape_from_the_start_to_the_end() -> None:
    vote = await opened(closing_at=(NOW + timedelta(hours=1)).isoformat())
    empty = {"count": 0, "weight": 0, "voters": []}
    assert vote.outcome == {
        "kind": "single",
        "options": [{"option": "soup", **empty}, {"option": "salad", **empty}],
        "winners": [],
        "tie": False,
        "total_voters": 0,
        "abstained": 0,
        "quorum_met": True,
        "threshold_met": True,
        "unread": 0,
        "rule": "plurality; each voter's last vote that came before closing",
    }
    vote.signal(VOTE, vote_data("bob", "salad"))
    vote.signal(VOTE, vote_data("ada", "salad"))
    vote.signal(VOTE, vote_data("eve", None))
    running = vote.outcome
    assert running["options"][1] == {"option": "salad", "count": 2, "weight": 2, "voters": ["ada", "bob"]}
    assert (running["winners"], running["total_voters"], running["abstained"]) == (["salad"], 3, 1)
    vote.advance(NOW + timedelta(hours=1))
    assert (vote.status, vote.outcome) == ("completed", running)


async def test_an_anonymous_vote_names_no_voter() -> None:
    vote = await opened(anonymous=True)
    vote.signal(VOTE, vote_data("ada", "soup"))
    vote.close()
    assert vote.outcome is not None
    assert vote.outcome["options"][0] == {"option": "soup", "count": 1, "weight": 1}
    assert "ada" not in str(vote.outcome)


async def test_who_votes_again_changes_their_vote_and_null_abstains() -> None:
    vote = await opened()
    for choice, standing_then in (("soup", {"soup": 1, "salad": 0}), ("salad", {"soup": 0, "salad": 1})):
        vote.signal(VOTE, vote_data("ada", choice))
        assert standing(vote) == standing_then
    vote.signal(VOTE, vote_data("ada", None))
    assert vote.outcome is not None
    assert standing(vote) == {"soup": 0, "salad": 0}
    assert (vote.outcome["total_voters"], vote.outcome["abstained"], vote.outcome["winners"]) == (1, 1, [])


async def test_the_last_vote_by_position_counts_in_whatever_order_they_are_applied() -> None:
    vote = await opened()
    votes = [received("ada", "soup", 1), received("ada", None, 2), received("ada", "salad", 3)]
    for order in permutations(votes):
        step = fold(PlainVote, vote.state, *order)
        assert isinstance(step, Pending)
        assert PlainVote.tally(step.state).options[1].voters == ("ada",)


async def test_what_does_not_fit_the_ballot_leaves_the_earlier_vote() -> None:
    vote = await opened(eligible_voters=["ada", "bob"], ineligible_voters=["bob"])
    vote.signal(VOTE, vote_data("ada", "soup"))
    before = vote.state
    for data in (
        vote_data("ada", "pizza"),
        vote_data("ada", []),
        vote_data("bob", "salad"),
        vote_data("Ada", "salad"),
        {"voter": "ada"},
        {"choice": "salad"},
        {"voter": ["ada"], "choice": "salad"},
        {},
    ):
        vote.signal(VOTE, data)  # type: ignore[arg-type]
    vote.signal("click", vote_data("ada", "salad"))
    vote.advance(NOW)
    assert vote.state == before
    assert standing(vote) == {"soup": 1, "salad": 0}


async def test_ids_are_compared_character_by_character() -> None:
    composed, decomposed = "Zo\u00eb", "Zoe\u0308"
    vote = await opened(eligible_voters=[composed])
    vote.signal(VOTE, vote_data(decomposed, "soup"))
    assert standing(vote)["soup"] == 0
    vote.signal(VOTE, vote_data(composed, "soup"))
    assert standing(vote)["soup"] == 1


@pytest.mark.parametrize(
    ("params", "voters", "met"),
    [
        ({"quorum": 2}, ["ada"], False),
        ({"quorum": 2}, ["ada", "bob"], True),
        ({"quorum": 0.5, "eligible_voters": ["ada", "bob", "eve"]}, ["ada"], False),
        ({"quorum": 0.5, "eligible_voters": ["ada", "bob", "eve"]}, ["ada", "bob"], True),
        ({"quorum": 0.5, "eligible_voters": ["ada", "bob", "eve"], "ineligible_voters": ["eve"]}, ["ada"], True),
        ({"quorum": 1, "eligible_voters": ["ada", "bob"]}, ["ada"], True),
        ({"quorum": 1, "weights": {"ada": 0}}, ["ada"], True),
        ({"quorum": 0}, [], True),
    ],
)
async def test_the_quorum_counts_voters_and_abstentions(params: dict[str, Any], voters: list[str], met: bool) -> None:
    vote = await opened(**params)
    for voter in voters:
        vote.signal(VOTE, vote_data(voter, None))
    assert vote.outcome is not None
    assert vote.outcome["quorum_met"] is met


@pytest.mark.parametrize(
    ("params", "votes", "met"),
    [
        ({"threshold": 2 / 3}, {"a": "soup", "b": "soup", "c": "salad"}, True),
        ({"threshold": 0.7}, {"a": "soup", "b": "soup", "c": "salad"}, False),
        ({"threshold": 0.7}, {"a": "soup", "b": "soup", "c": None}, True),
        ({"threshold": 0.7, "weights": {"a": 2.5}}, {"a": "soup", "b": "salad"}, True),
        ({"threshold": 0}, {}, False),
        ({"threshold": 0}, {"a": None}, False),
        ({"threshold": 0.5}, {"a": "soup", "b": "salad"}, True),
        ({"threshold": 0.75, "kind": "score"}, {"a": {"soup": 10}, "b": {"soup": 5, "salad": 9}}, True),
        ({"threshold": 0.76, "kind": "score"}, {"a": {"soup": 10}, "b": {"soup": 5, "salad": 9}}, False),
        ({"threshold": 0.6, "kind": "approval"}, {"a": ["soup", "salad"], "b": ["soup"], "c": ["salad"]}, True),
        ({"threshold": 1, "kind": "ranked"}, {"a": ["soup", "salad"], "b": ["soup"]}, True),
        ({"threshold": 0.6, "kind": "ranked", "options": ["soup"]}, {"a": ["soup"]}, True),
    ],
)
async def test_the_threshold_is_the_winners_share_without_abstentions(
    params: dict[str, Any], votes: dict[str, Any], met: bool
) -> None:
    vote = await opened(**params)
    for voter, choice in votes.items():
        vote.signal(VOTE, vote_data(voter, choice))
    assert vote.outcome is not None
    assert vote.outcome["threshold_met"] is met


async def test_a_deadline_that_has_passed_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(Invalid) as raised:
        await opened(closing_at=(NOW - timedelta(seconds=1)).isoformat())
    assert raised.value.pointer == "/closing_at"


async def test_a_platforms_vote_adds_its_own_fields() -> None:
    vote = await start_process(manifest, "message-vote", {"title": "Lunch?", "options": ["soup"], "channel": "food"})
    assert (vote.key, vote.url) == ("17.5", "https://x.example")
    signal = MessageVote.ballot_signal("17.5", "ada", "soup")
    assert signal == Signal("message-vote", "17.5", VOTE, {"voter": "ada", "choice": "soup"})
    vote.signal(signal.kind, signal.data)
    vote.close()
    assert vote.outcome is not None
    assert vote.outcome["message_ts"] == "17.5"
    assert vote.outcome["winners"] == ["soup"]
    assert vote.outcome["rule"] == "plurality; each voter's last click before closing"


def test_types_are_found_behind_a_generic_class_in_between() -> None:
    own, plain = manifest.processes["message-vote"], manifest.processes["plain-vote"]
    assert (own.params, own.state, own.outcome) == (MessageParams, MessageState, MessageOutcome)
    assert (plain.params, plain.state, plain.outcome) == (BallotParams, BallotState, BallotOutcome)


async def test_many_votes_at_once_are_what_they_are_one_by_one() -> None:
    vote = await opened()
    votes = [received(f"voter {n % 7}", ["soup", "salad", None, "pizza"][n % 4], n) for n in range(40)]
    step = fold(PlainVote, vote.state, *votes)
    assert isinstance(step, Pending)
    assert PlainVote.on_signals(vote.state, votes) == Pending(step.state, outcome=PlainVote.tally(step.state))


async def test_an_action_under_test_finds_the_process_as_it_stands() -> None:
    vote = await opened()
    processes = ProcessesInMemory(vote)
    before = await processes.get(PlainVote, vote.id)
    assert await processes.send(PlainVote, vote.id, VOTE, vote_data("ada", "soup")) == 1
    after = await processes.get(PlainVote, vote.id)
    assert before.state is not None
    assert after.state is not None
    assert (dict(before.state.votes), list(after.state.votes)) == ({}, ["ada"])
    assert (after.status, after.params, after.outcome) == ("pending", vote.params, vote.outcome)
    with pytest.raises(NotFound):
        await processes.get(MessageVote, vote.id)


class Tally(State):
    seen: tuple[str, ...] = ()


class Result(Model):
    seen: tuple[str, ...]


class Collect(Process[Model, Tally, Result]):
    """Collects signals until one says stop."""

    name = "collect"

    @classmethod
    def on_signal(cls, state: Tally, signal: Received) -> Step[Tally, Result]:
        seen = (*state.seen, signal.kind)
        then = (Do("tell", {"kind": signal.kind}),)
        if signal.kind == "break":
            return Failed({"broken": "it broke"}, then=then)
        if signal.kind == "stop":
            return Completed(Result(seen=seen), then=then)
        outcome = Result(seen=seen) if signal.kind == "show" else None
        return Pending(Tally(seen=seen), outcome=outcome, wake_at=NOW if signal.kind == "wait" else None, then=then)


def told(step: Any) -> list[Any]:
    return [effect.args["kind"] for effect in step.then]


def batch(*kinds: str) -> Step[Tally, Result]:
    return Collect.on_signals(Tally(), [Received(kind, {}, n, NOW) for n, kind in enumerate(kinds)])


def test_a_batch_keeps_every_effect_and_the_last_outcome_and_timer() -> None:
    step = batch("show", "wait", "more")
    assert isinstance(step, Pending)
    assert step.state.seen == ("show", "wait", "more")
    assert step.outcome == Result(seen=("show",))
    assert step.wake_at is None, "the last step sets no timer"
    assert told(step) == ["show", "wait", "more"]
    waiting = batch("more", "wait")
    assert isinstance(waiting, Pending)
    assert waiting.wake_at == NOW


def test_a_batch_ends_where_a_step_ends_the_process() -> None:
    step = batch("more", "stop", "late")
    assert step == Completed(Result(seen=("more", "stop")), then=step.then)
    assert told(step) == ["more", "stop"]
    broken = batch("more", "break", "late")
    assert isinstance(broken, Failed)
    assert told(broken) == ["more", "break"]


class Forgetful(Collect):
    """Keeps the last of a batch only."""

    name = "forgetful"

    @classmethod
    def on_signals(cls, state: Tally, signals: Any) -> Step[Tally, Result]:
        return Pending(Tally(seen=(*state.seen, signals[-1].kind)))


def test_a_batch_that_differs_from_its_signals_is_found_out() -> None:
    with pytest.raises(ContractError, match="on_signals"):
        fold(Forgetful, Tally(), Signal("forgetful", "k", "one"), Signal("forgetful", "k", "two"))
