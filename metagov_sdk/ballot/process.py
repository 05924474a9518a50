"""A vote as a process. A platform's vote inherits everything but its I/O."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar, NamedTuple, cast

from pydantic import Field, JsonValue
from typing_extensions import TypeVar

from metagov_sdk.ballot.choice import Marks, read_choice
from metagov_sdk.ballot.outcome import BallotOutcome, count
from metagov_sdk.ballot.params import BallotParams, BallotRules
from metagov_sdk.errors import Invalid
from metagov_sdk.models import State
from metagov_sdk.process import CloseReason, Completed, Pending, Process, Received, Signal, Step

VOTE = "vote"
"""The kind of the signals that carry a vote."""


class Vote(NamedTuple):
    """A voter's last vote, and its place in the mailbox."""

    position: int
    marks: Marks


class BallotState(State):
    """An open vote: what it is counted by, and each voter's last vote."""

    rules: BallotRules
    votes: dict[str, Vote] = Field(default_factory=dict)


ParamsT = TypeVar("ParamsT", bound=BallotParams, default=BallotParams)
StateT = TypeVar("StateT", bound=BallotState, default=BallotState)
OutcomeT = TypeVar("OutcomeT", bound=BallotOutcome, default=BallotOutcome)


def vote_data(voter: str, choice: JsonValue) -> dict[str, JsonValue]:
    """The data of a signal that carries a vote; `choice` as in `read_choice`."""
    return {"voter": voter, "choice": choice}


class BallotProcess(Process[ParamsT, StateT, OutcomeT]):
    """A vote: its parameters' check, its fold and its outcome. Subclasses open it on their platform in `start`.

    A voter's last vote counts, by the position of its signal; a null withdraws the choice and leaves an abstention.
    Votes of those who may not vote, and votes that do not fit the ballot, change nothing: platforms that can tell the
    voter so check beforehand, with `rules.may_vote` and `read_choice`.
    """

    in_time: ClassVar[str] = "each voter's last vote that came before closing"
    """Whose votes are in, as the outcome's `rule` says it. A vote that is polled says "as last observed"."""

    @classmethod
    def check(cls, params: ParamsT, now: datetime) -> None:
        """Refuse a `closing_at` that is not in the future."""
        params.check_closing(now)

    @classmethod
    def ballot_signal(cls, key: str, voter: str, choice: JsonValue) -> Signal:
        """A vote, to be emitted by a hook or a poll; `key` as `start` gave it."""
        return Signal(cls.name, key, VOTE, vote_data(voter, choice))

    def opened(
        self, params: ParamsT, state: StateT | None = None, *, key: str, url: str | None = None
    ) -> Pending[StateT, OutcomeT]:
        """The first step of a vote that is open on its platform, with the empty count.

        state  a platform's own, with `params.rules()` in it; by default a BallotState.
        """
        # A process without a state of its own has BallotState for StateT.
        begun = cast("StateT", BallotState(rules=params.rules())) if state is None else state
        return Pending(begun, outcome=self.tally(begun), key=key, url=url, closing_at=params.closing_at)

    @classmethod
    def tally(cls, state: StateT) -> OutcomeT:
        """How the vote stands. Pure. Platforms with fields of their own: `super().tally(state).extended(Own, …)`."""
        votes = {voter: vote.marks for voter, vote in state.votes.items()}
        return cast("OutcomeT", count(state.rules, votes, cls.in_time))

    @classmethod
    def update_of(cls, outcome: OutcomeT) -> OutcomeT:
        """The count without the voters' ids, which would be told again with every vote."""
        bare = tuple(option.model_copy(update={"voters": None}) for option in outcome.options)
        return outcome.model_copy(update={"options": bare})

    @classmethod
    def on_signal(cls, state: StateT, signal: Received) -> Step[StateT, OutcomeT]:
        """Take one vote in."""
        return cls.on_signals(state, [signal])

    @classmethod
    def on_signals(cls, state: StateT, signals: Sequence[Received]) -> Step[StateT, OutcomeT]:
        """Take votes in, and count once. The cost is one copy and one count of all votes, however many are new."""
        votes = dict(state.votes)
        for signal in signals:
            if signal.kind == VOTE:
                _take(state.rules, votes, signal)
        if votes == state.votes:
            return Pending(state)
        after = state.model_copy(update={"votes": votes})
        return Pending(after, outcome=cls.tally(after))

    @classmethod
    def close(cls, state: StateT, why: CloseReason) -> Completed[OutcomeT]:
        """The outcome as it stands."""
        return Completed(cls.tally(state))


def _take(rules: BallotRules, votes: dict[str, Vote], signal: Received) -> None:
    """Write a vote down, unless it is not allowed or the voter has cast a later one."""
    voter: Any = signal.data.get("voter")
    if not isinstance(voter, str) or "choice" not in signal.data or not rules.may_vote(voter):
        return
    earlier = votes.get(voter)
    if earlier is not None and earlier.position > signal.position:
        return
    try:
        marks = read_choice(rules, signal.data["choice"])
    except Invalid:
        return
    votes[voter] = Vote(signal.position, marks)
