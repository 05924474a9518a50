"""Calling Slack's Web API: arguments in a form, answers that say `ok`, lists in pages."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import httpx
from pydantic import JsonValue

from metagov_sdk import Limit, Rejected, Retry, Unauthorized
from metagov_sdk.limits import retry_after

_VOID_CREDENTIALS = frozenset(
    {"account_inactive", "invalid_auth", "not_authed", "token_expired", "token_revoked", "org_login_required"}
)
_UNCLEAR = frozenset({"fatal_error", "internal_error", "service_unavailable"})
"""Of these Slack's reference says that some of what was asked may have been done."""
_WORD = re.compile(r"[a-z0-9_]{1,100}")
_MENDS = {
    "cant_update_message": "it is not the app's own message",
    "channel_not_found": "there is no such channel, or it is private and the app is not in it: give the channel's id, "
    "and invite the app",
    "is_archived": "the channel is archived",
    "msg_blocks_too_long": "the message is too long",
    "msg_too_long": "the message is too long",
    "message_not_found": "the message was deleted",
    "no_text": "give it text, blocks or attachments",
    "not_in_channel": "invite the app to the channel",
    "too_many_users": "a direct message has eight people at most",
    "unknown_method": "Slack has no such method",
    "user_not_found": "there is no such person in the workspace",
}


class SlackRefused(Rejected):
    """An answer that is not `ok`; `error` is Slack's word for why."""

    def __init__(self, error: str, reason: str) -> None:
        super().__init__(reason)
        self.error = error


class SlackFailed(httpx.TransportError):
    """Slack broke down over a request, and may have done what it was asked.

    It passes for a broken connection, as the gateway treats it: it looks what became of it before it asks again.
    """


class SlackApi:
    """The Web API by the plugin's client, which adds the token and keeps to the limits."""

    def __init__(self, http: httpx.AsyncClient, page_size: int) -> None:
        self._http = http
        self._page_size = page_size

    async def call(self, method: str, /, **fields: Any) -> dict[str, Any]:
        """The answer of a method; arguments are JSON values, and those that are None are left out.

        Raises SlackRefused, Unauthorized, Retry, SlackFailed, and what httpx raises.
        """
        return read_answer(method, await self._http.post(method, data=as_form(fields)))

    async def call_joining(self, method: str, /, **fields: Any) -> dict[str, Any]:
        """The same; where the app is not in the public channel that is meant, it joins it first."""
        try:
            return await self.call(method, **fields)
        except SlackRefused as refused:
            channel = fields.get("channel")
            if refused.error != "not_in_channel" or not isinstance(channel, str):
                raise
            await self._join(channel, refused)
        return await self.call(method, **fields)

    async def pages(self, method: str, key: str, /, **fields: Any) -> AsyncIterator[list[Any]]:
        """The lists under `key`, a page at a time, to the end."""
        cursor: str | None = None
        while True:
            answer = await self.call_joining(method, **fields, limit=self._page_size, cursor=cursor)
            yield answer.get(key) or []
            after = (answer.get("response_metadata") or {}).get("next_cursor") or None
            if after is None or after == cursor:
                return
            cursor = after

    async def direct(self, users: Sequence[str]) -> str:
        """The id of the conversation with these people, opened if need be; the same each time."""
        opened = await self.call("conversations.open", users=",".join(users))
        return str(opened["channel"]["id"])

    async def _join(self, channel: str, refused: SlackRefused) -> None:
        try:
            await self.call("conversations.join", channel=channel)
        except SlackRefused:
            # A private channel, most likely: what was wrong at first says more than that it cannot be joined.
            raise refused from None


def as_form(fields: Mapping[str, JsonValue]) -> dict[str, str]:
    """Arguments as the form that every method takes: words in a list by commas, all other structures as JSON.

    Source: https://docs.slack.dev/apis/web-api
    """
    return {name: _as_field(value) for name, value in fields.items() if value is not None}


def _as_field(value: JsonValue) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(item, str) and "," not in item for item in value):
        return ",".join(str(item) for item in value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def read_answer(method: str, response: httpx.Response) -> dict[str, Any]:
    """The answer's object. Raises as `SlackApi.call`."""
    status = response.status_code
    if status == 429:
        raise Retry("Slack asks to wait", after=retry_after(response.headers) or 1)
    if status >= 500:
        raise SlackFailed(f"Slack answered {method} with {status}")
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
        raise Rejected(f"Slack answered {method} with status {status} and something else than its API does")
    if answer["ok"]:
        return answer
    raise _error(method, answer, response)


def _error(method: str, answer: Mapping[str, Any], response: httpx.Response) -> Exception:
    named = answer.get("error")
    error = named if isinstance(named, str) and _WORD.fullmatch(named) else "unknown_error"
    if error in _VOID_CREDENTIALS:
        return Unauthorized(f"Slack no longer accepts the app's token ({error}): install the app again")
    if error in ("ratelimited", "rate_limited"):
        return Retry("Slack asks to wait", after=retry_after(response.headers) or 1)
    if error in _UNCLEAR:
        return SlackFailed(f"Slack answered {method} with {error}")
    mend = _MENDS.get(error) or _told(answer)
    return SlackRefused(error, f"Slack refused {method}: {error}" + (f" ({mend})" if mend else ""))


def _told(answer: Mapping[str, Any]) -> str:
    """What else Slack says of an error."""
    if isinstance(needed := answer.get("needed"), str):
        return f"the app lacks the scope {needed[:100]}: add it in the app's settings and install the app again"
    metadata = answer.get("response_metadata")
    messages = metadata.get("messages") if isinstance(metadata, dict) else None
    if not isinstance(messages, list):
        return ""
    return "; ".join(str(message) for message in messages[:5])[:500]


_MINUTE = 60.0
_TIERS = {2: (17, 3), 3: (45, 5), 4: (90, 10)}
"""Rate a minute and burst; together what Slack's tier allows in any one minute (20, 50, 100)."""
_TIER_OF = {
    "chat.postEphemeral": 4,
    "conversations.list": 2,
    "conversations.members": 4,
    "reactions.remove": 2,
    "users.info": 4,
    "users.list": 2,
    "views.open": 4,
    "views.publish": 4,
}
_READS = frozenset({"conversations.history", "conversations.replies"})


def limits_of(method: str, channel: str, reads_per_minute: float) -> list[Limit]:
    """How fast a method may be called in one workspace; tier 3 for those whose tier is not known here.

    Source: https://docs.slack.dev/apis/web-api/rate-limits and each method's page.
    """
    if method == "chat.postMessage":
        return [Limit(f"chat.postMessage:{channel}", rate=1, per=1, burst=2)]
    if method in _READS:
        burst = 5 if reads_per_minute >= 50 else 1
        rate = reads_per_minute - burst if reads_per_minute > burst else reads_per_minute
        return [Limit(method, rate=rate, per=_MINUTE, burst=burst)]
    rate, burst = _TIERS[_TIER_OF.get(method, 3)]
    return [Limit(method, rate=rate, per=_MINUTE, burst=burst)]
