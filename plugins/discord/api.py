"""Asking Discord's REST API, and what its refusals mean in plain words.

Source: docs.discord.com/developers/topics/opcodes-and-status-codes
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
from pydantic import JsonValue

from metagov_sdk import NoAccess, Rejected, Retry, Unauthorized
from metagov_sdk.limits import bounded_seconds, retry_after

UNKNOWN_CHANNEL, UNKNOWN_GUILD, UNKNOWN_MESSAGE, UNKNOWN_WEBHOOK = 10003, 10004, 10008, 10015
MISSING_ACCESS, MISSING_PERMISSIONS, INVALID_WEBHOOK_TOKEN = 50001, 50013, 50027
POLL_EXPIRED = 520001

_MENDS = {
    MISSING_ACCESS: "the bot may not see it; give the bot's role View Channel there",
    MISSING_PERMISSIONS: "the bot's role lacks a permission for that; the plugin's page lists them",
    UNKNOWN_CHANNEL: "there is no such channel, or the bot cannot see it",
    UNKNOWN_GUILD: "the bot is not in the server; install it again",
}
_LONGEST_REASON = 400
_MOST_FIELDS = 3


class Refused(Rejected):
    """Discord said no. `code` is its own number for the reason, 0 where it gave none."""

    def __init__(self, status: int, code: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.code = code


class Unseen(Refused, NoAccess):
    """The bot may not see it, or not do it: 403."""


class Unclear(httpx.TransportError):
    """Discord failed while it was asked to make something: whether it did is unknown, as after a lost answer."""


async def ask(
    http: httpx.AsyncClient,
    method: str,
    path: str,
    *,
    json: JsonValue = None,
    query: Mapping[str, str | list[str]] | None = None,
) -> Any:
    """Discord's answer, as JSON values (None for an empty one).

    Raises Refused, Unauthorized, and Retry where asking again can do no harm. After a POST that was not answered it
    raises httpx.TransportError instead: nobody knows whether the message is there.
    """
    body: dict[str, Any] = {} if json is None else {"json": json}
    response = await http.request(method, path, params=query, **body)
    status = response.status_code
    if 200 <= status < 300:
        return _parsed(response) if response.content else None
    if status == 429:
        raise Retry("Discord asks to wait", after=_wait(response))
    if status >= 500:
        if method == "POST":
            raise Unclear(f"Discord answers {status}")
        raise Retry(f"Discord answers {status}", after=retry_after(response.headers))
    code, reason = _explained(response)
    if status == 401 and not has_own_token(path):
        raise Unauthorized("Discord refuses the bot's token: it was reset in the developer portal, or mistyped")
    raise (Unseen if status == 403 else Refused)(status, code, reason)


def has_own_token(path: str) -> bool:
    """Whether a path carries its own token, as those of interactions do: the bot's is of no use there.

    Such requests are also outside the global limit. Source: docs.discord.com/developers/topics/rate-limits
    """
    return path.lstrip("/").split("/", 1)[0] in ("webhooks", "interactions")


def _wait(response: httpx.Response) -> float | None:
    body = _parsed(response)
    told = body.get("retry_after") if isinstance(body, dict) else None
    return bounded_seconds(told) if isinstance(told, int | float) else retry_after(response.headers)


def _parsed(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _explained(response: httpx.Response) -> tuple[int, str]:
    """Discord's code, and its words with the first fields at fault."""
    body = _parsed(response)
    if not isinstance(body, dict):
        return 0, f"Discord answers {response.status_code}"
    code = body.get("code") if isinstance(body.get("code"), int) else 0
    said = str(body.get("message") or f"HTTP {response.status_code}").rstrip(".")
    faults = [fault for fault, _ in zip(_faults(body.get("errors"), ""), range(_MOST_FIELDS), strict=False)]
    mend = _MENDS.get(code or 0)
    reason = f"Discord says: {said}" + (f" ({'; '.join(faults)})" if faults else "") + (f": {mend}" if mend else "")
    return code or 0, reason[:_LONGEST_REASON]


def _faults(tree: Any, path: str) -> Iterator[str]:
    """The tree of errors by field, flattened. Source: docs.discord.com/developers/reference#error-messages."""
    if not isinstance(tree, dict):
        return
    for name, below in tree.items():
        if name == "_errors" and isinstance(below, list):
            words = " ".join(str(each.get("message", "")) for each in below if isinstance(each, dict))
            yield f"{path}: {words}"
        elif path.count("/") < 20:
            yield from _faults(below, f"{path}/{name}")


class Facts:
    """What never changes at Discord, kept by this process: which server a channel is in, which app a token is of."""

    def __init__(self, most: int = 20_000) -> None:
        self._most = most
        self._kept: OrderedDict[tuple[str, ...], str] = OrderedDict()

    def get(self, *key: str) -> str | None:
        """The fact, if it is known."""
        fact = self._kept.get(key)
        if fact is not None:
            self._kept.move_to_end(key)
        return fact

    def keep(self, fact: str, *key: str) -> str:
        """Keep it; the least recently used goes when there are too many."""
        self._kept[key] = fact
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return fact

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()


FACTS = Facts()
"""Shared by all communities of the process: it holds ids, by the API's address, and nothing of what is said."""
