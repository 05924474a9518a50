"""MetagovIDs: creating and merging them, linking and unlinking accounts. All within a driver's own communities."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.auth import NO_COMMUNITY, CommunityRef
from app.accounts.models import Community
from app.core.errors import Conflict, NotFound
from app.identity import links
from app.identity.links import Account, Held
from app.identity.models import LinkedAccount, MetagovID
from app.identity.schemas import LinkIn, UnlinkIn
from metagov_sdk.accounts import AccountLink


async def hold_community(session: AsyncSession, driver_id: str, slug: str) -> CommunityRef:
    """A driver's live community, which stays that until the transaction ends. Raises NotFound."""
    row = await session.scalar(
        select(Community)
        .where(Community.slug == slug, Community.driver_id == driver_id, Community.deleted_at.is_(None))
        .with_for_update(read=True, key_share=True)
    )
    if row is None:
        raise NotFound(NO_COMMUNITY)
    return CommunityRef(row.id, row.slug, row.readable_name)


async def create_ids(session: AsyncSession, driver_id: str, slug: str, count: int) -> list[str]:
    """New MetagovIDs of a community. Raises NotFound."""
    community = await hold_community(session, driver_id, slug)
    return await links.create_ids(session, [community.id] * count)


async def merge(session: AsyncSession, driver_id: str, primary_id: str, secondary_id: str) -> None:
    """Have one MetagovID, and all that stand for the same person, stand for another's person for good.

    Two that are one person already stay as they are, whichever of them is primary. Raises NotFound, and Conflict for
    ids of two communities.
    """
    community_id = await _community_of_both(session, driver_id, primary_id, secondary_id)
    # One merge per community at a time: two that go in opposite directions would else make a circle.
    await session.execute(select(Community.id).where(Community.id == community_id).with_for_update(key_share=True))
    rows = await session.execute(
        select(MetagovID.id, MetagovID.primary_id).where(MetagovID.id.in_((primary_id, secondary_id)))
    )
    primaries: dict[str, str] = {row.id: row.primary_id for row in rows}
    for external_id in (primary_id, secondary_id):
        if external_id not in primaries:
            raise _no_id_of_yours(external_id)
    if primaries[primary_id] != primaries[secondary_id]:
        merged = select(MetagovID.id).where(MetagovID.primary_id == primaries[secondary_id])
        # In the order in which links hold them.
        ids = (await session.scalars(merged.order_by(MetagovID.id).with_for_update(key_share=True))).all()
        await session.execute(update(MetagovID).where(MetagovID.id.in_(ids)).values(primary_id=primaries[primary_id]))


async def _community_of_both(session: AsyncSession, driver_id: str, first: str, second: str) -> str:
    rows = await session.execute(
        select(MetagovID.id, MetagovID.community_id)
        .join(Community, Community.id == MetagovID.community_id)
        .where(MetagovID.id.in_((first, second)), Community.driver_id == driver_id, Community.deleted_at.is_(None))
    )
    communities: dict[str, str] = {row.id: row.community_id for row in rows}
    for external_id in (first, second):
        if external_id not in communities:
            raise _no_id_of_yours(external_id)
    if communities[first] != communities[second]:
        raise Conflict("the two MetagovIDs are of different communities; a person is merged within one")
    return communities[first]


def _no_id_of_yours(external_id: str) -> NotFound:
    return NotFound(f"you have no MetagovID {external_id!r}")


async def link_account(session: AsyncSession, driver_id: str, wanted: LinkIn) -> tuple[CommunityRef, Held]:
    """Link an account to a person, or change what is known of the link.

    Raises NotFound for the community and the person, Conflict when the account is another's and force is not asked for.
    """
    community = await hold_community(session, driver_id, wanted.community_slug)
    account = Account(
        community.id, wanted.platform_type, wanted.community_platform_id or "", wanted.platform_identifier
    )
    link = AccountLink(
        wanted.platform_identifier, wanted.external_id, wanted.link_type, wanted.link_quality, wanted.custom_data
    )
    held = (await links.link_all(session, [(account, link)], force=wanted.force))[account]
    if await _primary(session, wanted.external_id) != held.primary_id:
        raise Conflict(
            f"the account is linked to {held.primary_id!r}: if both are one person, merge the two; to take it from "
            "them, unlink it first or send force",
            slug="linked-to-another",
        )
    return community, held


async def _primary(session: AsyncSession, external_id: str) -> str | None:
    return await session.scalar(select(MetagovID.primary_id).where(MetagovID.id == external_id))


async def unlink_account(session: AsyncSession, driver_id: str, wanted: UnlinkIn) -> tuple[CommunityRef, Held]:
    """Take an account away from its person; returns it as it was.

    Without a community_platform_id the link to the platform as a whole is meant, or else the only one there is. Raises
    NotFound when there is none (or it is not `external_id`'s), Conflict when it cannot be told which.
    """
    community = await hold_community(session, driver_id, wanted.community_slug)
    key = Account(community.id, wanted.platform_type, "", wanted.platform_identifier).key
    query = (
        select(LinkedAccount, MetagovID.primary_id)
        .join(MetagovID, MetagovID.id == LinkedAccount.metagov_id)
        .where(LinkedAccount.community_id == community.id, LinkedAccount.key == key)
        .order_by(LinkedAccount.id)
        .with_for_update(of=LinkedAccount)
    )
    if wanted.community_platform_id is not None:
        query = query.where(LinkedAccount.community_platform_id == wanted.community_platform_id)
    found = [Held(row, primary_id) for row, primary_id in await session.execute(query)]
    if wanted.external_id is not None:
        primary_id = await _primary(session, wanted.external_id)
        found = [held for held in found if held.primary_id == primary_id]
    held = _meant(found)
    await session.delete(held.row)
    return community, held


def _meant(found: Sequence[Held]) -> Held:
    """The account an unlinking means, of those that fit."""
    of_the_whole = [held for held in found if not held.row.community_platform_id]
    if not found:
        raise NotFound("there is no such account linked in the community")
    if len(found) > 1 and not of_the_whole:
        raise Conflict(
            f"the account is linked in {len(found)} places of the platform; say which with community_platform_id",
            slug="ambiguous-account",
        )
    return of_the_whole[0] if of_the_whole else found[0]


async def link_emitted(session: AsyncSession, wanted: Sequence[tuple[Account, AccountLink]]) -> None:
    """Write the links that plugins made; of communities that were deleted meanwhile, none.

    Raises NotFound when one names a MetagovID that its community does not have.
    """
    live = set(
        await session.scalars(
            select(Community.id)
            .where(Community.id.in_({account.community_id for account, _ in wanted}), Community.deleted_at.is_(None))
            .order_by(Community.id)
            .with_for_update(read=True, key_share=True)
        )
    )
    await links.link_all(session, [(account, link) for account, link in wanted if account.community_id in live])


async def forget_community(session: AsyncSession, community_id: str) -> None:
    """Delete all MetagovIDs and linked accounts of a community whose row the caller has locked."""
    # First, so that the ids that follow have nothing to cascade to, one by one.
    await session.execute(delete(LinkedAccount).where(LinkedAccount.community_id == community_id))
    await session.execute(delete(MetagovID).where(MetagovID.community_id == community_id))
