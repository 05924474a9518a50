"""POSTs on their short way, and everything that has to go the usual one: all over real sockets."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from app.core.quick_posts import Answer, Promise, QuickPostsProtocol, RawHeaders

_CONTENT_LENGTH = re.compile(rb"content-length: (\d+)")


@dataclass
class App:
    """Answers in upper case what goes the usual way, and `quick` what it takes; notes what it was asked."""

    answer: Callable[[bytes], Answer | Promise | None] = lambda _: _answer(b"quick")
    quick_prefix: str = "/quick/"
    taken: list[tuple[str, RawHeaders, bytes]] = field(default_factory=list)
    asked: list[Scope] = field(default_factory=list)

    def take_post(self, path: str, headers: RawHeaders, body: bytes) -> Answer | Promise | None:
        self.taken.append((path, headers, body))
        return self.answer(body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope)
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body.upper()})


@dataclass(frozen=True)
class Connection:
    """One connection to the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def post(
        self, path: str, body: bytes = b"hello", more: str = "", method: str = "POST", version: str = "1.1"
    ) -> None:
        head = f"{method} {path} HTTP/{version}\r\nhost: a\r\n{more}content-length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)

    async def read(self) -> tuple[int, bytes, bytes]:
        """Status, head and body of the next answer."""
        async with asyncio.timeout(5):
            head = await self.reader.readuntil(b"\r\n\r\n")
            while head.startswith(b"HTTP/1.1 100"):
                head = await self.reader.readuntil(b"\r\n\r\n")
            length = _CONTENT_LENGTH.search(head)
            assert length is not None
            return int(head.split()[1]), head, await self.reader.readexactly(int(length[1]))


@asynccontextmanager
async def serving(app: App, **options: Any) -> AsyncIterator[Connection]:
    """A connection to a server with this application; the server stops as it would when deployed."""
    config = uvicorn.Config(
        app, port=0, http=QuickPostsProtocol, log_config=None, lifespan="off", proxy_headers=False, **options
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
        try:
            yield Connection(reader, writer)
        finally:
            writer.close()
            server.should_exit = True
            await running


def _answer(body: bytes, status: int = 202) -> Answer:
    return Answer(status, [(b"x-way", b"short"), (b"content-length", str(len(body)).encode())], body)


def _later(answer: Answer | None, seconds: float = 0.02) -> Promise:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(seconds, done.set_result, None)
    return Promise(done, lambda: answer)


async def test_what_is_taken_is_answered_and_the_application_is_not_asked() -> None:
    app = App()
    async with serving(app) as connection:
        for _ in range(3):
            connection.post("/quick/a", more="x-one: 1\r\n")
            status, head, body = await connection.read()
            assert (status, body) == (202, b"quick")
            assert b"x-way: short\r\n" in head
            assert b"\r\ndate: " in head, "the server's own headers are there as ever"
    assert app.asked == []
    path, headers, content = app.taken[0]
    assert (path, content) == ("/quick/a", b"hello")
    assert headers == [(b"host", b"a"), (b"x-one", b"1"), (b"content-length", b"5")]


async def test_what_is_answered_later() -> None:
    app = App(lambda _: _later(_answer(b"in a while")))
    async with serving(app) as connection:
        for _ in range(2):
            connection.post("/quick/a")
            assert (await connection.read())[2] == b"in a while"


async def test_what_is_not_taken_reaches_the_application_whole() -> None:
    for refuse in (lambda _: None, lambda _: _later(None)):
        app = App(refuse)
        async with serving(app) as connection:
            for number in range(2):
                connection.post("/quick/a.b~c/d", b"hello %d" % number, more="x-one: 1\r\n")
                status, _, body = await connection.read()
                assert (status, body) == (200, b"HELLO %d" % number)
        scope = app.asked[0]
        assert (scope["type"], scope["method"], scope["http_version"]) == ("http", "POST", "1.1")
        assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/quick/a.b~c/d", b"/quick/a.b~c/d", b"")
        assert (b"x-one", b"1") in scope["headers"]
        assert scope["client"] and scope["server"]


async def test_the_scope_is_what_uvicorn_makes_itself() -> None:
    """A newer uvicorn may put more into it: whoever goes the long way has to see no difference."""
    app = App(lambda _: None)
    async with serving(app) as connection:
        for path in ("/quick/a", "/usual/a"):
            connection.post(path)
            await connection.read()
    short, usual = app.asked
    assert short.keys() == usual.keys()
    differing = {name for name in usual if short[name] != usual[name]}
    assert differing == {"path", "raw_path"}


async def test_only_plain_posts_under_the_prefix_are_offered() -> None:
    app = App()
    async with serving(app) as connection:
        for path in ("/usual/a", "/quick/a?b=c", "/quick/%61", "/quick/a?", "/quick/", "/quick/a;b", "/quickly/a"):
            connection.post(path)
            assert (await connection.read())[2] == b"HELLO", path
        for method in ("PUT", "DELETE"):
            connection.post("/quick/a", method=method)
            assert (await connection.read())[2] == b"HELLO", method
        connection.post("/quick/a", more="expect: 100-continue\r\n")
        assert (await connection.read())[2] == b"HELLO"
        connection.post("/quick/a", more="connection: upgrade\r\nupgrade: something\r\n")
        assert (await connection.read())[0] == 200
    assert app.taken == []


async def test_an_old_version_of_http_goes_the_usual_way() -> None:
    app = App()
    async with serving(app) as connection:
        connection.post("/quick/a", version="1.0")
        assert (await connection.read())[2] == b"HELLO"
        assert await connection.reader.read() == b""
    assert app.taken == []


async def test_a_large_body_goes_the_usual_way_and_arrives_whole() -> None:
    app = App()
    body = bytes(range(97, 123)) * 20_000
    async with serving(app) as connection:
        connection.post("/quick/a", body)
        assert (await connection.read())[2] == body.upper()
        connection.post("/quick/a")
        assert (await connection.read())[2] == b"quick"
    assert len(app.taken) == 1


async def test_a_body_in_chunks_and_in_pieces() -> None:
    app = App()
    async with serving(app) as connection:
        head = b"POST /quick/a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        for piece in (head[:20], head[20:], b"2\r\nhe\r\n", b"3\r\nll", b"o\r\n0\r\n\r\n"):
            connection.writer.write(piece)
            await asyncio.sleep(0.01)
        assert (await connection.read())[2] == b"quick"
    assert app.taken[0][2] == b"hello"


async def test_requests_sent_without_waiting_are_answered_in_their_order() -> None:
    answers: dict[bytes, Callable[[], Answer | Promise]] = {
        b"1": lambda: _later(_answer(b"1"), 0.05),
        b"2": lambda: _answer(b"2"),
        b"3": lambda: _later(None),
    }
    app = App(lambda body: answers[bytes(body)]())
    async with serving(app) as connection:
        for body in (b"1", b"2", b"3"):
            connection.post("/quick/a", body)
        connection.post("/usual/a", b"four")
        connection.post("/quick/a", b"2")
        assert [(await connection.read())[2] for _ in range(5)] == [b"1", b"2", b"3", b"FOUR", b"2"]
        connection.post("/quick/a", b"2")
        status, _, _ = await connection.read()
        assert status == 202, "the short way is open again"


async def test_a_connection_that_is_to_close_is_closed() -> None:
    for app in (App(), App(lambda _: _later(_answer(b"quick"))), App(lambda _: _later(None))):
        async with serving(app) as connection:
            connection.post("/quick/a", more="connection: close\r\n")
            _, head, _ = await connection.read()
            assert b"connection: close" in head.lower()
            assert await connection.reader.read() == b""


async def test_who_goes_away_before_the_answer_disturbs_nobody() -> None:
    gone = asyncio.Event()

    def answer() -> Answer | None:
        gone.set()
        return _answer(b"too late")

    def promise(_: bytes) -> Promise:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.2, done.set_result, None)
        return Promise(done, answer)

    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    async with serving(App(promise)) as connection:
        connection.post("/quick/a")
        await connection.writer.drain()
        await asyncio.sleep(0.05)
        connection.writer.close()
        async with asyncio.timeout(5):
            await gone.wait()
        await asyncio.sleep(0.01)
    assert failures == []


async def test_an_answer_under_way_is_given_when_the_server_stops() -> None:
    app = App(lambda _: _later(_answer(b"the last"), 0.3))
    reading: asyncio.Task[tuple[int, bytes, bytes]] | None = None
    config = uvicorn.Config(app, port=0, http=QuickPostsProtocol, log_config=None, lifespan="off", proxy_headers=False)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:
            await asyncio.sleep(0.01)
        connection = Connection(*await asyncio.open_connection(*server.servers[0].sockets[0].getsockname()))
        connection.post("/quick/a")
        reading = asyncio.create_task(connection.read())
        await asyncio.sleep(0.1)
        server.should_exit = True
        _, head, body = await reading
        assert body == b"the last"
        assert b"connection: close" in head
        assert await connection.reader.read() == b""
        connection.writer.close()
        await running


async def test_what_is_no_http_is_refused() -> None:
    app = App()
    async with serving(app) as connection:
        connection.writer.write(b"POST /quick/a HTTP/1.1\r\nhost: a\r\ncontent-length: nonsense\r\n\r\n")
        async with asyncio.timeout(5):
            assert (await connection.reader.read()).startswith(b"HTTP/1.1 400")
    assert app.taken == []
