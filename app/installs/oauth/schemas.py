"""The wire shapes of the exchange."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

from app.core.http import Answer, Body


class ExchangeIn(Body):
    """The code that came to the redirect URI."""

    code: Annotated[str, StringConstraints(min_length=1, max_length=200)]


class OAuthUserOut(Answer):
    """Who authorized."""

    user_id: str
    """The platform's id of the person, as events have it in `initiator.user_id`."""
    provider: str
    """The plugin."""
    name: str | None
    external_id: str
    """The person's MetagovID in the community; the account has been linked to it."""


class ExchangeOut(Answer):
    """What the code was worth. Tokens stay with the gateway."""

    plugin: str
    type: Literal["app", "user"]
    community: str
    """The slug; of a new community, if the visit named none."""
    community_platform_id: str | None
    instance: str | None
    """The instance's id; null for a login to a platform of which the community has several."""
    scopes: list[str]
    user: OAuthUserOut | None
    """Who it was, where the platform says."""
