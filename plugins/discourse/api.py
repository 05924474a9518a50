"""Asking a forum, and what its refusals mean in plain words. Only reads: asking again does no harm.

Source: https://docs.discourse.org, and app/controllers/application_controller.rb for the shape of errors:
`{"errors": ["…"], "error_type": "not_found"}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from metagov_sdk import NoAccess, Rejected, Retry, Unauthorized
from metagov_sdk.limits import bounded_seconds, retry_after

_MENDS = {
    403: "the user that the key acts for may not see it",
    404: "it is not there, or the user that the key acts for may not know of it",
}
_LONGEST_REASON = 400


class Refused(Rejected):
    """The forum said no, with this HTTP status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Unseen(Refused, NoAccess):
    """The user that the key acts for may not see it: 403."""


async def ask(http: httpx.AsyncClient, path: str, query: Mapping[str, str] | None = None) -> Any:
    """The answer to a GET, as JSON values. Raises Refused, Unauthorized, Retry and what httpx raises.

    A key that is not accepted is answered with 403, as is what it may not see: `Discourse.ask` tells them apart.
    """
    response = await http.get(path, params=query)
    status = response.status_code
    if 200 <= status < 300:
        return _parsed(response)
    if status == 429:
        raise Retry("the forum asks to wait", after=_wait(response))
    if status >= 500:
        raise Retry(f"the forum answers {status}", after=retry_after(response.headers))
    if status == 401:
        raise Unauthorized("the forum does not accept the API key: make a new one in its admin pages")
    if 300 <= status < 400:
        raise Refused(status, f"the forum redirects ({status}): set server_url to where it leads")
    raise (Unseen if status == 403 else Refused)(status, _explained(response, path))


def _parsed(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        # A page of whatever stands before the forum while it is away.
        raise Retry("the forum answers something else than JSON") from None


def _body(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _wait(response: httpx.Response) -> float | None:
    """Seconds, from the header or, failing that, from the body's `extras.wait_seconds`."""
    told = retry_after(response.headers)
    if told is not None:
        return told
    extras = _body(response).get("extras")
    seconds = extras.get("wait_seconds") if isinstance(extras, dict) else None
    return bounded_seconds(seconds) if isinstance(seconds, int | float) and not isinstance(seconds, bool) else None


def _explained(response: httpx.Response, path: str) -> str:
    errors = _body(response).get("errors")
    words = " ".join(str(each) for each in errors[:3]) if isinstance(errors, list) else ""
    said = words.strip().rstrip(".") or f"HTTP {response.status_code}"
    mend = _MENDS.get(response.status_code)
    return (f"the forum refuses {path}: {said}" + (f" ({mend})" if mend else ""))[:_LONGEST_REASON]
