"""The wire shapes of communities and instances."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from app.core.http import Answer, Body
from app.runtime.schemas import PlatformId

Slug = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
ReadableName = Annotated[str, StringConstraints(max_length=200)]


class PluginIn(Body):
    """A plugin to enable for a community."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    config: dict[str, Any] = Field(default_factory=dict)
    community_platform_id: PlatformId | None = None


class CommunityIn(Body):
    """A community as wanted. With `plugins`, that is the whole set; without, the plugins stay as they are."""

    name: Slug | None = None
    """The slug; if present, equal to the path's."""
    slug: Slug | None = None
    readable_name: ReadableName = ""
    plugins: Annotated[list[PluginIn], Field(max_length=100)] | None = None


class InstanceOut(Answer):
    """A plugin enabled for a community. Secrets in `config` are masked."""

    id: str
    name: str
    """The plugin's name."""
    config: dict[str, Any]
    community: str
    community_platform_id: str | None
    auth_type: Literal["none", "api_key", "oauth"]
    status: Literal["enabled", "disabled", "needs_auth", "error"]


class CommunityOut(Answer):
    """A community with its plugin instances."""

    slug: str
    name: str
    readable_name: str
    plugins: list[InstanceOut]


class CommunitiesPage(Answer):
    """A driver's communities, by slug."""

    communities: list[CommunityOut]
    next: str | None


class PluginsPage(Answer):
    """A community's plugin instances."""

    plugins: list[InstanceOut]
    next: str | None


class HooksOut(Answer):
    """The paths platforms post to."""

    hooks: list[str]


class InstancePatch(Body):
    """What to change: `config` is merged into the stored one (RFC 7396, null removes a field)."""

    config: dict[str, Any] | None = None
    enabled: bool | None = None
