"""Errors that reach a caller, each with its HTTP status, rendered as RFC 9457 problem details.

Problem
├── BadRequest       400  the request cannot be read (header missing, not JSON)
├── Unauthenticated  401  no key, or a wrong one
├── Forbidden        403
├── NotFound         404  unknown, or another driver's
├── NotAllowed       405
├── Conflict         409
├── TooLarge         413
├── WrongType        415  the body is declared as something else than JSON
├── Invalid          422  readable, but not acceptable; carries JSON pointers
├── TooMany          429
├── Upstream         502  the platform refused
└── Unavailable      503  the database is away, or too much is in flight
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar

from pydantic import ValidationError

PROBLEM_JSON = "application/problem+json"

_MOST_ERRORS = 50
"""How many wrong fields an answer lists; it says how many there are."""
_LONGEST_POINTER = 500


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with the input: where (a JSON pointer) and what, in plain words."""

    pointer: str
    detail: str


class Problem(Exception):
    """An error with an HTTP status. `detail` is shown to the caller: plain words, the mend, no secrets."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = ""

    def __init__(
        self,
        detail: str,
        *,
        slug: str = "",
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.kind = slug or self.slug
        self.errors = tuple(errors)
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """The problem+json document."""
        document: dict[str, Any] = {
            "type": f"urn:metagov:{self.kind}" if self.kind else "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            document["errors"] = [{"pointer": error.pointer, "detail": error.detail} for error in self.errors]
        return json.dumps(document, separators=(",", ":")).encode()


class BadRequest(Problem):
    status = 400


class Unauthenticated(Problem):
    status = 401

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"www-authenticate": 'Bearer realm="metagov", Basic realm="metagov"'})


class Forbidden(Problem):
    status = 403


class NotFound(Problem):
    status = 404


class NotAllowed(Problem):
    status = 405


class Conflict(Problem):
    status = 409


class TooLarge(Problem):
    status = 413


class WrongType(Problem):
    status = 415


class Invalid(Problem):
    status = 422

    @classmethod
    def field(cls, pointer: str, detail: str) -> Invalid:
        """One wrong field."""
        return cls(f"{pointer or 'the body'}: {detail}", errors=[FieldError(pointer, detail)])

    @classmethod
    def schema(cls, error: ValidationError, prefix: Sequence[str | int] = ()) -> Invalid:
        """What pydantic found, with pointers below `prefix`. The input itself is not repeated: it may be secret."""
        return cls.found([((*prefix, *_place(item["loc"])), item["msg"]) for item in error.errors(include_input=False)])

    @classmethod
    def found(cls, items: Sequence[tuple[Sequence[str | int], str]]) -> Invalid:
        """Several wrong fields, given as (path, what is wrong)."""
        errors = [FieldError(pointer(path)[:_LONGEST_POINTER], message) for path, message in items[:_MOST_ERRORS]]
        first = errors[0]
        more = f" (and {len(items) - 1} more)" if len(items) > 1 else ""
        return cls(f"{first.pointer or 'the body'}: {first.detail}{more}", errors=errors)


class TooMany(Problem):
    status = 429


class Upstream(Problem):
    status = 502


class Unavailable(Problem):
    status = 503

    def __init__(self, detail: str, *, retry_after: int = 1) -> None:
        super().__init__(detail, headers={"retry-after": str(retry_after)})


def _place(location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Where a field is; pydantic ends the place of a wrong key, and not value, with a word of its own."""
    return location[:-1] if location and location[-1] == "[key]" else location


def pointer(path: Sequence[str | int]) -> str:
    """A JSON pointer (RFC 6901) from path parts."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
