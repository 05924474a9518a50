"""Events: what a plugin tells drivers has happened on its platform."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import ConfigDict, Field, JsonValue

from metagov_sdk.models import Model


class Initiator(Model):
    """Who caused an event, as the platform names them."""

    user_id: str
    provider: str
    is_metagov_bot: bool = False


class Event(Model):
    """One kind of event: `event_type` names it, the fields are its `data`.

    Subclass it per kind. Unknown fields of a platform's object are kept: set `extra="allow"` where that is wanted.
    """

    event_type: ClassVar[str]

    def wire_type(self) -> str:
        """The `event_type` drivers see."""
        return self.event_type

    def wire_data(self) -> dict[str, Any]:
        """The `data` drivers see, as JSON values."""
        return self.model_dump(mode="json", by_alias=True)


class OpenEvent(Event):
    """A family of events whose types the platform keeps adding to (GitHub's webhooks); `data` is its own body."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_type: ClassVar[str] = "*"
    kind: str = Field(min_length=1, max_length=200)
    data: dict[str, JsonValue]

    def wire_type(self) -> str:
        return self.kind

    def wire_data(self) -> dict[str, Any]:
        return dict(self.data)
