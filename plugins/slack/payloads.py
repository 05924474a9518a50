"""Reading what Slack posts: pure functions of the request's bytes, which may be anybody's.

One URL takes three kinds: events (JSON), interactions (a form's field `payload`) and slash commands (a form). The body
itself tells which: the signature covers it, and does not cover the Content-Type header, nor those of retries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from metagov_sdk import HookRequest, Rejected, Reply

Kind = Literal["event", "interaction", "command", "check"]
"""A check asks whether the URL's certificate is good, and for nothing else."""

MASK = ("/token", "/response_url", "/trigger_id", "/payload/token", "/payload/response_url", "/payload/trigger_id")
"""What is secret in a stored webhook: Slack's old verification token, and what lets one answer for the app."""
SECRETS = frozenset({"token", "response_url", "response_urls", "trigger_id"})
"""The same, as fields that events leave out."""
_LATEST = 4_102_444_800


@dataclass(frozen=True, slots=True)
class Payload:
    """A webhook that was read."""

    kind: Kind
    body: dict[str, Any]


def read(request: HookRequest) -> Payload:
    """What was posted. Raises Rejected."""
    if request.body.lstrip()[:1] == b"{":
        return Payload("event", request.json())
    form = request.form()
    if "payload" in form:
        return Payload("interaction", HookRequest(form["payload"].encode("utf-8", "surrogatepass")).json())
    if "command" in form:
        return Payload("command", dict(form))
    if "ssl_check" in form:
        return Payload("check", dict(form))
    raise Rejected("the webhook's body is no event, interaction or slash command of Slack's")


def teams(request: HookRequest) -> list[str]:
    """The installs that it is for: workspaces, or an organization that has the app as a whole. Raises Rejected.

    An event's `team_id` may be another workspace than the app's, where a channel is shared; its authorizations name
    the install that it was sent for. Source: https://docs.slack.dev/apis/events-api (“Authorizations”).
    """
    payload = read(request)
    body = payload.body
    if payload.kind == "event":
        authorizations = body.get("authorizations")
        if isinstance(authorizations, list) and authorizations:
            return _ids(*(_install(one) for one in authorizations if isinstance(one, dict)))
        return _ids(body.get("team_id"))
    if payload.kind in ("command", "check"):
        return _ids(_install(body))
    team, enterprise, user = (_object(body, name) for name in ("team", "enterprise", "user"))
    return _ids(
        _install(
            {
                "is_enterprise_install": body.get("is_enterprise_install"),
                "enterprise_id": enterprise.get("id") or team.get("enterprise_id"),
                "team_id": team.get("id") or user.get("team_id"),
            }
        )
    )


def repeat_key(request: HookRequest) -> str:
    """What is the same when Slack sends something again: an event's id, an interaction's trigger, or the body."""
    try:
        body = read(request).body
    except Rejected:
        body = {}
    for name in ("event_id", "trigger_id"):
        if isinstance(body.get(name), str) and body[name]:
            return f"{name}:{body[name]}"
    return f"body:{hashlib.sha256(request.body).hexdigest()}"


def answer(request: HookRequest) -> Reply:
    """What Slack is answered at once: a challenge for a URL being set up, else nothing but 200. Raises Rejected."""
    payload = read(request)
    if payload.body.get("type") == "url_verification" and payload.kind == "event":
        challenge = str(payload.body.get("challenge", "")).encode("utf-8", "replace")
        return Reply(200, challenge, (("content-type", "text/plain"),), store=False)
    return Reply(200, store=payload.kind != "check")


def without_secrets(body: Mapping[str, Any]) -> dict[str, Any]:
    """The payload as drivers may have it."""
    return {name: value for name, value in body.items() if name not in SECRETS}


def actor_of(event: Mapping[str, Any]) -> str | None:
    """Who caused an event: a person, else a bot by its own id; None where the event names nobody."""
    for place in (event, _object(event, "message"), _object(event, "channel")):
        for name in ("user", "user_id", "creator"):
            found = place.get(name)
            found = found.get("id") if isinstance(found, dict) else found
            if isinstance(found, str) and found:
                return found
    bot = event.get("bot_id")
    return bot if isinstance(bot, str) and bot else None


def is_own(body: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    """Whether our own app caused an event, by the app's id or by the bot user that it was sent for."""
    app = body.get("api_app_id")
    for place in (event, _object(event, "message")):
        if isinstance(app, str) and app in (place.get("app_id"), _object(place, "bot_profile").get("app_id")):
            return True
    authorizations = body.get("authorizations")
    if not isinstance(authorizations, list):
        return False
    ours = [one.get("user_id") for one in authorizations if isinstance(one, dict) and one.get("is_bot")]
    return actor_of(event) in ours


def happened_at(body: Mapping[str, Any]) -> datetime | None:
    """When an event happened, as Slack says it."""
    seconds = body.get("event_time")
    if type(seconds) is not int or not 0 < seconds < _LATEST:
        return None
    return datetime.fromtimestamp(seconds, UTC)


def _install(named: Mapping[str, Any]) -> object:
    whole = named.get("is_enterprise_install") in (True, "true")
    return named.get("enterprise_id") if whole else named.get("team_id")


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = body.get(name)
    return found if isinstance(found, dict) else {}


def _ids(*found: object) -> list[str]:
    return list(dict.fromkeys(item for item in found if isinstance(item, str) and item))
