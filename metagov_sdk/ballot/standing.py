"""How a vote stands, in words and bars: plain text for any platform, without its markup. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from metagov_sdk.ballot.outcome import BallotOutcome
from metagov_sdk.ballot.params import exact
from metagov_sdk.process import Status

FULL, EMPTY = "█", "░"


@dataclass(frozen=True, slots=True)
class Standing:
    """How one option stands. `percent` is its share of all options' weight, rounded; 0 when there is none."""

    option: str
    count: int
    percent: int
    bar: str
    wins: bool
    """Whether it leads, or has won."""

    @property
    def text(self) -> str:
        """`██████░░░░ 60% (3)`"""
        return f"{self.bar} {self.percent}% ({self.count})"


def standings(outcome: BallotOutcome, width: int = 10) -> tuple[Standing, ...]:
    """Each option in the order asked, with a bar of `width` characters."""
    weights = [exact(option.weight) for option in outcome.options]
    total = sum(weights)
    shares = [weight / total if total else Fraction() for weight in weights]
    return tuple(
        Standing(
            option=option.option,
            count=option.count,
            percent=_rounded(share * 100),
            bar=FULL * _rounded(share * width) + EMPTY * (width - _rounded(share * width)),
            wins=option.option in outcome.winners,
        )
        for option, share in zip(outcome.options, shares, strict=True)
    )


def sum_up(outcome: BallotOutcome, status: Status) -> str:
    """One line for under the bars: how many have voted, and once it is over, who has won."""
    voted = f"{outcome.total_voters} vote{'s' * (outcome.total_voters != 1)}"
    if outcome.abstained:
        voted += f", {outcome.abstained} abstained"
    if status == "pending":
        return f"{voted} so far"
    lines = [f"Closed with {voted}."]
    if outcome.tie:
        lines.append(f"A tie between {', '.join(outcome.winners[:-1])} and {outcome.winners[-1]}.")
    elif outcome.winners:
        lines.append(f"Most votes: {outcome.winners[0]}.")
    else:
        lines.append("Nothing was chosen.")
    if not outcome.quorum_met:
        lines.append("Too few have voted.")
    if outcome.winners and not outcome.threshold_met:
        lines.append("It takes a larger share than that.")
    return " ".join(lines)


def _rounded(number: Fraction) -> int:
    """To the nearest whole number; halves up."""
    return int(number + Fraction(1, 2))
