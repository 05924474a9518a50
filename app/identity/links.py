"""Linking accounts to MetagovIDs, many in a few statements, and finding whose an account is.

An account is one row, made by `ON CONFLICT DO NOTHING`: whoever comes second changes what is there, under its lock, and
only where that says more than the row does. A plugin that links the same person with every webhook writes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, get_args

from sqlalchemy import delete, func, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, TEXT
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.selectable import TableValuedAlias

from app.core.errors import Conflict, NotFound
from app.core.ids import new_ids
from app.identity.models import LinkedAccount, MetagovID
from metagov_sdk.accounts import AccountLink, LinkQuality

_BEST_FIRST: tuple[str, ...] = get_args(LinkQuality)
_ROUNDS = 5
"""How often others may make or remove an account between two of our statements."""

_NEW_IDS = text("""
INSERT INTO metagov_ids (id, community_id, primary_id)
SELECT id, community_id, id FROM unnest(CAST(:ids AS text[]), CAST(:communities AS text[])) AS new(id, community_id)
ORDER BY community_id, id
""")
_INSERT = text("""
INSERT INTO linked_accounts
    (id, community_id, metagov_id, key, platform_type, community_platform_id, platform_identifier,
     custom_data, link_type, link_quality)
SELECT * FROM unnest(
    CAST(:ids AS text[]), CAST(:communities AS text[]), CAST(:owners AS text[]), CAST(:keys AS bytea[]),
    CAST(:platforms AS text[]), CAST(:platform_ids AS text[]), CAST(:identifiers AS text[]),
    CAST(:data AS json[]), CAST(:types AS text[]), CAST(:qualities AS text[])
) AS new(id, community_id, metagov_id, key, platform_type, community_platform_id, platform_identifier,
         custom_data, link_type, link_quality)
ORDER BY community_id, key, community_platform_id
ON CONFLICT DO NOTHING RETURNING metagov_id
""")
_OWNERS = text("""
SELECT (
    SELECT owner.primary_id
    FROM linked_accounts account JOIN metagov_ids owner ON owner.id = account.metagov_id
    WHERE account.community_id = wanted.community_id AND account.key = wanted.key
      AND account.community_platform_id IN (wanted.community_platform_id, '')
    ORDER BY account.community_platform_id DESC LIMIT 1
)
FROM unnest(CAST(:communities AS text[]), CAST(:keys AS bytea[]), CAST(:platform_ids AS text[]))
    WITH ORDINALITY AS wanted(community_id, key, community_platform_id, place)
ORDER BY place
""")
"""A look into the index per account, whatever the planner thinks of the tables' sizes; "" sorts before any id."""


class Account(NamedTuple):
    """What tells an account from all others. `community_platform_id` is "" for the platform as a whole."""

    community_id: str
    platform_type: str
    community_platform_id: str
    platform_identifier: str

    @property
    def key(self) -> bytes:
        """Stands for the platform and the identifier in the index. No stored one holds NUL: no two run together."""
        return hashlib.sha256(
            f"{self.platform_type}\0{self.platform_identifier}".encode(errors="surrogatepass")
        ).digest()


@dataclass(frozen=True, slots=True)
class Held:
    """A stored account and its person's primary MetagovID."""

    row: LinkedAccount = field(repr=False)
    primary_id: str


async def link_all(
    session: AsyncSession, wanted: Iterable[tuple[Account, AccountLink]], *, force: bool = False
) -> dict[Account, Held]:
    """Link accounts, of communities that the caller holds; returns each as it is then.

    An account that is linked to another person stays theirs, unless with `force`. Raises NotFound when an external_id
    is none of the account's community.
    """
    pending: dict[Account, AccountLink] = {}
    for account, link in wanted:
        pending[account] = _combined(pending[account], link) if account in pending else link
    owners = await _named_owners(session, pending)
    done: dict[Account, Held] = {}
    for _ in range(_ROUNDS):
        found = await _find(session, list(pending))
        changing = [account for account, held in found.items() if _changes(held, pending[account], owners, force)]
        if changing:
            found |= await _change(session, {account: pending[account] for account in changing}, owners, force)
        done |= found
        pending = {account: link for account, link in pending.items() if account not in found}
        if not pending:
            return done
        await _insert(session, pending)
    raise Conflict("the account is being linked and unlinked by others at the same time; try again")


async def find_owners(session: AsyncSession, accounts: Sequence[Account]) -> dict[Account, str]:
    """The primary MetagovIDs of those accounts that are linked, in one statement.

    A link to the platform as a whole counts where there is none to its very team, guild or installation.
    """
    owners = await session.scalars(
        _OWNERS,
        {
            "communities": [account.community_id for account in accounts],
            "keys": [account.key for account in accounts],
            "platform_ids": [account.community_platform_id for account in accounts],
        },
    )
    return {account: owner for account, owner in zip(accounts, owners, strict=True) if owner is not None}


def _combined(first: AccountLink, second: AccountLink) -> AccountLink:
    """Two links of one account in one call or batch as one."""
    if first.external_id and second.external_id and first.external_id != second.external_id:
        return first
    better = second if _rank(second.link_quality) >= _rank(first.link_quality) else first
    return replace(
        better,
        external_id=first.external_id or second.external_id,
        link_type=better.link_type or first.link_type or second.link_type,
        custom_data=first.custom_data if second.custom_data is None else second.custom_data,
    )


async def _named_owners(session: AsyncSession, links: dict[Account, AccountLink]) -> dict[str, str]:
    """The primary of each MetagovID that is named, held so that it is neither deleted nor merged meanwhile."""
    named = {link.external_id for link in links.values() if link.external_id}
    if not named:
        return {}
    rows = await session.execute(
        select(MetagovID.id, MetagovID.community_id, MetagovID.primary_id)
        .where(MetagovID.id.in_(named))
        .order_by(MetagovID.id)
        .with_for_update(read=True)
    )
    found = {row.id: row for row in rows}
    for account, link in links.items():
        if link.external_id and (
            link.external_id not in found or found[link.external_id].community_id != account.community_id
        ):
            raise no_such_id(link.external_id)
    return {external_id: row.primary_id for external_id, row in found.items()}


def no_such_id(external_id: str) -> NotFound:
    """What is said of a MetagovID that is unknown, another community's or another driver's."""
    return NotFound(f"there is no MetagovID {external_id!r} in the community")


async def _find(session: AsyncSession, accounts: Sequence[Account], *, lock: bool = False) -> dict[Account, Held]:
    names = _table_of(accounts)
    query = (
        select(LinkedAccount, MetagovID.primary_id)
        .join(
            names,
            (LinkedAccount.community_id == names.c.community_id)
            & (LinkedAccount.key == names.c.key)
            & (LinkedAccount.community_platform_id == names.c.community_platform_id),
        )
        .join(MetagovID, MetagovID.id == LinkedAccount.metagov_id)
        .order_by(LinkedAccount.id)
        .execution_options(populate_existing=True)
    )
    if lock:
        query = query.with_for_update(of=LinkedAccount)
    return {account_of(row): Held(row, primary_id) for row, primary_id in await session.execute(query)}


def _table_of(accounts: Sequence[Account]) -> TableValuedAlias:
    columns = (
        literal([account.community_id for account in accounts], ARRAY(TEXT)),
        literal([account.key for account in accounts], ARRAY(BYTEA)),
        literal([account.community_platform_id for account in accounts], ARRAY(TEXT)),
    )
    return func.unnest(*columns).table_valued("community_id", "key", "community_platform_id").render_derived()


def account_of(row: LinkedAccount) -> Account:
    """Which account a row is."""
    return Account(row.community_id, row.platform_type, row.community_platform_id, row.platform_identifier)


async def _change(
    session: AsyncSession, links: dict[Account, AccountLink], owners: dict[str, str], force: bool
) -> dict[Account, Held]:
    """Decide again under the rows' locks, and write. Accounts that are gone by then are left out."""
    held = await _find(session, list(links), lock=True)
    for account, one in held.items():
        for name, value in _changes(one, links[account], owners, force).items():
            setattr(one.row, name, value)
    await session.flush()
    return {
        account: replace(one, primary_id=_new_owner(one, links[account], owners, force) or one.primary_id)
        for account, one in held.items()
    }


def _new_owner(held: Held, link: AccountLink, owners: dict[str, str], force: bool) -> str | None:
    """The primary of the person an account is taken over by."""
    wanted = owners[link.external_id] if link.external_id else held.primary_id
    return wanted if force and wanted != held.primary_id else None


def _changes(held: Held, link: AccountLink, owners: dict[str, str], force: bool) -> dict[str, Any]:
    """The columns that a link changes."""
    row = held.row
    if link.external_id and owners[link.external_id] != held.primary_id:
        # What was known was about somebody else. Left to them, nothing of it changes.
        return {"metagov_id": link.external_id, **_stated(link)} if force else {}
    changes: dict[str, Any] = {}
    if force or _rank(link.link_quality) >= _rank(row.link_quality):
        changes = {"link_type": link.link_type, "link_quality": link.link_quality}
        changes = {name: value for name, value in changes.items() if value not in (None, getattr(row, name))}
    # As JSON: Python takes 1 and true for equal.
    if link.custom_data is not None and json.dumps(link.custom_data) != json.dumps(row.custom_data):
        changes["custom_data"] = link.custom_data
    return changes


def _stated(link: AccountLink) -> dict[str, Any]:
    """What a link says of an account of which nothing is known."""
    return {
        "custom_data": link.custom_data or {},
        "link_type": link.link_type or "unknown",
        "link_quality": link.link_quality or "unknown",
    }


async def _insert(session: AsyncSession, links: dict[Account, AccountLink]) -> None:
    """Make rows, with new MetagovIDs where none is named; those that others have made meanwhile are theirs."""
    nobodys = [account for account, link in links.items() if not link.external_id]
    new = dict(zip(nobodys, await create_ids(session, [account.community_id for account in nobodys]), strict=True))
    stated = [_stated(link) for link in links.values()]
    added = await session.scalars(
        _INSERT,
        {
            "ids": new_ids("lnk", len(links)),
            "communities": [account.community_id for account in links],
            "owners": [link.external_id or new[account] for account, link in links.items()],
            "keys": [account.key for account in links],
            "platforms": [account.platform_type for account in links],
            "platform_ids": [account.community_platform_id for account in links],
            "identifiers": [account.platform_identifier for account in links],
            "data": [json.dumps(values["custom_data"]) for values in stated],
            "types": [values["link_type"] for values in stated],
            "qualities": [values["link_quality"] for values in stated],
        },
    )
    unused = set(new.values()) - set(added)
    if unused:
        await session.execute(delete(MetagovID).where(MetagovID.id.in_(unused)))


async def create_ids(session: AsyncSession, communities: Sequence[str]) -> list[str]:
    """A new MetagovID for each of the communities (by id), in their order."""
    # Made in one moment, they are told apart by chance alone: lists show them as they were given out.
    ids = sorted(new_ids("mid", len(communities)))
    if ids:
        await session.execute(_NEW_IDS, {"ids": ids, "communities": list(communities)})
    return ids


def _rank(quality: str | None) -> int:
    """The better, the higher; none said is as good as unknown."""
    return -_BEST_FIRST.index(quality or "unknown")
