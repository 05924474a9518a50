"""Reading GitHub's webhooks: pure functions of the request's bytes, which may be anybody's."""

from __future__ import annotations

import re
from typing import Any

from metagov_sdk import HookRequest, Initiator, Rejected, Reply

_EVENT = re.compile(r"[a-z][a-z_]{0,99}")
_FORM = b"payload="
_ENDS = {
    "deleted": "the GitHub App was uninstalled from the account; install it again, then enable the plugin again",
    "suspend": "the GitHub App was suspended by the account; have it unsuspended, then enable the plugin again",
}
_PONG = Reply(200, b"pong", (("content-type", "text/plain"),), store=False)


def read_payload(request: HookRequest) -> dict[str, Any]:
    """The webhook's JSON object, sent as such or as the form field `payload`. Raises Rejected.

    The body itself tells which: its signature covers it, and does not cover the Content-Type header.
    Source: https://docs.github.com/webhooks/using-webhooks/creating-webhooks ("Content type").
    """
    if not request.body.startswith(_FORM):
        return request.json()
    return HookRequest(request.form()["payload"].encode()).json()


def installations(request: HookRequest) -> list[str]:
    """The installation that the webhook names; none for a repository's or an organization's own webhook.

    Raises Rejected for a body that cannot be read.
    """
    installation = read_payload(request).get("installation")
    number = installation.get("id") if isinstance(installation, dict) else None
    return [str(number)] if isinstance(number, int) and not isinstance(number, bool) else []


def end_of_access(payload: dict[str, Any]) -> str | None:
    """Why the app has no access to the account any more; None for every other webhook.

    Told by the body alone, as the header that names the event is not signed: only webhooks about the installation
    itself have all of it, with the app's id. Source: `installation` in GitHub's "Webhook events and payloads".
    """
    installation = payload.get("installation")
    if not isinstance(installation, dict) or "app_id" not in installation or "repository" in payload:
        return None
    return _ENDS.get(str(payload.get("action")))


def answer(request: HookRequest) -> Reply | None:
    """What GitHub is answered at once: pong for the ping that follows a webhook's creation."""
    return _PONG if request.headers.get("X-GitHub-Event") == "ping" else None


def event_kind(request: HookRequest, payload: dict[str, Any]) -> str:
    """`issues.opened`, `push`: the event's name, and the action's where there is one. Raises Rejected."""
    event = request.headers.get("X-GitHub-Event") or ""
    if not _EVENT.fullmatch(event):
        raise Rejected("the webhook has no X-GitHub-Event header that names an event")
    action = payload.get("action")
    if isinstance(action, str) and _EVENT.fullmatch(action):
        return f"{event}.{action}"
    return event


def initiator(payload: dict[str, Any], app_slug: str | None) -> Initiator | None:
    """Who caused the event, by GitHub's numeric user id, which outlives a change of login."""
    sender = payload.get("sender")
    if not isinstance(sender, dict) or not isinstance(sender.get("id"), int):
        return None
    login = str(sender.get("login", ""))
    ours = app_slug is not None and sender.get("type") == "Bot" and login.lower() == f"{app_slug}[bot]".lower()
    return Initiator(user_id=str(sender["id"]), provider="github", is_metagov_bot=ours)
