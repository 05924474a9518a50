"""What wraps every request: its id, its log line, its metrics, and a guard over JSON bodies.

Pure ASGI: Starlette's BaseHTTPMiddleware costs more than the rest of a small request.
"""

from __future__ import annotations

import itertools
import json
import logging
import re
import time
from collections.abc import Callable
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.db import is_away
from app.core.errors import PROBLEM_JSON, BadRequest, Invalid, Problem, TooLarge, Unavailable, WrongType, pointer
from app.core.ids import new_id
from app.core.log import REQUEST_ID
from app.core.metrics import request_seconds_of, requests_of

MAX_JSON_BYTES = 1024 * 1024
MAX_JSON_DEPTH = 100
HOOKS_PREFIX = "/api/hooks/"
SHARES_PREFIX = "/api/graphs/"
"""What follows opens a graph to whoever knows it, and stands in no log."""
HOOKS_ROUTE = f"{HOOKS_PREFIX}{{path:path}}"

_JSON_TYPE = re.compile(rb"\s*application/(?:[a-z0-9.!#$&^_-]+\+)?json\s*(?:;|$)", re.IGNORECASE)
_PLAIN_ID = re.compile(rb"[A-Za-z0-9_-]{1,64}")
_ID_PREFIX = new_id("req")[:-8].encode()
_NUMBERS = itertools.count(1)
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)
_SUSPECT = re.compile(rb"\\u0000|\\u[dD][89a-fA-F]|[\x00]|[0-9]{19}|[eE][+]?[0-9]{3}|NaN|Infinity")

_log = structlog.get_logger("app.http")


def encode_problem(problem: Problem) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Problem details as ASGI has them: status, headers, body."""
    body = problem.body()
    headers = [(b"content-type", PROBLEM_JSON.encode()), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    return problem.status, headers, body


async def send_problem(send: Send, problem: Problem) -> None:
    """Answer with problem details."""
    status, headers, body = encode_problem(problem)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def database_away() -> Problem:
    """What is answered while Postgres cannot be reached."""
    return Unavailable("the database cannot be reached; try again")


class Observe:
    """Gives each request an id, logs it, counts it, and turns what nobody caught into an answer without a traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        given_id = request_id(scope["headers"])
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", given_id)]
            await send(message)

        logged = REQUEST_ID.set(given_id.decode())
        try:
            try:
                await self._app(scope, receive, send_with_id)
            except Exception as error:
                # The last line of defence: every error a caller can cause is a Problem long before this.
                if status:
                    raise
                problem: Problem = database_away()
                if not is_away(error):
                    _log.exception("request failed unexpectedly")
                    problem = Problem("something went wrong here; the request id names it in our logs")
                await send_problem(send_with_id, problem)
            _record(scope, status, time.perf_counter() - started)
        finally:
            REQUEST_ID.reset(logged)


def request_id(headers: list[tuple[bytes, bytes]]) -> bytes:
    """The caller's, where it is plain; else one of ours: this process's own prefix and a number."""
    for name, value in headers:
        if name == b"x-request-id" and _PLAIN_ID.fullmatch(value):
            return value
    return b"%b%08x" % (_ID_PREFIX, next(_NUMBERS))


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count an answered request in the metrics."""
    requests_of(method, route, status).inc()
    request_seconds_of(route).observe(seconds)


def logs_taken_webhooks() -> bool:
    """Whether the log has a line for a webhook that was taken, as for every other request."""
    return bool(_log.is_enabled_for(logging.DEBUG))


def _record(scope: Scope, status: int, seconds: float) -> None:
    """Count an answered request, and log it.

    A webhook that was taken is logged where debugging is asked for: it has a receipt, and platforms send thousands a
    second.
    """
    method, route = scope["method"], getattr(scope.get("route"), "path", "unmatched")
    count_request(method, route, status, seconds)
    if status < 300 and scope["path"].startswith(HOOKS_PREFIX) and not logs_taken_webhooks():
        return
    path = f"{SHARES_PREFIX}…" if scope["path"].startswith(SHARES_PREFIX) else scope["path"]
    _log.info("request", method=method, path=path, status=status, ms=round(seconds * 1000, 1))


class GuardInput:
    """Refuses what no route could use: NULs in the URL, bodies over the limit, JSON that Postgres cannot hold.

    Webhook bodies are none of its business: they are stored byte for byte by their own route.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(HOOKS_PREFIX):
            await self._app(scope, receive, send)
            return
        try:
            if "\0" in scope["path"] or b"%00" in scope["query_string"]:
                raise Invalid("the URL contains a NUL character")
            for name, value in scope["headers"]:
                if b"\0" in value:
                    raise Invalid(f"the header {name.decode('latin-1')} contains a NUL character")
            if scope["method"] in ("POST", "PUT", "PATCH", "DELETE"):
                body = await read_body(scope, receive, MAX_JSON_BYTES, "a JSON body may be at most 1 MiB")
                if body:
                    scope = _as_json(scope)
                check_json(body)
                receive = _replay(body, receive)
        except Problem as problem:
            await send_problem(send, problem)
            return
        await self._app(scope, receive, send)


def _no_budget(size: int) -> None:
    """Bodies of one MiB need no counting."""


async def read_body(
    scope: Scope, receive: Receive, limit: int, refusal: str, admit: Callable[[int], None] = _no_budget
) -> bytes:
    """The whole body. Raises TooLarge past `limit` bytes, before reading them where the length is announced.

    `admit` is told the size of each chunk before it is kept, and may raise.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > limit:
            raise TooLarge(refusal)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequest("the connection closed before the body was complete")
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise TooLarge(refusal)
        admit(len(chunk))
        if not message.get("more_body", False):
            return b"".join([*chunks, chunk]) if chunks else chunk
        chunks.append(chunk)


def _as_json(scope: Scope) -> Scope:
    """The request, its body declared as JSON where it is not declared at all. Raises WrongType for another type.

    A type that says otherwise is refused, because a page in a browser may send that to any site, with the user's
    Basic credentials.
    """
    declared = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    if not declared:
        return {**scope, "headers": [*scope["headers"], (b"content-type", b"application/json")]}
    if not _JSON_TYPE.match(declared):
        raise WrongType("send the body as JSON, with the header Content-Type: application/json")
    return scope


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def check_json(body: bytes) -> None:
    """Raise BadRequest for what is not JSON or nests deeper than 100, Invalid for values that cannot be stored.

    The common body passes with one parse; only suspicious ones are walked.
    """
    if not body:
        return
    if body.count(b"[") + body.count(b"{") > MAX_JSON_DEPTH and _depth(body) > MAX_JSON_DEPTH:
        raise BadRequest(f"the body nests deeper than {MAX_JSON_DEPTH} levels")
    try:
        # Decoded strictly and as UTF-8 only: json.loads on bytes also takes UTF-16, and surrogates spelled in UTF-8.
        value = json.loads(body.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest("the body is not JSON") from error
    except ValueError as error:
        # Python reads integers of up to 4,300 digits.
        raise Invalid("the body holds an integer that does not fit 64 bits; send it as a string") from error
    if _SUSPECT.search(body):
        _walk(value, ())


def _refuse_constant(name: str) -> None:
    raise BadRequest(f"the body is not JSON: it holds {name}")


def _depth(body: bytes) -> int:
    depth = deepest = 0
    for token in _BRACKETS.finditer(body):
        first = token.group()[:1]
        if first in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif first in b"]}":
            depth -= 1
    return deepest


def _walk(value: Any, path: tuple[str | int, ...]) -> None:
    if isinstance(value, str):
        _check_text(value, path)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key, path)
            _walk(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _walk(item, (*path, index))
    elif isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise Invalid.field(pointer(path), "the number is too large")
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise Invalid.field(pointer(path), "the integer does not fit 64 bits; send it as a string")


def _check_text(text: str, path: tuple[str | int, ...]) -> None:
    if "\0" in text:
        raise Invalid.field(pointer(path), "contains a NUL character")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise Invalid.field(pointer(path), "contains half of a surrogate pair, which is not text")
