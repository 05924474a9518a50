"""How an operation can fail: the problem component, a response per status, and which operation has which."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from app.core.errors import (
    PROBLEM_JSON,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    NotAllowed,
    NotFound,
    Problem,
    TooLarge,
    TooMany,
    Unauthenticated,
    Unavailable,
    Upstream,
)

_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
_CONTENT = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_RESPONSES: dict[type[Problem], tuple[str, dict[str, Any]]] = {
    BadRequest: (
        "The request cannot be read: the header X-Metagov-Community is missing or names no community of yours, "
        "or the body is not JSON.",
        {},
    ),
    Unauthenticated: (
        "The API key is missing, unknown or revoked.",
        {"WWW-Authenticate": {"description": "Bearer or Basic.", "schema": {"type": "string"}}},
    ),
    Forbidden: ("Not allowed.", {}),
    NotFound: ("There is no such thing, or not in a community of yours, or the plugin is not enabled there.", {}),
    NotAllowed: ("This cannot be done to it.", {}),
    Conflict: ("Not possible as things stand; `detail` says why.", {}),
    TooLarge: ("The body is too large.", {}),
    Invalid: ("Readable but not acceptable; `errors` points at what is wrong.", {}),
    TooMany: ("Too many requests.", _RETRY_AFTER),
    Upstream: ("The platform refused; its message is in `detail`.", {}),
    Unavailable: ("The platform or the database is away; try again.", _RETRY_AFTER),
}

SCHEMAS: dict[str, Any] = {
    "Problem": {
        "title": "Problem",
        "description": "What went wrong (RFC 9457).",
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string", "description": "Which kind: `about:blank`, or `urn:metagov:…`."},
            "title": {"type": "string", "description": "The status in words."},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "What is wrong, and what to do."},
            "errors": {"type": "array", "items": {"$ref": "#/components/schemas/FieldError"}},
        },
    },
    "FieldError": {
        "title": "FieldError",
        "description": "One thing wrong with the input.",
        "type": "object",
        "required": ["pointer", "detail"],
        "properties": {
            "pointer": {"type": "string", "description": "Where: a JSON pointer (RFC 6901) into what was sent."},
            "detail": {"type": "string"},
        },
    },
}
RESPONSES: dict[str, Any] = {
    kind.__name__: {"description": text, **({"headers": headers} if headers else {}), "content": _CONTENT}
    for kind, (text, headers) in _RESPONSES.items()
}
_BY_STATUS = {kind.status: kind.__name__ for kind in _RESPONSES}
_WRITES = ("post", "put", "patch", "delete")


def problem_responses(statuses: Iterable[int]) -> dict[str, Any]:
    """References to the shared responses."""
    return {str(status): {"$ref": f"#/components/responses/{_BY_STATUS[status]}"} for status in sorted(set(statuses))}


def usual_statuses(method: str, path: str, *, with_community: bool) -> set[int]:
    """How any operation behind an API key can fail; its route declares what is particular to it."""
    statuses = {401, 422, 503}
    if method in _WRITES:
        statuses |= {400, 413}
    if method == "post":
        statuses.add(409)  # a repeated Idempotency-Key whose first request is still at work
    if with_community:
        statuses.add(400)
    if "{" in path and method != "put":
        statuses.add(404)
    return statuses


def complete_responses(operation: dict[str, Any], statuses: Iterable[int]) -> None:
    """Give the problems that a route declares (by status and description) their content, and add `statuses`."""
    responses = {
        status: {**response, "content": _CONTENT} if status.startswith(("4", "5")) else response
        for status, response in operation["responses"].items()
        # FastAPI describes its own 422 answer here, which our error handlers replace.
        if "HTTPValidationError" not in str(response.get("content"))
    }
    operation["responses"] = dict(sorted({**problem_responses(statuses), **responses}.items()))
