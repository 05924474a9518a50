"""The wire shapes of events and endpoints."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from app.core.http import Answer, Body, Moment

Glob = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_.*?\-]+$")]
Url = Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=r"^[!-~]+$")]
Globs = Annotated[list[Glob], Field(max_length=100)]
Slugs = Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=200)]], Field(max_length=1000)]


class InitiatorOut(Answer):
    """Who caused an event."""

    user_id: str
    provider: str
    is_metagov_bot: bool | None = None
    external_id: str | None = None


class EventOut(Answer):
    """Something that happened in a community."""

    id: str
    community: str | None
    instance: str | None
    source: str
    """The plugin, or `metagov` for the gateway's own events."""
    event_type: str
    timestamp: datetime
    data: dict[str, Any]
    initiator: InitiatorOut | None


def envelope(*, timestamp: datetime, **fields: Any) -> dict[str, Any]:
    """An event as drivers get it, pulled or posted: the fields of EventOut as JSON values."""
    return {**fields, "timestamp": timestamp.astimezone(UTC).isoformat().replace("+00:00", "Z")}


class EventsPage(Answer):
    """Events in their order. `next` is never null: ask again with it for what comes later."""

    events: list[EventOut]
    next: str


class EndpointIn(Body):
    """An endpoint to register."""

    url: Url
    events: Globs | None = None
    """Globs over `<source>.<event_type>`; absent: all."""
    communities: Slugs | None = None
    """Community slugs; absent: all."""
    format: Literal["metagov", "cloudevents"] = "metagov"
    ordered: bool = False


class EndpointPatch(Body):
    """What to change; fields left out stay."""

    url: Url | None = None
    events: Globs | None = None
    communities: Slugs | None = None
    format: Literal["metagov", "cloudevents"] | None = None
    ordered: bool | None = None
    status: Literal["enabled", "disabled"] | None = None


class EndpointOut(Answer):
    """A registered endpoint."""

    id: str
    url: str
    events: list[str] | None
    communities: list[str] | None
    format: Literal["metagov", "cloudevents"]
    ordered: bool
    status: Literal["enabled", "disabled"]
    disabled_reason: str | None
    created_at: datetime


class NewEndpointOut(EndpointOut):
    """A registered endpoint with its signing secret, shown this once."""

    secret: str


class EndpointsPage(Answer):
    """A driver's endpoints."""

    endpoints: list[EndpointOut]
    next: str | None


class SecretOut(Answer):
    """A new signing secret, shown this once. The one before keeps signing beside it for 24 hours."""

    secret: str


class RecoverIn(Body):
    """What to make due again."""

    since: Moment
    """Deliveries made since then, with its UTC offset."""


class RecoveredOut(Answer):
    """What became due again."""

    recovered: int
    """How many deliveries."""


DeliveryStatus = Literal["pending", "delivered", "dead"]


class DeliveryOut(Answer):
    """An event on its way to an endpoint."""

    id: str
    endpoint: str
    """The endpoint's id; a callback URL has one of its own."""
    event_id: str
    status: DeliveryStatus
    attempts: int
    """How many there were."""
    next_at: datetime | None
    """When the next attempt is due; null when there is none."""


class DeliveriesPage(Answer):
    """A driver's deliveries, newest first."""

    deliveries: list[DeliveryOut]
    next: str | None


class AttemptOut(Answer):
    """One try to deliver."""

    at: datetime
    status: int | None
    """The HTTP status of the answer; null when there was none."""
    latency_ms: int
    error: str | None
    """Why there was no complete answer."""
    response_text: str | None
    """The first 64 KiB of the answer's body."""


class AttemptsPage(Answer):
    """A delivery's attempts, oldest first."""

    attempts: list[AttemptOut]
    next: str | None
