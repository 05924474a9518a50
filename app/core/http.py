"""How FastAPI's own errors become problem details, and the strict base of request bodies."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from app.core.errors import (
    PROBLEM_JSON,
    BadRequest,
    FieldError,
    Forbidden,
    Invalid,
    NotAllowed,
    NotFound,
    Problem,
    TooLarge,
    pointer,
)

_BY_STATUS: dict[int, type[Problem]] = {
    400: BadRequest,
    403: Forbidden,
    404: NotFound,
    405: NotAllowed,
    413: TooLarge,
    422: Invalid,
}


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("in UTC this time is not within the years 1 to 9999") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A time in a request, in UTC: the database's driver fails with one that has no equal there."""


class PlainRoute(Route):
    """A route without FastAPI's machinery, for hot paths; it names itself for metrics as FastAPI's do."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self
        await super().handle(scope, receive, send)


class Body(BaseModel):
    """A request body: unknown fields are refused, so that a typing error is not silently ignored."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Answer(BaseModel):
    """A response body."""

    model_config = ConfigDict(use_attribute_docstrings=True)


def render(problem: Problem) -> Response:
    """The HTTP answer for a problem."""
    return Response(problem.body(), problem.status, problem.headers, PROBLEM_JSON)


def install_error_handlers(app: FastAPI) -> None:
    """Make every error leave as `application/problem+json`."""

    @app.exception_handler(Problem)
    async def _problem(_: Request, problem: Problem) -> Response:
        return render(problem)

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, error: RequestValidationError) -> Response:
        return render(_from_validation(error.errors()))

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> Response:
        kind = _BY_STATUS.get(error.status_code, BadRequest)
        return render(kind(_plain(error), headers=error.headers))


def _plain(error: HTTPException) -> str:
    if error.status_code == 404:
        return "there is nothing at this path"
    if error.status_code == 405:
        return "this path does not answer to that method"
    return str(error.detail)


def _from_validation(errors: Any) -> Problem:
    """FastAPI's locations (`("body", "plugins", 0, …)`, `("query", "limit")`) as pointers into what was sent."""
    if any(item["type"] == "json_invalid" for item in errors):
        return BadRequest("the body is not JSON")
    found = []
    for item in errors:
        place, *path = item["loc"]
        found.append(FieldError(pointer(path), item["msg"] if place == "body" else f"{place}: {item['msg']}"))
    detail = "; ".join(f"{error.pointer or 'the body'}: {error.detail}" for error in found[:3])
    return Invalid(detail, errors=found)
