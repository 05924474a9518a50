"""Accounts that are not to be mirrored any more: what pages say of them is left out before it is stored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.core.crypto import Vault
from app.core.db import Database
from app.host.binding import InstanceData
from metagov_sdk import Page, Record
from metagov_sdk.provider import ProviderSpec

NOBODY = "(forgotten)"
"""What stands in texts where the account was named."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The forgotten accounts of one community and provider; `names` is how texts name them."""

    accounts: frozenset[str] = frozenset()
    names: Sequence[str] = ()

    def without(self, page: Page) -> Page:
        """The page without their rows, and without their names in others'."""
        if not self.accounts:
            return page
        kept = [self._named_no_more(row) for row in page.rows if not self._is_theirs(row)]
        children = [child for child in page.children if not self._is_theirs(child.of)]
        return replace(page, rows=kept, children=children)

    def _is_theirs(self, row: Record) -> bool:
        return any(str(getattr(row, name)) in self.accounts for name in row.people)

    def _named_no_more(self, row: Record) -> Record:
        changed = {
            column.name: self.scrub(value)
            for column in row.columns
            if not column.in_key
            and (value := getattr(row, column.name)) is not None
            and column.kind in ("text", "json")
        }
        extra = self.scrub(row.extra)
        if extra == row.extra and all(getattr(row, name) == value for name, value in changed.items()):
            return row
        clean = row.model_copy(update=changed)
        clean._extra, clean._extra_json, clean._flags = extra, json.dumps(extra, ensure_ascii=False), row.flags
        return clean

    def scrub(self, value: Any) -> Any:
        """A JSON value with the names taken out of its texts."""
        if isinstance(value, str):
            for name in self.names:
                value = value.replace(name, NOBODY)
            return value
        if isinstance(value, list):
            return [self.scrub(each) for each in value if each not in self.accounts]
        if isinstance(value, dict):
            return {name: self.scrub(each) for name, each in value.items()}
        return value


async def read_forgotten(db: Database, vault: Vault, instance: InstanceData, spec: ProviderSpec) -> Forgotten:
    """Those of an instance's community."""
    rows = await db.pool.fetch(
        "SELECT sealed FROM mirror_forgotten WHERE community_id = $1 AND provider = $2",
        instance.community_id,
        spec.name,
    )
    if not rows:
        return Forgotten()
    accounts = frozenset(str(vault.open(row["sealed"])["account"]) for row in rows)
    return Forgotten(accounts, [name for account in sorted(accounts) for name in spec.cls.names_of(account)])
