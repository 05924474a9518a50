"""Whatever is sent, the answer is the documented one: exact status, problem details, never a 5xx."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.paging import encode_cursor
from app.gateway import Gateway
from app.host.discovery import Plugins
from app.main import create_app
from tests.conftest import Driver, make_settings
from tests.support.problems import pointers, problem
from tests.support.servers import Server, free_port

JSON = {"Content-Type": "application/json"}
TOWN = {"X-Metagov-Community": "town"}
PUT = "/api/internal/community/town"
ACT = "/api/action/probe.echo"
START = "/api/internal/process/probe.vote"
LISTS = [
    "/api/internal/community",
    "/api/internal/plugin",
    "/api/internal/process",
    "/api/internal/receipts",
    "/api/internal/events",
    "/api/internal/driver/endpoints",
]
BODIES = [
    ("PUT", PUT),
    ("POST", "/api/internal/community"),
    ("POST", "/api/internal/plugin/probe"),
    ("POST", ACT),
    ("POST", "/api/internal/action/probe.echo"),
    ("POST", START),
    ("POST", "/api/internal/driver/endpoints"),
    ("POST", "/api/internal/identity/create_id"),
    ("POST", "/api/internal/identity/merge_ids"),
    ("POST", "/api/internal/identity/link_account"),
    ("POST", "/api/internal/identity/unlink_account"),
]


@pytest.fixture
async def town(driver: Driver) -> Driver:
    assert (await driver.put(plugins=[{"name": "probe", "config": {"label": "a"}}])).status_code == 201
    return driver


async def send(driver: Driver, method: str, path: str, body: bytes, **headers: str) -> httpx.Response:
    return await driver.http.request(method, path, content=body, headers={**TOWN, **JSON, **headers})


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{'a': 1}",
        b"\xff\xfe",
        b"{} {}",
        b"[1,]",
        b"NaN",
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": [NaN]}',
        b'{"a": "\x00"}',
        b'{"a": "\x1f"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\xff"}',
        '{"a": 1}'.encode("utf-16"),
        '{"a": 1}'.encode("utf-32-be"),
        b"[" * 1000 + b"]" * 1000,
        b'{"a":' * 1000 + b"1" + b"}" * 1000,
        b"[" * 101 + b"]" * 101,
        b"[" * 500_000,
        b'{"a":[' * 51 + b"]}" * 51,
    ],
    ids=lambda body: repr(body[:20]),
)
async def test_what_is_not_json_is_400(town: Driver, body: bytes) -> None:
    for method, path in BODIES:
        problem(await send(town, method, path, body), 400)


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (r'"a\u0000b"', "/x"),
        (r'"\ud800"', "/x"),
        (r'"\udc00\ud800"', "/x"),
        (r'["ok", {"deep": "\u0000"}]', "/x/1/deep"),
        ("9223372036854775808", "/x"),
        ("-99999999999999999999999", "/x"),
        ("1e999", "/x"),
        ("-1" + "0" * 400 + ".5", "/x"),
    ],
)
async def test_values_that_cannot_be_stored_are_422(town: Driver, value: str, where: str) -> None:
    for method, path in BODIES:
        answer = await send(town, method, path, b'{"x": ' + value.encode() + b"}")
        assert pointers(answer) == [where]


async def test_a_number_of_five_thousand_digits(town: Driver) -> None:
    for method, path in BODIES:
        problem(await send(town, method, path, b'{"x": ' + b"9" * 5000 + b"}"), 422)


@pytest.mark.parametrize("key", [r"a\u0000", r"\ud800", "a/b~c"])
async def test_bad_names_of_fields(town: Driver, key: str) -> None:
    answer = await send(town, "PUT", PUT, b'{"' + key.encode() + b'": 1}')
    assert len(pointers(answer)) == 1
    assert "a~1b~0c" in pointers(answer)[0] or "/" not in key


@pytest.mark.parametrize("body", [b"null", b"true", b"1", b'"x"', b"[]", b'[{"a": 1}]'])
async def test_json_that_is_no_object_is_422(town: Driver, body: bytes) -> None:
    for method, path in BODIES:
        problem(await send(town, method, path, body), 422)


@pytest.mark.parametrize(("method", "path"), [call for call in BODIES if call[1] not in (ACT, START)])
async def test_no_body_at_all(town: Driver, method: str, path: str) -> None:
    if "action" in path or path == "/api/internal/community":
        return
    problem(await town.http.request(method, path, headers=TOWN), 422)


async def test_a_hundred_levels_are_fine(town: Driver) -> None:
    """Deep is refused by the schema, not by the reader."""
    body = b'{"parameters": ' + b"[" * 99 + b"]" * 99 + b"}"
    assert pointers(await send(town, "POST", ACT, body)) == ["/parameters"]
    brackets = json.dumps({"parameters": {"text": "[{" * 49}}).encode()
    assert (await send(town, "POST", ACT, brackets)).status_code == 200
    escaped = json.dumps({"parameters": {"text": '"[' * 40}}).encode()
    assert (await send(town, "POST", ACT, escaped)).status_code == 200


async def test_of_two_equal_names_the_last_counts(town: Driver) -> None:
    answer = await send(town, "POST", ACT, b'{"parameters": {"text": "a", "text": "b"}}')
    assert (answer.status_code, answer.json()) == (200, {"text": "b"})


@pytest.mark.parametrize(
    "text", ["\u00e4\u4f60\U0001f3b2", "\uffff\ufffe", "a\u202eb", "\\u0000", "\u0001", "'; DROP TABLE x;--"]
)
async def test_text_comes_back_as_it_was(town: Driver, text: str) -> None:
    for ascii_only in (True, False):
        body = json.dumps({"parameters": {"text": text}}, ensure_ascii=ascii_only).encode()
        answer = await send(town, "POST", ACT, body)
        assert (answer.status_code, answer.json()) == (200, {"text": text})
    bom = b"\xef\xbb\xbf" + json.dumps({"parameters": {"text": text}}).encode()
    assert (await send(town, "POST", ACT, bom)).json() == {"text": text}


@pytest.mark.parametrize(("method", "path"), BODIES)
async def test_more_than_a_mebibyte_is_413(town: Driver, method: str, path: str) -> None:
    body = json.dumps({"x": "y" * 10_000_000}).encode()
    problem(await send(town, method, path, body), 413)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, 2_000_000, 100_000):
            yield body[start : start + 100_000]

    problem(await town.http.request(method, path, content=chunks(), headers={**TOWN, **JSON}), 413)
    lying = await town.http.request(method, path, content=b"{}", headers={**TOWN, **JSON, "Content-Length": "99999999"})
    problem(lying, 413)
    with_key = await send(town, method, path, body, **{"Idempotency-Key": "k"})
    problem(with_key, 413)


async def test_a_mebibyte_is_not_too_much(town: Driver) -> None:
    frame = b'{"parameters": {"text": ""}}'
    body = frame + b" " * (1024 * 1024 - len(frame))
    assert len(body) == 1024 * 1024
    assert (await send(town, "POST", ACT, body)).status_code == 200
    problem(await send(town, "POST", ACT, body + b" "), 413)


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "x", "application/jsonx"],
)
async def test_a_body_of_another_type_is_415(town: Driver, kind: str) -> None:
    for method, path in BODIES:
        problem(await send(town, method, path, b"{}", **{"Content-Type": kind}), 415)


@pytest.mark.parametrize(
    "kind",
    ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/merge-patch+json", None],
)
async def test_json_by_any_name_or_none(town: Driver, kind: str | None) -> None:
    headers = {**TOWN, **({"Content-Type": kind} if kind else {})}
    answer = await town.http.put(PUT, content=b'{"readable_name": "New"}', headers=headers)
    assert (answer.status_code, answer.json()["readable_name"]) == (200, "New")
    acted = await town.http.post(ACT, content=b'{"parameters": {"text": "x"}}', headers=headers)
    assert acted.status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", PUT),
        ("POST", PUT),
        ("PUT", "/api/internal/community"),
        ("DELETE", "/api/internal/community"),
        ("GET", ACT),
        ("PUT", START),
        ("DELETE", "/api/internal/events"),
        ("GET", "/api/hooks/town/probe"),
        ("DELETE", "/api/hooks/town/probe"),
        ("POST", "/healthz"),
        ("PUT", "/metrics"),
    ],
)
async def test_another_method_is_405(town: Driver, method: str, path: str) -> None:
    answer = await town.http.request(method, path, headers=TOWN)
    problem(answer, 405)
    assert answer.headers["allow"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api",
        "/api/internal",
        "/api/internal/nonesuch",
        "/api/action",
        "/api/hooks/",
        "/api/hooks/town/nonesuch",
        "/api/hooks/town/probe/nonesuch",
        "/api/hooks/town/probe/hint/more",
        "/api/hooks/nonesuch",
        "/api/internal/community/town/nonesuch",
        "/../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/api/internal/community/town/../../driver",
        "/wp-login.php",
    ],
)
async def test_unknown_paths_are_404(town: Driver, path: str) -> None:
    for method in ("GET", "POST"):
        if path.startswith("/api/hooks/") and method == "GET":
            continue
        problem(await town.http.request(method, path, headers=TOWN), 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/action/nonesuch.x"),
        ("POST", "/api/action/probe.nonesuch"),
        ("POST", "/api/action/probe"),
        ("POST", "/api/action/."),
        ("POST", "/api/action/probe.echo.echo"),
        ("POST", "/api/action/%C3%A4.%F0%9F%8E%B2"),
        ("POST", "/api/internal/process/probe.nonesuch"),
        ("POST", "/api/internal/process/nonesuch.vote"),
        ("GET", "/api/internal/process/probe.vote/nonesuch"),
        ("DELETE", "/api/internal/process/probe.vote/nonesuch"),
        ("POST", "/api/internal/plugin/nonesuch"),
        ("GET", "/api/internal/receipts/nonesuch"),
        ("GET", "/api/internal/driver/endpoints/" + "x" * 3000),
    ],
)
async def test_unknown_names_are_404(town: Driver, method: str, path: str) -> None:
    problem(await town.http.request(method, path, json={} if method == "POST" else None, headers=TOWN), 404)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=-1",
        "limit=abc",
        "limit=",
        "limit=1e2",
        "limit=99999999999999999999999",
        "limit=1.5",
        "after=!",
        "after=abc",
        "after=" + "x" * 301,
        "after=%00",
        "after=e30",
        "after=%F0%9F%8E%B2",
        "x=%00",
    ],
)
async def test_bad_pages_are_422(town: Driver, query: str) -> None:
    for path in LISTS:
        problem(await town.http.get(f"{path}?{query}", headers=TOWN), 422)


@pytest.mark.parametrize(
    "position",
    [
        None,
        {},
        [],
        [1],
        [None],
        ["a", "b"],
        ["x" * 100],
        [[]],
        [2**70],
        ["\0"],
        ["\ud800"],
        [1.5],
        [True],
        [0, "1", 2**63],
        [0, "-1", 0],
        [0, "\u0661", 0],
        [2**40, "1", 0],
        [0, str(2**64), 0],
        ["communities", "\ud800"],
        ["communities", 1],
        ["communities"],
    ],
    ids=repr,
)
async def test_forged_cursors_are_422(town: Driver, position: Any) -> None:
    for path in LISTS:
        cursor = base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")
        assert pointers(await town.http.get(path, params={"after": cursor}, headers=TOWN)) == ["/after"]


async def test_cursors_of_other_lists_are_422(town: Driver) -> None:
    """Every list's own cursor is good for that list alone."""
    for number in range(2):
        await town.put(f"more-{number}")
        await town.post("process/probe.vote", {})
        await town.post("plugin/probe?community_platform_id=T" + str(number), {"label": "x"})
        await town.http.post("/api/internal/driver/endpoints", json={"url": "http://127.0.0.1:9/"})
    cursors = {}
    for path in LISTS:
        cursors[path] = (await town.http.get(path, params={"limit": 1}, headers=TOWN)).json()["next"]
    cursors["/api/internal/receipts"] = encode_cursor(["rcp_1"], of="receipts")
    for path in LISTS:
        for owner, cursor in cursors.items():
            if cursor is None:
                continue
            answer = await town.http.get(path, params={"after": cursor}, headers=TOWN)
            if owner == path:
                assert answer.status_code == 200
            else:
                problem(answer, 422)
    assert sum(cursor is not None for cursor in cursors.values()) >= 5


@pytest.mark.parametrize(
    "query", ["status=nonesuch", "status=", "status=pending&status=x", "plugin=" + "x" * 65, "status=%FF"]
)
async def test_unknown_filter_values(town: Driver, query: str) -> None:
    problem(await town.http.get(f"/api/internal/process?{query}", headers=TOWN), 422)
    problem(await town.http.get(f"/api/internal/receipts?{query}", headers=TOWN), 422)


async def test_filters_that_match_nothing(town: Driver) -> None:
    assert (await town.http.get("/api/internal/process?plugin=nonesuch", headers=TOWN)).json()["processes"] == []
    assert (await town.http.get("/api/internal/events?type=%F0%9F%8E%B2&unknown=1")).json()["events"] == []


@pytest.mark.parametrize(
    "path",
    ["/api/internal/community/a%00b", "/api/action/probe.echo%00", "/%00", "/api/internal/receipts/%00", "/healthz%00"],
)
async def test_nul_in_the_path_is_422(town: Driver, path: str) -> None:
    for method in ("GET", "PUT", "POST", "DELETE"):
        problem(await town.http.request(method, path, headers=TOWN), 422)


@pytest.mark.parametrize("name", ["X-Metagov-Community", "Idempotency-Key", "Authorization", "X-Request-Id", "X-Other"])
async def test_nul_in_a_header_is_422(app: FastAPI, town: Driver, name: str) -> None:
    """No HTTP server passes one on; should one do so, it ends here."""
    headers = [(b"authorization", f"Bearer {town.api_key}".encode()), (b"x-metagov-community", b"town")]
    headers = [item for item in headers if item[0] != name.lower().encode()]
    headers += [(name.lower().encode(), b"a\0b"), (b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": ACT,
        "raw_path": ACT.encode(),
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def keep(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, keep)
    answer = httpx.Response(sent[0]["status"], headers=sent[0]["headers"], content=sent[1]["body"])
    problem(answer, 422)


@pytest.mark.parametrize("slug", ["\u00e9", "x" * 5000, " ", "town ", "TOWN", "../town", "town\u00a0"])
async def test_odd_community_headers_are_unknown_ones(town: Driver, slug: str) -> None:
    headers: Any = {"X-Metagov-Community": slug.encode("latin-1")}
    answer = await town.http.get("/api/internal/plugin", headers=headers)
    problem(answer, 400)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"parameters": []}, ["/parameters"]),
        ({"parameters": {}}, ["/parameters/text"]),
        ({"parameters": {"text": 1}}, ["/parameters/text"]),
        ({"parameters": {"text": "x" * 101}}, ["/parameters/text"]),
        ({"parameters": {"text": "x", "more": 1}}, ["/parameters/more"]),
        ({"parameters": None}, ["/parameters"]),
        ({"params": {}}, ["/params"]),
        ({"community_platform_id": 1, "parameters": {"text": "x"}}, ["/community_platform_id"]),
    ],
)
async def test_wrong_parameters_are_named(town: Driver, body: Any, where: list[str]) -> None:
    assert pointers(await town.http.post(ACT, json=body, headers=TOWN)) == where


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"title": 1}, ["/title"]),
        ({"nonesuch": 1}, ["/nonesuch"]),
        ({"callback_url": "not a url"}, ["/callback_url"]),
        ({"callback_url": "ftp://x.example/"}, ["/callback_url"]),
        ({"callback_url": "http://"}, ["/callback_url"]),
        ({"callback_url": "http://u:p@x.example/"}, ["/callback_url"]),
        ({"callback_url": "http://169.254.169.254/"}, ["/callback_url"]),
        ({"callback_url": 5}, ["/callback_url"]),
        ({"correlation_id": "x" * 501}, ["/correlation_id"]),
        ({"seconds": "soon"}, ["/seconds"]),
    ],
)
async def test_wrong_starts_are_named_and_start_nothing(town: Driver, body: Any, where: list[str]) -> None:
    assert pointers(await town.http.post(START, json=body, headers=TOWN)) == where
    assert (await town.get("process")).json()["processes"] == []


@pytest.mark.parametrize("host", ["", "a" * 5000, "x.example:99999", "[::1", "evil.example"])
async def test_the_host_header_does_not_matter(town: Driver, host: str) -> None:
    assert (await town.http.get("/api/internal/community", headers={"Host": host})).status_code == 200


async def test_request_ids_are_ours_unless_plain(town: Driver) -> None:
    for given_id, kept in (("abc-1", True), ("a b", False), ("x" * 65, False), ("\u00e9", False)):
        headers: Any = {"X-Request-Id": given_id.encode("latin-1")}
        answer = await town.http.get("/healthz", headers=headers)
        assert (answer.headers["x-request-id"] == given_id) is kept


# --- over a socket, where an HTTP parser stands in between -----------------------------------------------------------


async def raw(server: Server, request: bytes) -> bytes:
    """Bytes to the server, and what came back until it closed (or two seconds of silence)."""
    port = int(server.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        writer.write(request)
        async with asyncio.timeout(5):
            while chunk := await reader.read(65536):
                answer += chunk
                if b"\r\n\r\n" in answer:
                    break
    except TimeoutError:
        pass
    finally:
        writer.close()
    return answer


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-A: a\x00b\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /api/internal/community/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%ed%a0%80?limit=%ff&after=%ed%a0%80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /api/action/x.y HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/action/x.y HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"POST /api/action/x.y HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\n" + b"X-A: " + b"b" * 200_000 + b"\r\n\r\n",
    ],
    ids=lambda head: repr(head[:30]),
)
async def test_broken_http(server: Server, request_head: bytes) -> None:
    answer = await raw(server, request_head)
    status = answer.split(b" ", 2)[1:2]
    assert status in ([], [b"400"], [b"401"], [b"404"], [b"413"], [b"422"], [b"431"]), answer[:200]
    assert b"Traceback" not in answer
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(f"{server.url}/healthz")).status_code == 200, "and it goes on serving"


async def test_an_oversize_body_over_a_socket(server: Server) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 50_000

    headers = {"Authorization": f"Bearer {server.api_key}", **JSON}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, trust_env=False) as http:
        problem(await http.put("/api/internal/community/big", content=b"x" * 1_200_000), 413)
        with contextlib.suppress(httpx.WriteError):  # it may answer and close before all is written
            problem(await http.put("/api/internal/community/big", content=endless()), 413)
        problem(await http.get("/api/internal/community/big"), 404)


# --- the database away -----------------------------------------------------------------------------------------------


@pytest.fixture
async def stranded(plugins: Plugins) -> AsyncIterator[FastAPI]:
    """The API, its database's address closed."""
    away = make_settings(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing")
    api = create_app(away, plugins)
    async with api.router.lifespan_context(api):
        yield api


@pytest.mark.parametrize(
    ("method", "path"), [*BODIES, *(("GET", path) for path in LISTS), ("GET", PUT), ("DELETE", PUT)]
)
@pytest.mark.parametrize("key", [False, True])
async def test_without_a_database_it_is_503(stranded: FastAPI, method: str, path: str, key: bool) -> None:
    headers = {"Authorization": "Bearer mgk_some", **TOWN, **({"Idempotency-Key": "k"} if key else {})}
    transport = httpx.ASGITransport(stranded, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test", headers=headers) as http:
        answer = await http.request(method, path, json=None if method in ("GET", "DELETE") else {})
        problem(answer, 503)
        assert answer.headers["retry-after"] == "1"


async def test_what_needs_no_database_answers_without_it(stranded: FastAPI) -> None:
    transport = httpx.ASGITransport(stranded, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as http:
        assert (await http.get("/healthz")).status_code == 200
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["database"]) == (503, "cannot be reached")
        assert ready.headers["retry-after"]
        problem(await http.get("/api/internal/community"), 401)
        hook = await http.post("/api/hooks/town/probe", content=b"{}")
        problem(hook, 503)
        assert hook.headers["retry-after"]


async def test_connections_that_break_are_made_again(town: Driver, gateway: Gateway) -> None:
    """As after a restart of the database: a 503 at worst, and no restart of ours."""
    break_all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
    for _ in range(3):
        requests = [asyncio.create_task(town.act("probe.count")) for _ in range(20)]
        await asyncio.sleep(0.01)
        database = await gateway.db.pool.fetchval("SELECT current_database()")
        await gateway.db.pool.execute(break_all, database)
        for answer in await asyncio.gather(*requests):
            if answer.status_code != 200:
                problem(answer, 503)
                assert answer.headers["retry-after"]
    async with asyncio.timeout(5):
        while (await town.act("probe.count")).status_code != 200:
            await asyncio.sleep(0.05)


# --- anything at all -------------------------------------------------------------------------------------------------

_TEXT = st.text(max_size=30) | st.sampled_from(["town", "probe", "\0", "\ud800", "********", "T1", "1"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)
_NAMES = st.sampled_from(
    [
        "name", "slug", "readable_name", "plugins", "config", "community_platform_id", "parameters", "text", "label",
        "team", "token", "secrets", "webhook_secret", "title", "seconds", "callback_url", "correlation_id", "url",
        "events", "communities", "format", "ordered", "enabled", "status",
    ]
)  # fmt: skip
_PLUGIN = st.fixed_dictionaries(
    {"name": st.sampled_from(["probe", "randomness", "github", "sourcecred"]) | _VALUES},
    optional={"config": st.dictionaries(_NAMES, _VALUES, max_size=4) | _VALUES, "community_platform_id": _VALUES},
)
_OBJECTS = st.dictionaries(_NAMES, _VALUES | st.lists(_PLUGIN, max_size=3), max_size=5)
_ENABLE = st.fixed_dictionaries({"readable_name": _TEXT, "plugins": st.lists(_PLUGIN, max_size=3)})
_CALL = st.fixed_dictionaries({"parameters": st.fixed_dictionaries({"text": _TEXT | _VALUES})})
_BYTES = st.one_of(
    _ENABLE.map(lambda value: json.dumps(value).encode()),
    _CALL.map(lambda value: json.dumps(value).encode()),
    _OBJECTS.map(lambda value: json.dumps(value).encode()),
    _VALUES.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=60),
)
_SEGMENTS = st.lists(
    st.sampled_from(
        [
            "api", "internal", "action", "hooks", "community", "plugin", "process", "events", "receipts", "driver",
            "endpoints", "town", "probe", "probe.echo", "probe.vote", "probe.read", "randomness.random-int", "metadata",
            "hint", "x", "%00", "%2F", "..", "%ED%A0%80", "plugin-schemas",
        ]
    ),
    max_size=5,
)  # fmt: skip
_CALLS = st.one_of(
    st.sampled_from([*BODIES, *(("GET", path) for path in LISTS)]),
    st.sampled_from(BODIES),
    st.tuples(
        st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE"]),
        st.sampled_from([path for _, path in BODIES] + LISTS) | _SEGMENTS.map(lambda parts: "/" + "/".join(parts)),
    ),
)
_QUERIES = st.dictionaries(
    st.sampled_from(
        ["limit", "after", "status", "plugin", "type", "source", "community", "community_platform_id", "verbose"]
    ),
    _TEXT | st.integers().map(str) | _VALUES.map(lambda value: encode_cursor([value])),
    max_size=3,
)
_HEADER = st.binary(max_size=20).filter(lambda value: b"\r" not in value and b"\n" not in value)
_HEADERS = st.dictionaries(
    st.sampled_from(["X-Metagov-Community", "Idempotency-Key", "Prefer", "Content-Type", "X-Request-Id", "Accept"]),
    st.sampled_from([b"town", b"respond-async", b"application/json", b"*/*"]) | _HEADER,
    max_size=4,
)
_DOCUMENTED = {200, 201, 202, 204, 307, 400, 401, 403, 404, 405, 409, 413, 415, 422, 429, 502, 503}


async def test_anything_at_all(town: Driver) -> None:
    """Drawn at random, bounded in number: never an undocumented status, never a 5xx of our own."""
    loop = asyncio.get_running_loop()
    seen: Counter[int] = Counter()

    async def ask(method: str, path: str, query: Any, headers: Any, body: bytes) -> httpx.Response:
        named = {**TOWN, **JSON} | headers
        encoded = {key: value.encode("utf-8", "surrogatepass") for key, value in query.items()}
        suffix = "&".join(f"{key}={_percent(value)}" for key, value in encoded.items())
        return await town.http.request(method, f"{path}?{suffix}", headers=named, content=body)

    @settings(
        max_examples=500,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        print_blob=True,
    )
    @given(_CALLS, st.just({}) | _QUERIES, st.just({}) | _HEADERS, _BYTES)
    def probe(call: tuple[str, str], query: Any, headers: Any, body: bytes) -> None:
        answer = asyncio.run_coroutine_threadsafe(ask(*call, query, headers, body), loop).result(20)
        seen[answer.status_code] += 1
        assert answer.status_code in _DOCUMENTED, answer.text
        assert answer.status_code < 500, answer.text
        if answer.is_error:
            problem(answer, answer.status_code)

    await asyncio.to_thread(probe)
    # 201 as well in most runs, and not in all: the dice seldom write a body that makes something.
    assert {200, 404, 422} <= set(seen), "the dice reach past the doors"
    assert (await town.http.get("/healthz")).status_code == 200


def _percent(value: bytes) -> str:
    return "".join(f"%{byte:02X}" for byte in value)
