"""Accounts: the people of a platform, linked to the MetagovIDs that tell which accounts are one person's."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

LinkType = Literal["oauth", "manual admin", "email matching", "unknown"]
"""How it is known whose account it is."""
LinkQuality = Literal["confirmed (strong)", "confirmed (weak)", "unconfirmed", "unknown"]
"""How well it is known, best first."""

LONGEST_IDENTIFIER = 500
"""Characters of a platform's name for an account."""
LONGEST_CUSTOM_DATA = 16 * 1024
"""Bytes of `custom_data` as JSON."""


@dataclass(frozen=True, slots=True)
class AccountLink:
    """A link on its way out of a call. Without `external_id` the account's own person is meant, or a new one."""

    platform_identifier: str
    external_id: str | None = None
    link_type: LinkType | None = None
    link_quality: LinkQuality | None = None
    custom_data: dict[str, Any] | None = field(default=None, repr=False)


class Accounts:
    """The accounts of the plugin's platform, as `self.accounts`."""

    def __init__(self, links: list[AccountLink], *, may_link: bool = True) -> None:
        self._links = links
        self._may_link = may_link

    def link(
        self,
        platform_identifier: str,
        *,
        external_id: str | None = None,
        link_type: LinkType | None = None,
        link_quality: LinkQuality | None = None,
        custom_data: dict[str, Any] | None = None,
    ) -> None:
        """Say whose an account of the platform is; committed with the call.

        platform_identifier  the platform's id of the account, as events name it in `Initiator.user_id`.
        external_id          the person's MetagovID. Without it, the one the account is linked to; a new one if none.
        link_quality         never lowers what is known already.
        custom_data          what else to keep of the account (a display name); replaces what was kept.

        An account that is another person's stays theirs: only a driver can move it. Raises ValueError for what cannot
        be kept, RuntimeError in an unsigned hook.
        """
        if not self._may_link:
            raise RuntimeError("an unsigned hook may only wake; it can link nothing")
        check_identifier(platform_identifier)
        if custom_data is not None:
            check_custom_data(custom_data)
        self._links.append(AccountLink(platform_identifier, external_id, link_type, link_quality, custom_data))


def check_identifier(identifier: str) -> None:
    """Raises ValueError for what cannot name an account."""
    if not 1 <= len(identifier) <= LONGEST_IDENTIFIER:
        raise ValueError(f"a platform_identifier has 1 to {LONGEST_IDENTIFIER} characters, this one {len(identifier)}")
    if "\0" in identifier or any("\ud800" <= character <= "\udfff" for character in identifier):
        raise ValueError("a platform_identifier cannot hold NUL or half a surrogate pair")


def check_custom_data(data: dict[str, Any]) -> None:
    """Raises ValueError for what JSON cannot hold, and for too much of it."""
    try:
        # Half a surrogate pair is refused by the encoding, NaN and infinity by the argument.
        size = len(json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode())
    except (TypeError, ValueError) as error:
        raise ValueError("custom_data should be an object of JSON values") from error
    if size > LONGEST_CUSTOM_DATA:
        raise ValueError(f"custom_data may be at most {LONGEST_CUSTOM_DATA:,} bytes of JSON, this is {size:,}")
