"""The one shape of a vote's outcome, and the count that fills it in. Pure and exact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm
from typing import Annotated, Any, TypeVar

from pydantic import Field

from metagov_sdk.ballot.choice import Marks
from metagov_sdk.ballot.params import HIGHEST_SCORE, BallotRules, Kind, exact
from metagov_sdk.ballot.ranking import Pairs, compare_pairs, schulze
from metagov_sdk.models import Model

OutcomeT = TypeVar("OutcomeT", bound="BallotOutcome")

RULES: Mapping[Kind, str] = {
    "single": "plurality",
    "multiple": "plurality, several choices each",
    "approval": "approval",
    "ranked": "Schulze, winning votes",
    "score": f"sum of scores from 0 to {HIGHEST_SCORE}",
}
"""How each kind is counted, as the outcome names it."""


class OptionTally(Model):
    """How an option stands."""

    option: str
    count: int
    """How many voters chose it; for a ranked vote how many rank it first, for scores how many gave it one."""
    weight: float
    """The weight of these voters; for scores the sum of weight times score."""
    voters: Annotated[tuple[str, ...] | None, Field(exclude_if=lambda voters: voters is None)] = None
    """These voters' ids, sorted; absent from an anonymous vote, and from updates while it is open."""


class BallotOutcome(Model):
    """How a vote stands, or ended. The shape is the same on every platform."""

    kind: Kind
    options: tuple[OptionTally, ...]
    """In the order in which they were asked."""
    winners: tuple[str, ...]
    """Empty when nobody has chosen anything (or only voters of weight 0); several when they are tied."""
    tie: bool
    total_voters: int
    """How many have voted, abstentions included."""
    abstained: int
    quorum_met: bool
    """Whether enough have voted; true when no quorum was asked for."""
    threshold_met: bool
    """Whether there is a winner with a large enough share; true when no threshold was asked for."""
    unread: int = 0
    """How many webhooks came in time and could not be read; votes may be among them."""
    rule: str
    """How it was counted."""

    def extended(self, kind: type[OutcomeT], **fields: Any) -> OutcomeT:
        """The same outcome with a platform's own fields beside it."""
        return kind.model_validate({**dict(self), **fields})


@dataclass(slots=True)
class _Sums:
    """What adding up the ballots gives, by an option's position. Weights are whole numbers of units."""

    counts: list[int]
    weights: list[Fraction | int]
    voters: list[list[str]]
    cast: int = 0
    abstained: int = 0
    rankings: Counter[tuple[int, ...]] = field(default_factory=Counter)


def count(rules: BallotRules, votes: Mapping[str, Marks], rule: str = "") -> BallotOutcome:
    """The outcome of these votes, by voter. `rule` is what the outcome says about whose votes are in.

    Nothing depends on the order of `votes`, and no lot is drawn: options that are equal win together.
    """
    unit, weights = _in_units(rules, votes)
    sums = _add_up(rules, votes, unit, weights)
    winners, share = _decide(rules, sums)
    needed = rules.threshold
    return BallotOutcome(
        kind=rules.kind,
        options=tuple(
            OptionTally(
                option=option,
                count=sums.counts[position],
                weight=float(Fraction(sums.weights[position]) / unit),
                voters=None if rules.anonymous else tuple(sorted(sums.voters[position])),
            )
            for position, option in enumerate(rules.options)
        ),
        winners=tuple(rules.options[position] for position in winners),
        tie=len(winners) > 1,
        total_voters=len(votes),
        abstained=sums.abstained,
        quorum_met=len(votes) >= rules.voters_needed,
        threshold_met=needed is None or (bool(winners) and share >= exact(needed)),
        rule=f"{RULES[rules.kind]}; {rule}" if rule else RULES[rules.kind],
    )


def _in_units(rules: BallotRules, voters: Iterable[str]) -> tuple[int, dict[str, int]]:
    """Weights as whole numbers: how many units a weight of 1 is, and the weight of each voter that was given one."""
    given = rules.weights or {}
    weights = {voter: exact(given[voter]) for voter in voters if voter in given}
    unit = lcm(*{weight.denominator for weight in weights.values()})
    return unit, {voter: int(weight * unit) for voter, weight in weights.items()}


def _add_up(rules: BallotRules, votes: Mapping[str, Marks], unit: int, weights: Mapping[str, int]) -> _Sums:
    number = len(rules.options)
    sums = _Sums([0] * number, [0] * number, [[] for _ in range(number)])
    scores: Counter[tuple[int, float]] = Counter()
    for voter, marks in votes.items():
        if marks.options is None:
            sums.abstained += 1
            continue
        weight = weights.get(voter, unit)
        sums.cast += weight
        if rules.kind == "ranked":
            sums.rankings[marks.options] += weight
        for position in marks.options[:1] if rules.kind == "ranked" else marks.options:
            sums.counts[position] += 1
            sums.weights[position] += weight
            sums.voters[position].append(voter)
        for mark in zip(marks.options, marks.scores, strict=False):
            scores[mark] += weight
    if rules.kind == "score":
        sums.weights = [0] * number
        for (position, score), weight in scores.items():
            sums.weights[position] += exact(score) * weight
    return sums


def _decide(rules: BallotRules, sums: _Sums) -> tuple[list[int], Fraction]:
    """The winners' positions, and the share of the votes that each of them has at least."""
    if sums.cast == 0:
        return [], Fraction()
    if rules.kind == "ranked":
        pairs = compare_pairs(range(len(rules.options)), sums.rankings)
        winners = schulze(pairs)
        return winners, min(_closest(pairs, winner, sums) for winner in winners)
    most = max(sums.weights)
    winners = [position for position, weight in enumerate(sums.weights) if weight == most > 0]
    return winners, Fraction(most) / (sums.cast * (HIGHEST_SCORE if rules.kind == "score" else 1))


def _closest(pairs: Pairs[int], option: int, sums: _Sums) -> Fraction:
    """The share of those who prefer `option`, in the comparison where it is smallest."""
    others = [preferring for other, preferring in enumerate(pairs.table[option]) if other != option]
    return Fraction(min(others, default=sums.cast), sums.cast)
