"""What is posted: the body in the endpoint's format, and the headers of Standard Webhooks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from app.core.crypto import sign
from app.events.claim import Outgoing
from app.events.models import EventRow
from app.events.schemas import envelope

JSON = "application/json"
CLOUDEVENTS = "application/cloudevents+json"


def render(item: Outgoing, unseal: Callable[[str], Any]) -> tuple[bytes, dict[str, str]]:
    """The body and its headers, signed with each secret in force. The message id is equal in every attempt.

    Raises UnreadableSecret when `unseal` cannot open a secret because the key it was sealed with is gone.
    """
    message_id, content_type, value = _message(item)
    body = json.dumps(value, separators=(",", ":")).encode()
    timestamp = int(time.time())
    signatures = [sign(unseal(secret), message_id, timestamp, body) for secret in item.secrets]
    return body, {
        "content-type": content_type,
        "user-agent": "Metagov-Gateway",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }


def _message(item: Outgoing) -> tuple[str, str, Any]:
    """Message id, content type, content. A callback gets the bare Process, under an id of its own."""
    event = item.event
    if item.endpoint.kind == "callback":
        return item.id, JSON, event.data
    if item.endpoint.format == "cloudevents":
        return event.id, CLOUDEVENTS, cloud_event(event)
    return event.id, JSON, event_envelope(event)


def event_envelope(event: EventRow) -> dict[str, Any]:
    """An event as drivers get it."""
    return envelope(
        id=event.id,
        community=event.community,
        instance=event.instance_id,
        source=event.source,
        event_type=event.event_type,
        timestamp=event.timestamp,
        data=event.data,
        initiator=event.initiator,
    )


def cloud_event(event: EventRow) -> dict[str, Any]:
    """An event in CloudEvents 1.0's structured JSON (https://github.com/cloudevents/spec, `formats/json-format.md`).

    Extension attributes are named in lower-case letters and digits, hold strings or booleans, and are left out
    rather than null.
    """
    place = f"/communities/{quote(event.community, safe='')}" if event.community else ""
    who = event.initiator or {}
    extensions = {
        "community": event.community,
        "instance": event.instance_id,
        "initiatorid": who.get("user_id"),
        "initiatorprovider": who.get("provider"),
        "initiatorexternalid": who.get("external_id"),
        "initiatorisbot": who.get("is_metagov_bot"),
    }
    return {
        "specversion": "1.0",
        "id": event.id,
        "source": f"{place}/{quote(event.source, safe='')}",
        "type": f"{event.source}.{event.event_type}",
        "time": event_envelope(event)["timestamp"],
        "datacontenttype": JSON,
        **{name: value for name, value in extensions.items() if _is_attribute(value)},
        "data": event.data,
    }


def _is_attribute(value: Any) -> bool:
    """Whether the value may stand in an attribute: no control characters, surrogates or empty strings."""
    return isinstance(value, bool) or (isinstance(value, str) and value != "" and value.isprintable())
