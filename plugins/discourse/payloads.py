"""Reading a forum's webhooks: pure functions of the request's bytes, which may be anybody's.

The body is signed, `{"post": {…}}`, and the headers are not: what it is about stands in the body, and only the event's
name in `X-Discourse-Event`. Source: app/jobs/regular/emit_web_hook_event.rb of discourse/discourse.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from metagov_sdk import Dirty, HookRequest, Initiator, Rejected, Reply

_NAME = re.compile(r"[a-z][a-z_]{0,99}")
_PONG = Reply(200, b"pong", (("content-type", "text/plain"),), store=False)
_MIRRORED = ("post", "topic", "user")
_LONGEST_STAMP = 100


@dataclass(frozen=True, slots=True)
class Notice:
    """What a webhook says: the object of this kind, and what happened to it."""

    kind: str
    event: str
    object: dict[str, Any]

    @property
    def id(self) -> int | None:
        """The object's id; of a like, its post's."""
        found = _object(self.object, "post").get("id") if self.kind == "like" else self.object.get("id")
        return found if isinstance(found, int) and not isinstance(found, bool) else None


def read_notice(request: HookRequest) -> Notice:
    """The webhook, that is no ping. Raises Rejected."""
    event = request.headers.get("X-Discourse-Event") or ""
    if not _NAME.fullmatch(event):
        raise Rejected("the webhook has no X-Discourse-Event header that names an event")
    body = request.json()
    for kind, found in body.items():
        if _NAME.fullmatch(kind) and isinstance(found, dict):
            return Notice(kind, event, found)
    raise Rejected("the webhook's body holds no object")


def answer(request: HookRequest) -> Reply | None:
    """What the forum is answered at once: pong for the ping of its admin page."""
    return _PONG if request.json() == {"ping": "OK"} else None


def dedupe(request: HookRequest) -> str:
    """Equal for a webhook and its retries, whose `X-Discourse-Event-Id` is another each time. Raises Rejected.

    By forum, event, object and `updated_at`. Deleting and recovering leave `updated_at` as it is, and topics, people
    and likes tell none: there the body tells repetitions, which the forum sends again byte for byte.
    """
    notice = read_notice(request)
    moment = notice.object.get("updated_at")
    if not isinstance(moment, str) or len(moment) > _LONGEST_STAMP or not notice.event.endswith(("created", "edited")):
        moment = hashlib.sha256(request.body).hexdigest()
    forum = request.headers.get("X-Discourse-Instance") or ""
    told = "\n".join((forum, notice.event, notice.kind, str(notice.id), moment))
    return f"{notice.event}:{notice.id}:{hashlib.sha256(told.encode(errors='replace')).hexdigest()[:32]}"


def marks(notice: Notice) -> Iterator[Dirty]:
    """The rows of the mirror that have changed."""
    if notice.id is None:
        return
    if notice.kind in _MIRRORED:
        yield Dirty(notice.kind, (str(notice.id),))
    elif notice.kind == "like":
        yield Dirty("post", (str(notice.id),))


def author(notice: Notice) -> tuple[str, str] | None:
    """The id and user name of who caused it, where the webhook tells: who edits or deletes is not told."""
    told = notice.object
    if notice.kind == "like":
        who = _object(told, "user")
        number, name = who.get("id"), who.get("username")
    elif notice.event == "post_created":
        number, name = told.get("user_id"), told.get("username")
    elif notice.event == "topic_created":
        who = _object(told, "created_by") or _object(_object(told, "details"), "created_by")
        number, name = who.get("id", told.get("user_id")), who.get("username")
    elif notice.event == "user_created":
        number, name = told.get("id"), told.get("username")
    else:
        return None
    if not isinstance(number, int) or isinstance(number, bool):
        return None
    return str(number), name if isinstance(name, str) else ""


def initiator(notice: Notice, api_username: str) -> Initiator | None:
    """Who caused the event, by Discourse's number, which outlives a change of name."""
    found = author(notice)
    if found is None:
        return None
    ours = found[1].lower() == api_username.lower()
    return Initiator(user_id=found[0], provider="discourse", is_metagov_bot=ours)


def _object(value: dict[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}
