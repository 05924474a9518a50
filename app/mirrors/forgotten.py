"""Accounts that are not to be mirrored any more: what pages say of them is left out before it is stored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.core.crypto import Vault
from app.core.db import Database
from app.host.binding import InstanceData
from app.identity.person import Person
from metagov_sdk import Page, Record
from metagov_sdk.provider import ProviderSpec


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The forgotten accounts of one community and provider."""

    people: tuple[Person, ...] = ()

    def without(self, page: Page) -> Page:
        """The page without their rows, and without their names in others'."""
        if not self.people:
            return page
        kept = [self._named_no_more(row) for row in page.rows if not self._is_theirs(row)]
        children = [child for child in page.children if not self._is_theirs(child.of)]
        return replace(page, rows=kept, children=children)

    def without_rows(self, record: type[Record], rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """The same for rows by column, as archives give them."""
        if not self.people:
            return rows
        names = [*texts_of(record), "extra"]
        kept = []
        for row in rows:
            if any(is_theirs(record.people, row, person) for person in self.people):
                continue
            texts = {name: row[name] for name in names if name in row}
            for person in self.people:
                texts = person.out_of(texts)
            kept.append({**row, **texts})
        return kept

    def are_in(self, body: bytes) -> bool:
        """Whether an answer of the platform names one of them."""
        return any(person.is_in_body(body) for person in self.people)

    def _is_theirs(self, row: Record) -> bool:
        return any(is_theirs(row.people, vars(row), person) for person in self.people)

    def _named_no_more(self, row: Record) -> Record:
        values = {name: getattr(row, name) for name in texts_of(type(row))}
        extra: Any = row.extra
        before = extra
        for person in self.people:
            if any(isinstance(value, str) and person.may_be_in(value) for value in values.values()) or person.may_be_in(
                row.extra_json
            ):
                values, extra = person.out_of(values), person.out_of(extra)
        if extra == before and all(getattr(row, name) == value for name, value in values.items()):
            return row
        clean = row.model_copy(update=values)
        clean._extra, clean._extra_json, clean._flags = extra, json.dumps(extra, ensure_ascii=False), row.flags
        return clean


def is_theirs(people: tuple[str, ...], row: Mapping[str, Any], person: Person) -> bool:
    """Whether a row is of this person: one of the columns `people` has their account."""
    return any(str(row.get(name)) == person.account for name in people)


def texts_of(record: type[Record]) -> list[str]:
    """The columns of others' rows in which somebody may be named."""
    return [column.name for column in record.columns if not column.in_key and column.kind in ("text", "json")]


def open_person(vault: Vault, sealed: str) -> Person:
    """The person of a request, as it is stored."""
    known = vault.open(sealed)
    return Person(
        account=str(known["account"]),
        names=tuple(known.get("names", ())),
        marks=tuple(known.get("marks", ())),
        ids=tuple(known.get("ids", ())),
    )


def seal_person(vault: Vault, person: Person) -> str:
    """The opposite of `open_person`."""
    values = {"account": person.account, "names": person.names, "marks": person.marks, "ids": person.ids}
    return vault.seal(values)


async def read_forgotten(db: Database, vault: Vault, instance: InstanceData, spec: ProviderSpec) -> Forgotten:
    """Those of an instance's community."""
    rows = await db.pool.fetch(
        "SELECT sealed FROM mirror_forgotten WHERE community_id = $1 AND provider = $2 ORDER BY hash",
        instance.community_id,
        spec.name,
    )
    people = [open_person(vault, row["sealed"]) for row in rows]
    # Those whom an older version took down are without marks until their request has been gone through again.
    return Forgotten(
        tuple(replace(each, marks=tuple({*each.marks, *spec.cls.names_of(each.account)})) for each in people)
    )
