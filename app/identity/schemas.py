"""The wire shapes of MetagovIDs and linked accounts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints

from app.core.http import Answer, Body
from metagov_sdk.accounts import LONGEST_IDENTIFIER, LinkQuality, LinkType, check_custom_data

MOST_NEW_IDS = 1000

ExternalId = Annotated[str, StringConstraints(min_length=1, max_length=64)]
"""A MetagovID. Whatever else it is, it is not there."""
CommunitySlug = Annotated[str, StringConstraints(min_length=1, max_length=64)]
PlatformType = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_IDENTIFIER)]
PlatformId = Annotated[str, StringConstraints(max_length=500)]


def _checked(data: dict[str, Any]) -> dict[str, Any]:
    check_custom_data(data)
    return data


CustomData = Annotated[dict[str, Any], AfterValidator(_checked)]


class NewIdsIn(Body):
    """How many MetagovIDs to create."""

    community_slug: CommunitySlug
    count: Annotated[int, Field(ge=1, le=MOST_NEW_IDS)] | None = None
    """1 when absent."""


class MergeIn(Body):
    """Two MetagovIDs that are one person."""

    primary_instance_id: ExternalId
    """The one that stays."""
    secondary_instance_id: ExternalId
    """The one that stands for the primary from now on."""


class UnlinkIn(Body):
    """An account to take away from its person."""

    community_slug: CommunitySlug
    platform_type: PlatformType
    platform_identifier: Identifier
    community_platform_id: PlatformId | None = None
    external_id: ExternalId | None = None
    """If present, whose account it should be."""
    custom_data: CustomData | None = None
    """Not looked at; taken, so that what was linked can be sent again."""
    link_type: LinkType | None = None
    """Not looked at."""
    link_quality: LinkQuality | None = None
    """Not looked at."""


class LinkIn(Body):
    """An account to link to a person."""

    external_id: ExternalId
    """The person's MetagovID."""
    community_slug: CommunitySlug
    platform_type: PlatformType
    """The platform, by its plugin's name; events name it as `initiator.provider`."""
    platform_identifier: Identifier
    """The platform's id of the account; events name it as `initiator.user_id`."""
    community_platform_id: PlatformId | None = None
    """The team, guild or installation; absent: the platform as a whole."""
    custom_data: CustomData | None = None
    """Any JSON object of up to 16 KiB."""
    link_type: LinkType | None = None
    link_quality: LinkQuality | None = None
    force: bool = False
    """Lower the quality if that is what is sent, and take the account from whomever it is linked to."""


class AccountOut(Answer):
    """A linked account."""

    external_id: str
    """Its person's primary MetagovID."""
    community: str
    """Equal to `community_slug`."""
    community_slug: str
    platform_type: str
    platform_identifier: str
    community_platform_id: str | None
    custom_data: dict[str, Any]
    link_type: LinkType
    link_quality: LinkQuality


class UserOut(Answer):
    """A person: the MetagovID asked for, the one it stands for, and the accounts of all that were merged into that."""

    source_ID: str
    primary_ID: str
    linked_accounts: list[AccountOut]
