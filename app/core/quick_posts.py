"""uvicorn's HTTP protocol with a short way for POSTs that are answered by a future and nothing else.

An ASGI application costs each request a task, an event, a scope and three messages: about as much again as taking a
webhook. Where the application has a `take_post`, it is asked first, with the whole body in hand.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from app.core.one_write import OneWriteProtocol

RawHeaders = list[tuple[bytes, bytes]]


class Answer(NamedTuple):
    """An answer as ASGI has it."""

    status: int
    headers: RawHeaders
    body: bytes


class Promise(NamedTuple):
    """An answer that is still to come."""

    until: asyncio.Future[Any]
    answer: Callable[[], Answer | None]
    """Called once when `until` is done; None: the application has to be asked after all."""


class TakePost(Protocol):
    """Takes a POST, or leaves it to the application with None. It must not raise."""

    def __call__(self, path: str, headers: RawHeaders, body: bytes) -> Answer | Promise | None: ...


class QuickPostsProtocol(OneWriteProtocol):
    """Give it to `uvicorn.run` as `http`. The application's attributes `quick_prefix` and `take_post` are optional.

    Whatever is not plain goes the usual way: other methods, escapes and queries in the URL, HTTP/1.0, upgrades,
    `Expect`, bodies past 64 KiB, and requests pipelined behind one that is not yet answered.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._take_post: TakePost | None = getattr(self.app, "take_post", None)
        prefix: str = getattr(self.app, "quick_prefix", "/")
        self._plain = re.compile(re.escape(prefix.encode()) + rb"[A-Za-z0-9._~/-]+")
        self._quick: _Post | None = None
        if self.limit_concurrency is not None or self.root_path:
            self._take_post = None

    def on_message_begin(self) -> None:
        """Of a quick POST neither scope nor cycle is made."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        if self._is_quick():
            self._quick = self.cycle = cast(Any, _Post(self, self.url, self.headers, self.parser.should_keep_alive()))
            return
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        post = self._quick
        if post is None:
            super().on_body(body)
            return
        post.body += body
        if len(post.body) > HIGH_WATER_LIMIT:
            self._quick = None
            post.ask_application(more_body=True)

    def on_message_complete(self) -> None:
        post, self._quick = self._quick, None
        if post is None:
            super().on_message_complete()
            return
        take_post = cast(TakePost, self._take_post)
        taken = take_post(post.url.decode(), post.headers, bytes(post.body))
        if taken is None:
            post.ask_application()
        elif isinstance(taken, Promise):
            post.answer = taken.answer
            taken.until.add_done_callback(post.finish)
        else:
            post.send(taken)

    def _is_quick(self) -> bool:
        return (
            self._take_post is not None
            and self._plain.fullmatch(self.url) is not None
            and (self.cycle is None or self.cycle.response_complete)
            and not self.expect_100_continue
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and not self.parser.should_upgrade()
        )


class _Post:
    """A POST on its short way. To uvicorn's protocol it is the cycle under way."""

    __slots__ = (
        "answer",
        "body",
        "disconnected",
        "headers",
        "keep_alive",
        "message_event",
        "protocol",
        "response_complete",
        "url",
    )

    def __init__(self, protocol: QuickPostsProtocol, url: bytes, headers: RawHeaders, keep_alive: bool) -> None:
        self.protocol = protocol
        self.url = url
        self.headers = headers
        self.keep_alive = keep_alive
        self.body = bytearray()
        self.answer: Callable[[], Answer | None]
        self.response_complete = False
        self.disconnected = False
        self.message_event = _NOBODY_WAITS

    def finish(self, _: asyncio.Future[Any]) -> None:
        """Answer, or leave that to the application."""
        answer = self.answer()
        if answer is None:
            self.ask_application()
        elif not self.disconnected:
            self.send(answer)

    def send(self, answer: Answer) -> None:
        """Write the answer; the connection goes on to what comes next."""
        self.response_complete = True
        protocol = self.protocol
        lines = [STATUS_LINE[answer.status]]
        for name, value in protocol.server_state.default_headers:
            lines += (name, b": ", value, b"\r\n")
        for name, value in answer.headers:
            lines += (name, b": ", value, b"\r\n")
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        lines += (b"\r\n", answer.body)
        protocol.write_whole(b"".join(lines))
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()

    def ask_application(self, *, more_body: bool = False) -> None:
        """Go the usual way with what has come in so far."""
        protocol = self.protocol
        cycle = RequestResponseCycle(
            scope={
                "type": "http",
                "asgi": {"version": protocol.asgi_version, "spec_version": "2.3"},
                "http_version": "1.1",
                "method": "POST",
                "server": protocol.server,
                "client": protocol.client,
                "scheme": protocol.scheme or "http",
                "root_path": "",
                "path": self.url.decode(),
                "raw_path": self.url,
                "query_string": b"",
                "headers": self.headers,
                "state": protocol.app_state.copy(),
            },
            transport=protocol.transport,
            flow=protocol.flow,
            logger=protocol.logger,
            access_logger=protocol.access_logger,
            access_log=protocol.access_log,
            default_headers=protocol.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=self.keep_alive,
            on_response=protocol.on_response_complete,
        )
        cycle.body = self.body
        cycle.more_body = more_body
        cycle.disconnected = self.disconnected
        cycle.message_event.set()
        if protocol.cycle is cast(Any, self):
            protocol.cycle = cycle
        if more_body:
            protocol.flow.pause_reading()
        protocol._start_asgi_task(cycle, protocol.app)


class _NoEvent:
    """Stands in for an event that nothing waits for."""

    def set(self) -> None:
        """Nobody to wake."""


_NOBODY_WAITS = _NoEvent()
