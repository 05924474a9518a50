"""What wraps every request: its id, and the guard over its body."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.asgi import MAX_JSON_DEPTH, GuardInput, Observe, check_json, read_body, send_problem
from app.core.errors import BadRequest, Conflict, Invalid, Problem, TooLarge


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        nested(MAX_JSON_DEPTH),
        b'"' + b"[" * 5000 + b'"',
        b'"\\"[" ',
        b'{"a": 1e308}',
        b"[" + b"{}," * 200 + b"{}]",
    ],
)
def test_what_passes(body: bytes) -> None:
    check_json(body)


@pytest.mark.parametrize("body", [nested(MAX_JSON_DEPTH + 1), nested(100_000), b'{"a":' * 101 + b"1" + b"}" * 101])
def test_too_deep(body: bytes) -> None:
    with pytest.raises(BadRequest, match="100 levels"):
        check_json(body)


@pytest.mark.parametrize(
    "body", [b"NaN", b"[Infinity]", b"-Infinity", b"\xff", b"{", b'{"a"', b"[" * 90, b"\xed\xa0\x80"]
)
def test_not_json(body: bytes) -> None:
    with pytest.raises(BadRequest):
        check_json(body)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (rb'{"a": ["\u0000"]}', "/a/0"),
        (rb'{"a/b": {"c~d": "\uDFFF"}}', "/a~1b/c~0d"),
        (rb'{"a": 1, "b": 18446744073709551616}', "/b"),
        (b"[1e400]", "/0"),
    ],
)
def test_values_that_cannot_be_stored(body: bytes, pointer: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_json(body)
    assert [error.pointer for error in caught.value.errors] == [pointer]


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_taken_or_refused(body: bytes) -> None:
    """What passes can be read, and written to Postgres as UTF-8 text without NULs."""
    status = 200
    try:
        check_json(body)
    except Problem as problem:
        status = problem.status
    assert status in (200, 400, 422)
    if body and status == 200:
        written = json.dumps(json.loads(body), ensure_ascii=False).encode()
        assert b"\0" not in written


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT
)


@given(
    st.recursive(
        _SCALARS,
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(_TEXT, inner, max_size=5),
        max_leaves=20,
    ),
    st.booleans(),
)
def test_all_that_can_be_stored_passes(value: Any, ascii_only: bool) -> None:
    check_json(json.dumps(value, ensure_ascii=ascii_only).encode())


def feed(*chunks: bytes, disconnect: bool = False) -> tuple[Callable[[], Any], list[bytes]]:
    """A `receive` that gives these chunks, and the list of what is still to be given."""
    left = list(chunks)

    async def receive() -> Any:
        if not left:
            return {"type": "http.disconnect"}
        chunk = left.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(left) or disconnect}

    return receive, left


async def test_reading_stops_at_the_limit() -> None:
    receive, left = feed(*[b"x" * 10] * 100)
    with pytest.raises(TooLarge):
        await read_body({"headers": []}, receive, 25, "too much")
    assert len(left) == 97
    receive, left = feed(b"x" * 10)
    with pytest.raises(TooLarge):
        await read_body({"headers": [(b"content-length", b"26")]}, receive, 25, "too much")
    assert len(left) == 1, "an announced excess is not even read"
    receive, _ = feed(b"ab", b"c")
    assert await read_body({"headers": [(b"content-length", b"nonsense")]}, receive, 3, "too much") == b"abc"


async def test_a_caller_that_leaves_midway() -> None:
    receive, _ = feed(b"ab", disconnect=True)
    with pytest.raises(BadRequest):
        await read_body({"headers": []}, receive, 10, "too much")


async def call(app: Any, **scope: Any) -> tuple[int, dict[bytes, bytes], Any]:
    """Status, headers and body of a call to an ASGI application."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    receive, _ = feed(scope.pop("body", b""))
    whole = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [], **scope}
    await app(whole, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), json.loads(sent[1]["body"])


class Crash(Exception):
    """Something nobody foresaw."""


async def test_what_nobody_caught_is_an_answer_without_a_traceback() -> None:
    async def crash(scope: Any, receive: Any, send: Any) -> None:
        raise Crash("secret detail")

    status, headers, body = await call(Observe(crash))
    assert (status, body["status"], headers[b"content-type"]) == (500, 500, b"application/problem+json")
    assert "secret detail" not in str(body)
    assert headers[b"x-request-id"].startswith(b"req_")


async def test_a_database_that_is_away_is_503() -> None:
    async def refused(scope: Any, receive: Any, send: Any) -> None:
        raise ConnectionRefusedError

    status, headers, body = await call(Observe(refused))
    assert (status, headers[b"retry-after"], body["title"]) == (503, b"1", "Service Unavailable")


async def test_webhook_bodies_are_left_alone() -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await send_problem(send, Conflict((await receive())["body"].hex()))

    status, _, body = await call(GuardInput(echo), method="POST", path="/api/hooks/a/b", body=b"\0\xff")
    assert (status, body["detail"]) == (409, "00ff")
    status, _, _ = await call(GuardInput(echo), method="POST", path="/api/other", body=b"\0\xff")
    assert status == 400
    status, _, _ = await call(GuardInput(echo), method="POST", path="/api/other", body=b"{}")
    assert status == 409
