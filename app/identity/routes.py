"""HTTP for MetagovIDs and linked accounts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, status

from app.accounts.auth import Db, DriverId
from app.core.errors import Invalid
from app.identity import queries, service
from app.identity.queries import AccountFilter
from app.identity.schemas import (
    AccountOut,
    ExternalId,
    LinkIn,
    MergeIn,
    NewIdsIn,
    PlatformId,
    UnlinkIn,
    UserOut,
)
from metagov_sdk.accounts import LONGEST_IDENTIFIER, LinkQuality, LinkType

router = APIRouter(prefix="/api/internal/identity", tags=["identity"])

_MOST_IDS = 1000
_UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: {"description": "The community, the MetagovID or the account is unknown, or not yours."}
}

_Slug = Annotated[str | None, Query(max_length=64)]
_Id = Annotated[ExternalId, Query(description="A MetagovID.")]
_Platform = Annotated[str | None, Query(max_length=64)]
_PlatformId = Annotated[PlatformId | None, Query(description="The team, guild or installation.")]


def _one_slug(
    community: Annotated[_Slug, Query(description="The community's slug.")] = None,
    community_slug: Annotated[_Slug, Query(description="The same, by another name.")] = None,
) -> str | None:
    if community and community_slug and community != community_slug:
        raise Invalid.field("/community_slug", "should be equal to community")
    return community or community_slug


def _filter(
    platform_type: _Platform = None,
    community_platform_id: _PlatformId = None,
    platform_identifier: Annotated[str | None, Query(max_length=LONGEST_IDENTIFIER)] = None,
    link_type: LinkType | None = None,
    link_quality: LinkQuality | None = None,
) -> AccountFilter:
    return AccountFilter(platform_type, community_platform_id, platform_identifier, link_type, link_quality)


_Community = Annotated[str | None, Depends(_one_slug)]
_Filter = Annotated[AccountFilter, Depends(_filter)]


@router.post("/create_id", operation_id="create_id", status_code=status.HTTP_201_CREATED, responses=_UNKNOWN)
async def create_id(db: Db, driver_id: DriverId, wanted: NewIdsIn) -> list[str]:
    """Create MetagovIDs of a community: people of whom nothing is known yet."""
    async with db.begin() as session:
        return await service.create_ids(session, driver_id, wanted.community_slug, wanted.count or 1)


@router.post(
    "/merge_ids",
    operation_id="merge_ids",
    responses={**_UNKNOWN, 409: {"description": "The two are of different communities."}},
)
async def merge_ids(db: Db, driver_id: DriverId, wanted: MergeIn) -> UserOut:
    """Make two MetagovIDs one person, for good. The secondary goes on to work, and stands for the primary."""
    async with db.begin() as session:
        await service.merge(session, driver_id, wanted.primary_instance_id, wanted.secondary_instance_id)
        people = await queries.find_people(session, driver_id, None, [wanted.primary_instance_id])
        return (await queries.with_accounts(session, people))[0]


@router.post(
    "/link_account",
    operation_id="link_account",
    responses={**_UNKNOWN, 409: {"description": "The account is another person's."}},
)
async def link_account(db: Db, driver_id: DriverId, wanted: LinkIn) -> AccountOut:
    """Link an account to a person, or say more of a link: its quality rises, and falls only with `force`."""
    async with db.begin() as session:
        community, held = await service.link_account(session, driver_id, wanted)
        return queries.wire(held.row, held.primary_id, community.slug)


@router.post(
    "/unlink_account",
    operation_id="unlink_account",
    responses={**_UNKNOWN, 409: {"description": "It is not clear which account is meant."}},
)
async def unlink_account(db: Db, driver_id: DriverId, wanted: UnlinkIn) -> AccountOut:
    """Take an account away from its person. Answers it as it was; the MetagovID stays."""
    async with db.begin() as session:
        community, held = await service.unlink_account(session, driver_id, wanted)
        return queries.wire(held.row, held.primary_id, community.slug)


@router.get("/get_user", operation_id="get_user", responses=_UNKNOWN)
async def get_user(db: Db, driver_id: DriverId, external_id: _Id, community: _Community) -> UserOut:
    """The person behind a MetagovID, with all accounts."""
    async with db.begin() as session:
        people = await queries.find_people(session, driver_id, community, [external_id])
        return (await queries.with_accounts(session, people))[0]


@router.get("/get_users", operation_id="get_users", responses=_UNKNOWN)
async def get_users(
    db: Db,
    driver_id: DriverId,
    community: _Community,
    wanted: _Filter,
    after: Annotated[str | None, Query(max_length=64, description="The last `source_ID` of the page before.")] = None,
    limit: Annotated[int | None, Query(ge=1, le=500, description="How many at most; absent: all.")] = None,
) -> list[UserOut]:
    """A community's people, oldest first. With filters, those with an account that fits all of them."""
    if not community:
        raise Invalid.field("/community", "is missing; it names the community's slug")
    async with db.begin() as session:
        people = await queries.list_people(session, driver_id, community, wanted, after=after, limit=limit)
        return await queries.with_accounts(session, people)


@router.get("/filter_users_by_account", operation_id="filter_users_by_account", responses=_UNKNOWN)
async def filter_users_by_account(
    db: Db,
    driver_id: DriverId,
    external_id_list: Annotated[
        list[str], Query(description="MetagovIDs: the parameter repeated, or one with commas between them.")
    ],
    community: _Community,
    wanted: _Filter,
) -> list[UserOut]:
    """Of these people, those with an account that fits all filters, in their order."""
    named = [part.strip(" \"'") for value in external_id_list for part in value.strip("[]").split(",")]
    external_ids = [external_id for external_id in named if external_id]
    if len(external_ids) > _MOST_IDS:
        raise Invalid.field("/external_id_list", f"should name at most {_MOST_IDS:,} MetagovIDs")
    async with db.begin() as session:
        people = await queries.find_people(session, driver_id, community, external_ids)
        return await queries.with_accounts(session, people, wanted)


@router.get("/get_linked_account", operation_id="get_linked_account", responses=_UNKNOWN)
async def get_linked_account(
    db: Db,
    driver_id: DriverId,
    external_id: _Id,
    platform_type: Annotated[str, Query(max_length=64)],
    community: _Community,
    community_platform_id: _PlatformId = None,
) -> AccountOut:
    """A person's account on a platform; of several, the one that was linked first."""
    async with db.begin() as session:
        people = await queries.find_people(session, driver_id, community, [external_id])
        return await queries.find_account(session, people[0], platform_type, community_platform_id)
