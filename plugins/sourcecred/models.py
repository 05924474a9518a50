"""The values of the SourceCred plugin: its config, what is asked and what is answered."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from metagov_sdk import Config, Model, normalise_url

_one_spelling = partial(
    normalise_url, example="https://cred.example.org", instead="the instance is read as anybody reads it"
)


class SourceCredConfig(Config):
    """Which SourceCred instance belongs to the community."""

    server_url: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_one_spelling)]
    """Where the SourceCred instance is served, such as https://cred.example.org; output/accounts.json lies below it."""


class Person(Model):
    """A person, by either name."""

    username: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    """The name of the person's identity in SourceCred."""
    id: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    """The id of any of the person's accounts on a platform, or of the identity itself. Counts before `username`."""


class UserCredParams(Person):
    """Whose cred."""

    @model_validator(mode="after")
    def _is_named(self) -> Self:
        if self.username is None and self.id is None:
            raise ValueError("name the person by username or by id")
        return self


class Nothing(Model):
    """No parameters."""


class WeeklyCredParams(Person):
    """Whose cred (the whole community's when nobody is named), and for how long back."""

    weeks: Annotated[int, Field(ge=1, le=1000)] = 52
    """How many of the latest weeks."""


class TopAccountsParams(Model):
    """How many accounts."""

    limit: Annotated[int, Field(ge=1, le=100)] = 10
    """How many accounts, those with the most cred first."""


class Aged(Model):
    """An answer from figures that may have been kept for a while."""

    age_seconds: int
    """How long ago the SourceCred server last confirmed the figures."""


class Cred(Aged):
    """An amount of cred."""

    value: float


class Week(Model):
    """The cred of one interval (SourceCred's are weeks). The times are absent where the server does not tell them."""

    starts_at: datetime | None
    ends_at: datetime | None
    value: float


class WeeklyCred(Aged):
    """Cred over time, oldest week first."""

    weeks: list[Week]


class AccountCred(Model):
    """An identity and its cred."""

    id: str
    name: str
    value: float


class TopAccounts(Aged):
    """The accounts with the most cred."""

    accounts: list[AccountCred]
