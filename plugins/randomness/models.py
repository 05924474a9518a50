"""The values of the randomness plugin."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from metagov_sdk import Config, Model, State

EXACT = 2**53 - 1
"""Larger integers are not exact in every driver's JSON."""

Integer = Annotated[int, Field(ge=-EXACT, le=EXACT)]
Option = Annotated[str, Field(min_length=1, max_length=1000)]

TEN_YEARS_IN_MINUTES = 10 * 365.25 * 24 * 60


class RandomnessConfig(Config):
    """The range that is used where a call names none."""

    default_low: Integer
    """The smallest number drawn where a call names none."""
    default_high: Integer
    """The largest number drawn where a call names none."""

    @field_validator("default_high")
    @classmethod
    def _not_below_low(cls, high: int, info: ValidationInfo) -> int:
        low = info.data.get("default_low")
        if low is not None and high < low:
            raise ValueError(f"should not be below default_low ({low})")
        return high


class RandomnessState(State):
    """What the plugin remembers for a community."""

    lucky_number: int | None = None


class LuckyNumber(Model):
    """A community's lucky number."""

    lucky_number: Integer
    """The number to remember."""


class RandomIntParams(Model):
    """The range to draw from."""

    low: Integer | None = None
    """The smallest number that can come up; default_low when absent."""
    high: Integer | None = None
    """The largest number that can come up; default_high when absent."""

    @field_validator("high")
    @classmethod
    def _not_below_low(cls, high: int | None, info: ValidationInfo) -> int | None:
        low = info.data.get("low")
        if low is not None and high is not None and high < low:
            raise ValueError(f"should not be below low ({low})")
        return high


class RandomInt(Model):
    """A number that was drawn."""

    value: int


class VoteParams(Model):
    """A draw among options, made known after a delay."""

    options: Annotated[list[Option], Field(min_length=1, max_length=1000)]
    """What to draw from; an option named twice is twice as likely."""
    delay: Annotated[float, Field(ge=0, le=TEN_YEARS_IN_MINUTES, allow_inf_nan=False)]
    """Minutes until the winner is known; fractions are fine."""


class VoteState(State):
    """An open draw. `drawn` is the winner's index: drawn once, at the start, so that closing is pure."""

    options: tuple[str, ...]
    drawn: int

    @property
    def winner(self) -> str:
        """The option that was drawn."""
        return self.options[self.drawn]


class Winner(Model):
    """The outcome of a draw."""

    winner: str
