"""Reading people and their accounts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.auth import NO_COMMUNITY
from app.accounts.models import Community
from app.core.errors import Invalid, NotFound
from app.identity.links import Account
from app.identity.models import LinkedAccount, MetagovID
from app.identity.schemas import AccountOut, UserOut

MOST_USERS = 10_000
"""How many are answered where no limit is asked for."""


@dataclass(frozen=True, slots=True)
class AccountFilter:
    """What an account should be like; None is anything."""

    platform_type: str | None = None
    community_platform_id: str | None = None
    platform_identifier: str | None = None
    link_type: str | None = None
    link_quality: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Over LinkedAccount."""
        wanted = [
            (LinkedAccount.platform_type, self.platform_type),
            (LinkedAccount.community_platform_id, self.community_platform_id),
            (LinkedAccount.platform_identifier, self.platform_identifier),
            (LinkedAccount.link_type, self.link_type),
            (LinkedAccount.link_quality, self.link_quality),
        ]
        found = [column == value for column, value in wanted if value is not None]
        if self.platform_type is not None and self.platform_identifier is not None:
            # The one combination that has an index: whose is this account?
            found.append(LinkedAccount.key == Account("", self.platform_type, "", self.platform_identifier).key)
        return found


@dataclass(frozen=True, slots=True)
class Person:
    """A MetagovID as it was asked for, with what it stands for and where."""

    source_id: str
    primary_id: str
    community: str


async def find_people(
    session: AsyncSession, driver_id: str, slug: str | None, external_ids: Sequence[str]
) -> list[Person]:
    """The people these MetagovIDs stand for, in their order, each id once.

    Raises NotFound for one that is unknown, another driver's, or not of the community `slug` (None: any of one's own).
    """
    query = _people(driver_id).where(MetagovID.id.in_(set(external_ids)))
    if slug is not None:
        query = query.where(Community.slug == slug)
    found = {row.id: Person(row.id, row.primary_id, row.slug) for row in await session.execute(query)}
    for external_id in external_ids:
        if external_id not in found:
            raise NotFound(f"you have no MetagovID {external_id!r}" + (f" in {slug!r}" if slug else ""))
    return [found[external_id] for external_id in dict.fromkeys(external_ids)]


def _people(driver_id: str) -> Select[str, str, str]:
    return (
        select(MetagovID.id, MetagovID.primary_id, Community.slug)
        .join(Community, Community.id == MetagovID.community_id)
        .where(Community.driver_id == driver_id, Community.deleted_at.is_(None))
    )


async def list_people(
    session: AsyncSession, driver_id: str, slug: str, wanted: AccountFilter, *, after: str | None, limit: int | None
) -> list[Person]:
    """A community's people with an account that fits (with no filter: all), oldest first, each by the primary id.

    Raises NotFound for the community, Invalid when there are more than MOST_USERS and no limit.
    """
    community_id = await session.scalar(
        select(Community.id).where(
            Community.slug == slug, Community.driver_id == driver_id, Community.deleted_at.is_(None)
        )
    )
    if community_id is None:
        raise NotFound(NO_COMMUNITY)
    query = (
        select(MetagovID.id)
        .where(MetagovID.community_id == community_id, MetagovID.id == MetagovID.primary_id)
        .where(MetagovID.id > after if after else true())
        .order_by(MetagovID.id)
        .limit(limit or MOST_USERS + 1)
    )
    conditions = wanted.conditions()
    if conditions:
        fits = _owners(*conditions).where(LinkedAccount.community_id == community_id)
        query = query.where(MetagovID.id.in_(fits))
    ids = (await session.scalars(query)).all()
    if limit is None and len(ids) > MOST_USERS:
        raise Invalid.field("/limit", f"there are more than {MOST_USERS:,}: ask page by page with limit and after")
    return [Person(external_id, external_id, slug) for external_id in ids]


def _owners(*conditions: ColumnElement[bool]) -> Select[str]:
    """The primary ids of those who have an account that fits."""
    return select(MetagovID.primary_id).join(LinkedAccount, LinkedAccount.metagov_id == MetagovID.id).where(*conditions)


async def with_accounts(
    session: AsyncSession, people: Sequence[Person], wanted: AccountFilter | None = None
) -> list[UserOut]:
    """People with all their accounts; with `wanted`, only those of whom one account fits."""
    primaries = {person.primary_id for person in people}
    conditions = wanted.conditions() if wanted else []
    if conditions:
        fitting = set(await session.scalars(_owners(MetagovID.primary_id.in_(primaries), *conditions)))
        people = [person for person in people if person.primary_id in fitting]
        primaries = fitting
    accounts = await _accounts(session, primaries)
    return [
        UserOut(
            source_ID=person.source_id,
            primary_ID=person.primary_id,
            linked_accounts=[wire(row, person.primary_id, person.community) for row in accounts[person.primary_id]],
        )
        for person in people
    ]


async def find_account(
    session: AsyncSession, person: Person, platform_type: str, community_platform_id: str | None
) -> AccountOut:
    """A person's account on a platform, of several the one that was linked first. Raises NotFound."""
    for row in (await _accounts(session, [person.primary_id]))[person.primary_id]:
        if row.platform_type == platform_type and community_platform_id in (None, row.community_platform_id):
            return wire(row, person.primary_id, person.community)
    raise NotFound(f"{person.source_id!r} has no such account")


async def _accounts(session: AsyncSession, primaries: Iterable[str]) -> defaultdict[str, list[LinkedAccount]]:
    """Accounts by their owners' primary ids, those that were linked first coming first."""
    found: defaultdict[str, list[LinkedAccount]] = defaultdict(list)
    rows = await session.execute(
        select(LinkedAccount, MetagovID.primary_id)
        .join(MetagovID, MetagovID.id == LinkedAccount.metagov_id)
        .where(MetagovID.primary_id.in_(list(primaries)))
        .order_by(LinkedAccount.id)
    )
    for row, primary_id in rows:
        found[primary_id].append(row)
    return found


def wire(row: LinkedAccount, primary_id: str, community: str) -> AccountOut:
    """An account as drivers see it."""
    return AccountOut.model_validate(
        {
            "external_id": primary_id,
            "community": community,
            "community_slug": community,
            "platform_type": row.platform_type,
            "platform_identifier": row.platform_identifier,
            "community_platform_id": row.community_platform_id or None,
            "custom_data": row.custom_data,
            "link_type": row.link_type,
            "link_quality": row.link_quality,
        }
    )
