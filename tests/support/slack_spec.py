"""Holds requests to Slack's Web API to its published description: the method, its arguments, their types.

The description is Slack's own (github.com/slackapi/slack-api-specs), as the test data has it. It is of 2021; what came
later is listed below, each with where it is documented.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.slack import Recorded

SPEC = Path(__file__).parents[3] / "shared" / "specs" / "slack.openapi.json"
REQUIRED = "METAGOV_TEST_SPECS"

_REFERENCE = "https://docs.slack.dev/reference/methods/"
_PAGES = "https://docs.slack.dev/reference/methods/{} and slack_sdk.web.client"

NEWER: Mapping[tuple[str, str], tuple[str, str]] = {
    ("chat.postMessage", "metadata"): ("json", _PAGES.format("chat.postMessage")),
    ("chat.postMessage", "markdown_text"): ("string", _PAGES.format("chat.postMessage")),
    ("chat.update", "metadata"): ("json", _PAGES.format("chat.update")),
    ("conversations.history", "include_all_metadata"): ("boolean", _PAGES.format("conversations.history")),
    ("oauth.v2.access", "grant_type"): ("string", _PAGES.format("oauth.v2.access")),
    ("oauth.v2.access", "refresh_token"): ("string", _PAGES.format("oauth.v2.access")),
    ("openid.connect.token", "code"): ("string", _PAGES.format("openid.connect.token")),
    ("openid.connect.token", "redirect_uri"): ("string", _PAGES.format("openid.connect.token")),
    ("openid.connect.token", "grant_type"): ("string", _PAGES.format("openid.connect.token")),
}
"""Arguments that the description lacks: their type, and who documents them."""
NEWER_METHODS: Mapping[str, str] = {
    "openid.connect.token": _REFERENCE + "openid.connect.token",
    "openid.connect.userInfo": _REFERENCE + "openid.connect.userInfo",
}
"""Methods that the description lacks."""
NO_LONGER_REQUIRED: Mapping[tuple[str, str], str] = {
    ("oauth.v2.access", "code"): "absent when a token is refreshed: " + _REFERENCE + "oauth.v2.access",
}
"""Arguments that the description calls required, and the reference does not."""
_JSON_ARGUMENTS = frozenset({"blocks", "attachments", "metadata", "view"})
_BASIC = frozenset({"oauth.v2.access", "openid.connect.token"})
"""Methods that are called with the app's id and secret, by HTTP Basic as the reference asks for."""


def spec_or_skip() -> dict[str, Any]:
    """The description's methods by name. Where it is absent the test is skipped, or fails if it is required."""
    if SPEC.is_file():
        return _methods()
    reason = "Slack's API description is not there: ../shared/specs/slack.openapi.json beside the repository"
    if os.environ.get(REQUIRED) == "required":
        pytest.fail(reason)
    pytest.skip(reason)


def is_wanted() -> bool:
    """Whether requests can be checked, or have to be."""
    return SPEC.is_file() or os.environ.get(REQUIRED) == "required"


def check_requests(requests: Iterable[Recorded]) -> None:
    """Raises AssertionError that lists every request that the description does not allow."""
    methods = spec_or_skip()
    problems = [f"{one.verb} {one.method}: {problem}" for one in requests for problem in problems_of(methods, one)]
    assert not problems, "\n".join(problems)


def problems_of(methods: Mapping[str, Any], request: Recorded) -> list[str]:
    """What the description has against a request."""
    if request.method not in methods:
        return ["is no method of the Web API"]
    verb, operation = next(iter(methods[request.method].items()))
    known = {item["name"]: item for item in operation["parameters"]}
    return [
        *_transport(request, verb, operation),
        *_token(request),
        *_missing(request, known),
        *(problem for name, value in request.fields.items() for problem in _argument(request, known, name, value)),
    ]


@cache
def _methods() -> dict[str, Any]:
    document = json.loads(SPEC.read_text())
    methods: dict[str, Any] = {path.removeprefix("/"): item for path, item in document["paths"].items()}
    for name in NEWER_METHODS:
        methods.setdefault(name, {"post": {"consumes": ["application/x-www-form-urlencoded"], "parameters": []}})
    return methods


def _transport(request: Recorded, verb: str, operation: Mapping[str, Any]) -> list[str]:
    """Every method takes POST, with a form or where it says so with JSON; those it describes with GET take that too.

    Source: https://docs.slack.dev/apis/web-api, "Basic features".
    """
    if request.verb not in ("POST", verb.upper()):
        return [f"takes POST{' or GET' if verb == 'get' else ''}"]
    if request.verb == "POST" and request.raw and request.content_type not in operation["consumes"]:
        return [f"takes {' or '.join(operation['consumes'])}, not {request.content_type}"]
    if request.verb == "GET" and request.raw:
        return ["has a body, and GET has none"]
    if request.verb == "POST" and request.query:
        return [f"has arguments in the URL, where logs keep them: {', '.join(request.query)}"]
    return []


def _token(request: Recorded) -> list[str]:
    """The token stands in the header, as the reference asks for."""
    scheme = request.headers.get("authorization", "").partition(" ")[0]
    wanted = "Basic" if request.method in _BASIC else "Bearer"
    if scheme != wanted:
        return [f"should be sent with Authorization: {wanted}, not {scheme or 'without'}"]
    return ["has the token among its arguments"] if "token" in request.fields else []


def _missing(request: Recorded, known: Mapping[str, Any]) -> list[str]:
    return [
        f"lacks {name}"
        for name, item in known.items()
        if item.get("required")
        and name not in ("token", *request.fields)
        and (request.method, name) not in NO_LONGER_REQUIRED
    ]


def _argument(request: Recorded, known: Mapping[str, Any], name: str, value: Any) -> list[str]:
    if name in known:
        kind = "json" if name in _JSON_ARGUMENTS else known[name].get("type", "string")
    elif (request.method, name) in NEWER:
        kind = NEWER[request.method, name][0]
    else:
        return [f"has an argument that is not described: {name}"]
    return [] if _fits(kind, value) else [f"{name} should be of type {kind}, and is {str(value)[:60]!r}"]


def _fits(kind: str, value: Any) -> bool:
    """Whether a value, as a form or JSON has it, is of a type."""
    text = value if isinstance(value, str) else json.dumps(value)
    if kind == "boolean":
        return text in ("true", "false", "1", "0")
    if kind == "string":
        return isinstance(value, str)
    try:
        read = json.loads(text)
    except ValueError:
        return False
    if kind == "json":
        return isinstance(read, list | dict)
    if kind == "integer":
        return isinstance(read, int) and not isinstance(read, bool)
    return isinstance(read, int | float) and not isinstance(read, bool)
