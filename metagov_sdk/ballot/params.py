"""What a vote is asked with: one set of parameters, whatever the platform."""

from __future__ import annotations

from datetime import datetime, timedelta
from fractions import Fraction
from functools import cached_property
from math import fsum
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, ValidationInfo, field_validator

from metagov_sdk.errors import Invalid
from metagov_sdk.models import Model

Kind = Literal["single", "multiple", "ranked", "score", "approval"]

MOST_OPTIONS = 1000
"""Every update of a vote carries every option; more than this is a list to search, not a ballot to read."""
MOST_RANKED_OPTIONS = 100
"""Schulze's method takes the cube of this many steps at each recount, a tenth of a second for a hundred options."""
MOST_VOTERS = 100_000
"""In a list of voters; the state that holds it is written again with each batch of votes."""
HIGHEST_SCORE = 10
"""A score lies between 0 and this."""
LARGEST_TOTAL = 2**53 - 1
"""Weights sum up to this at most: whole numbers beyond it are not exact in every driver's JSON."""
SMALLEST_WEIGHT = 1e-9
"""Below it a weight is 0 or refused, which keeps exact sums short."""
LONGEST = timedelta(days=3653)
"""A vote closes within ten years."""


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("should hold no NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("should be Unicode text, and holds half of a surrogate pair") from None
    return text


def readable(text: str) -> str:
    """Text that can be stored and has something to read in it. Raises ValueError."""
    if not text.strip():
        raise ValueError("should not be blank")
    return _storable(text)


def _weighable(weight: float) -> float:
    if 0 < weight < SMALLEST_WEIGHT:
        raise ValueError(f"should be 0, or at least {SMALLEST_WEIGHT}")
    return weight


def _spelt_out(value: object) -> object:
    """A time as RFC 3339 writes it, and not a number whose unit would be guessed."""
    if isinstance(value, datetime) or (isinstance(value, str) and "T" in value.upper()):
        return value
    raise ValueError("should be a time with date and offset, such as 2030-01-31T12:00:00Z")


Option = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(readable)]
Voter = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(readable)]
"""A voter's id on its platform, compared character by character."""
Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0)]
Weight = Annotated[Number, Field(le=LARGEST_TOTAL), AfterValidator(_weighable)]


def exact(number: float) -> Fraction:
    """What a JSON number says, digit by digit: 0.1 is one tenth, and not the double nearest to it."""
    return Fraction(repr(number))


class BallotRules(Model):
    """Who may vote, on what, and how it is counted."""

    kind: Kind = "single"
    """How votes are cast and counted: `single` (one option), `multiple` (several), `approval` (any number), `ranked`
    (options in order, best first; Schulze's method) or `score` (0 to 10 for each; the highest sum)."""
    options: Annotated[tuple[Option, ...], Field(min_length=1, max_length=MOST_OPTIONS)]
    """What can be voted for: no option twice; at most 1000, or 100 for `ranked`."""
    eligible_voters: Annotated[tuple[Voter, ...], Field(min_length=1, max_length=MOST_VOTERS)] | None = None
    """The only ones who may vote; absent: whoever is not ineligible."""
    ineligible_voters: Annotated[tuple[Voter, ...], Field(max_length=MOST_VOTERS)] | None = None
    """Who may not vote, even if named as eligible."""
    weights: Annotated[dict[Voter, Weight], Field(max_length=MOST_VOTERS)] | None = None
    """How much a voter's vote weighs; 1 for those not named. 0 weighs nothing, and still counts for the quorum."""
    quorum: Number | None = None
    """How many must vote, abstentions included: a whole number of voters, or a share of `eligible_voters` when below 1
    (0.5 is half of them; 1 is one voter)."""
    threshold: Annotated[Number, Field(le=1)] | None = None
    """The share of the votes, from 0 to 1, that the winner must at least have. Abstentions are left out of it."""
    anonymous: Annotated[bool, Field(strict=True)] = False
    """Leave out of the outcome who voted for what."""
    max_choices: Annotated[int, Field(strict=True, ge=1, le=MOST_OPTIONS)] | None = None
    """The most options one vote may name; absent: all of them. Always 1 for `single`."""

    @field_validator("options")
    @classmethod
    def _distinct(cls, options: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        seen: set[str] = set()
        for option in options:
            if option in seen:
                raise ValueError(f"should name each option once, and names {clipped(option)} again")
            seen.add(option)
        if info.data.get("kind") == "ranked" and len(options) > MOST_RANKED_OPTIONS:
            raise ValueError(f"a ranked vote has at most {MOST_RANKED_OPTIONS} options, not {len(options)}")
        return options

    @field_validator("weights")
    @classmethod
    def _summable(cls, weights: dict[str, float] | None) -> dict[str, float] | None:
        if weights and fsum(weights.values()) > LARGEST_TOTAL:
            raise ValueError(f"the weights should sum up to {LARGEST_TOTAL} at most")
        return weights

    @field_validator("quorum")
    @classmethod
    def _reachable(cls, quorum: float | None, info: ValidationInfo) -> float | None:
        if quorum is None or quorum.is_integer():
            return quorum
        if quorum > 1:
            raise ValueError("should be a whole number of voters, or a share below 1")
        if "eligible_voters" in info.data and info.data["eligible_voters"] is None:
            raise ValueError("a share is a share of eligible_voters: name them, or give a whole number of voters")
        return quorum

    @field_validator("max_choices")
    @classmethod
    def _one_if_single(cls, most: int | None, info: ValidationInfo) -> int | None:
        if most is not None and most > 1 and info.data.get("kind") == "single":
            raise ValueError("a single vote names one option; take kind multiple or approval for more")
        return most

    def may_vote(self, voter: str) -> bool:
        """Whether this voter's vote counts."""
        eligible, ineligible = self._electorate
        return voter not in ineligible and (eligible is None or voter in eligible)

    @property
    def voters_needed(self) -> Fraction:
        """The quorum as a number of voters, which need not be whole; 0 when there is none."""
        if self.quorum is None or self.quorum.is_integer():
            return Fraction(int(self.quorum or 0))
        eligible, ineligible = self._electorate
        return exact(self.quorum) * len((eligible or frozenset()) - ineligible)

    @cached_property
    def positions(self) -> dict[str, int]:
        """Where each option stands."""
        return {option: position for position, option in enumerate(self.options)}

    @cached_property
    def _electorate(self) -> tuple[frozenset[str] | None, frozenset[str]]:
        eligible = None if self.eligible_voters is None else frozenset(self.eligible_voters)
        return eligible, frozenset(self.ineligible_voters or ())


class BallotParams(BallotRules):
    """A vote."""

    title: Annotated[str, Field(min_length=1, max_length=3000), AfterValidator(readable)]
    """What is asked."""
    details: Annotated[str, Field(max_length=40_000), AfterValidator(_storable)] | None = None
    """What voters should know."""
    closing_at: Annotated[AwareDatetime, BeforeValidator(_spelt_out)] | None = None
    """When it closes by itself: a time with its offset, within ten years; absent: when the driver closes it."""

    def rules(self) -> BallotRules:
        """What the count needs of it; kept with the votes."""
        return BallotRules.model_validate({name: getattr(self, name) for name in BallotRules.model_fields})

    def check_closing(self, now: datetime) -> None:
        """Raises Invalid when `closing_at` is past or out of reach."""
        if self.closing_at is None:
            return
        if self.closing_at <= now:
            moment = now.isoformat(timespec="seconds")
            raise Invalid("/closing_at", f"the vote would have closed before it opened: it is {moment} now")
        if self.closing_at - now > LONGEST:
            raise Invalid("/closing_at", "should be within ten years")


def clipped(text: str) -> str:
    """Text from outside as it may stand in a message."""
    return repr(text if len(text) <= 100 else text[:100] + "…")
