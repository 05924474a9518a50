"""The wire shape of a call to an action."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from app.core.http import Body
from app.runtime.schemas import PlatformId


class ActionCall(Body):
    """`parameters` as the action's schema says; `community_platform_id` where the community has several instances."""

    parameters: dict[str, Any] = Field(default_factory=dict)
    community_platform_id: PlatformId | None = None
