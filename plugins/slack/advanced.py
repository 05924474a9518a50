"""A vote on several candidates: what is asked, how choices are kept, how they are counted. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import Field, field_validator

from metagov_sdk import Model
from metagov_sdk.ballot import VOTE, BallotOutcome, BallotRules, ChatBallotState, Marks, OptionTally, count
from metagov_sdk.ballot.params import Option
from metagov_sdk.process import Received
from plugins.slack.vote import SlackVoteParams


class AdvancedVoteParams(SlackVoteParams):
    """A vote by a menu for each candidate."""

    candidates: Annotated[tuple[Option, ...], Field(min_length=1, max_length=1000)]
    """What or who is voted on, each once. The options are what can be said of each; the first is the one that counts
    for a candidate in the outcome's `options` and `winners`."""

    @field_validator("candidates")
    @classmethod
    def _once_each(cls, candidates: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(candidates)) < len(candidates):
            raise ValueError("should name each candidate once")
        return candidates


class Choice(NamedTuple):
    """What a voter last said of a candidate: the signal's position, and the option's."""

    position: int
    option: int


class AdvancedVoteState(ChatBallotState):
    """An open vote, and by voter and candidate what they chose. `rules.options` are the options."""

    candidates: tuple[str, ...]
    choices: dict[str, dict[int, Choice]] = Field(default_factory=dict)


class CandidateTally(Model):
    """How a candidate stands, option by option."""

    candidate: str
    options: tuple[OptionTally, ...]
    winners: tuple[str, ...]
    """The options that most voters chose for it, by weight."""


class AdvancedVoteOutcome(BallotOutcome):
    """The outcome by candidates: `options` are the candidates, counted by who chose the first option for them."""

    candidates: tuple[CandidateTally, ...]
    channel: str
    message_ts: str
    """The message, by the timestamp that names it in its channel."""

    def without_voters(self) -> AdvancedVoteOutcome:
        """The same without the voters' ids."""
        rows = tuple(row.model_copy(update={"options": _anonymous(row.options)}) for row in self.candidates)
        return self.model_copy(update={"options": _anonymous(self.options), "candidates": rows})


def choice_data(voter: str, candidate: int, option: int) -> dict[str, Any]:
    """The data of a signal that carries a choice."""
    return {"voter": voter, "candidate": candidate, "option": option}


def with_choices(state: AdvancedVoteState, signals: Sequence[Received]) -> AdvancedVoteState:
    """The state after these signals; the same object if they change nothing."""
    choices = dict(state.choices)
    changed = False
    for signal in signals:
        read = _read(state, signal) if signal.kind == VOTE else None
        if read is None:
            continue
        voter, candidate, choice = read
        before = choices.get(voter, {})
        if candidate in before and before[candidate].position > choice.position:
            continue
        choices[voter] = {**before, candidate: choice}
        changed = True
    return state.model_copy(update={"choices": choices}) if changed else state


def count_choices(state: AdvancedVoteState, in_time: str) -> AdvancedVoteOutcome:
    """The outcome: each candidate's approval by the first option, and all counts by candidate."""
    rules = state.rules
    first = rules.options[0]
    approvals = {
        voter: Marks(tuple(sorted(candidate for candidate, choice in chosen.items() if choice.option == 0)))
        for voter, chosen in state.choices.items()
    }
    whole = count(
        rules.model_copy(update={"kind": "approval", "options": state.candidates}),
        approvals,
        f"a candidate's count is who chose “{first}” for it; {in_time}",
    )
    rows = tuple(_row(rules, state.choices, position, name) for position, name in enumerate(state.candidates))
    return whole.extended(AdvancedVoteOutcome, candidates=rows, channel=state.channel, message_ts=state.message_id)


def _row(rules: BallotRules, choices: Mapping[str, Mapping[int, Choice]], position: int, name: str) -> CandidateTally:
    votes = {voter: Marks((chosen[position].option,)) for voter, chosen in choices.items() if position in chosen}
    counted = count(rules, votes)
    return CandidateTally(candidate=name, options=counted.options, winners=counted.winners)


def _read(state: AdvancedVoteState, signal: Received) -> tuple[str, int, Choice] | None:
    """The choice in a signal, if it is one of this vote's and its voter may make it."""
    voter, candidate, option = (signal.data.get(name) for name in ("voter", "candidate", "option"))
    if not isinstance(voter, str) or type(candidate) is not int or type(option) is not int:
        return None
    fits = 0 <= candidate < len(state.candidates) and 0 <= option < len(state.rules.options)
    if not fits or not state.rules.may_vote(voter):
        return None
    return voter, candidate, Choice(signal.position, option)


def _anonymous(tallies: tuple[OptionTally, ...]) -> tuple[OptionTally, ...]:
    return tuple(tally.model_copy(update={"voters": None}) for tally in tallies)
