"""SourceCred's accounts file: its shape, and finding people in it.

The shape is CredAccountData of SourceCred 0.11 (src/core/ledger/credAccounts.js); older versions give
`intervalEndpoints` in the place of `intervals`. Nothing that is not needed here is required.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from metagov_sdk import Rejected
from plugins.sourcecred.models import Person, Week

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Far beyond any real cred, and small enough that a sum stays finite.
_Amount = Annotated[float, Field(ge=-1e15, le=1e15, allow_inf_nan=False)]
# Milliseconds since 1970, within the years that a datetime has. JSON has no Infinity: SourceCred's open ends are null.
_Milliseconds = Annotated[float, Field(ge=-62_135_596_800_000, le=253_402_300_799_000)] | None


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


class Alias(_Part):
    """A platform account: its graph address, parts ended by NUL, the platform's id last."""

    address: str

    @property
    def platform_id(self) -> str:
        """The last part of the address."""
        return self.address.removesuffix("\0").rpartition("\0")[2]


class Identity(_Part):
    """A person (or project, organization, bot) with the accounts that are theirs."""

    id: str
    name: str
    aliases: tuple[Alias, ...] = ()


class Account(_Part):
    """SourceCred's ledger account."""

    identity: Identity


class CredAccount(_Part):
    """An account with its cred in all and per interval."""

    account: Account
    total_cred: _Amount
    cred: tuple[_Amount, ...] = ()


class Interval(_Part):
    """The time between two ends."""

    start_time_ms: _Milliseconds = None
    end_time_ms: _Milliseconds = None


class CredAccounts(_Part):
    """The accounts file."""

    accounts: tuple[CredAccount, ...]
    intervals: tuple[Interval, ...] = ()
    interval_endpoints: tuple[_Milliseconds, ...] = ()

    def total(self) -> float:
        """The cred of all accounts."""
        return sum(account.total_cred for account in self.accounts)

    def find(self, person: Person) -> CredAccount:
        """The account of a person. Raises Rejected when there is none, or more than one."""
        if person.id is not None:
            found = [account for account in self.accounts if _has_id(account.account.identity, person.id)]
        else:
            found = [account for account in self.accounts if account.account.identity.name == person.username]
        wanted = f"the id {person.id!r}" if person.id is not None else f"the name {person.username!r}"
        if not found:
            raise Rejected(f"SourceCred has no account with {wanted}")
        if len(found) > 1:
            raise Rejected(f"{len(found)} accounts have {wanted}, on different platforms: ask by username")
        return found[0]

    def weeks(self, accounts: Sequence[CredAccount], latest: int) -> list[Week]:
        """The summed cred of `accounts` in the latest intervals, oldest first."""
        sums = [sum(amounts) for amounts in zip_longest(*(account.cred for account in accounts), fillvalue=0.0)]
        spans = self._spans()[: len(sums)]
        spans += [(None, None)] * (len(sums) - len(spans))
        weeks = [
            Week(starts_at=start, ends_at=end, value=value) for (start, end), value in zip(spans, sums, strict=True)
        ]
        return weeks[-latest:]

    def _spans(self) -> list[tuple[datetime | None, datetime | None]]:
        if self.intervals:
            return [(_time(interval.start_time_ms), _time(interval.end_time_ms)) for interval in self.intervals]
        ends = [_time(end) for end in self.interval_endpoints]
        return list(zip([None, *ends], ends, strict=False))


def parse_accounts(body: bytes, source: str) -> CredAccounts:
    """The accounts file of the server `source`. Raises Rejected, naming the first place that does not fit."""
    try:
        return CredAccounts.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise Rejected(
            f"{source}: output/accounts.json is not a SourceCred accounts file ({place}: {first['msg']})"
        ) from None


def _has_id(identity: Identity, wanted: str) -> bool:
    return identity.id == wanted or any(alias.platform_id == wanted for alias in identity.aliases)


def _time(milliseconds: float | None) -> datetime | None:
    return None if milliseconds is None else _EPOCH + timedelta(milliseconds=milliseconds)
