"""The endpoints that deliveries go to: answers 200 at once, or after half a second on its first port.

Commands come one per line on stdin: a JSON object of port -> signing secret starts the count anew; the answer, one
line of stdout, is what was counted until then. Of every 97 posts one is kept, and its signature checked when asked.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, cast

import uvloop

from benchmarks.pace import content_length

SLOW_SECONDS = 0.5
_KEEP_ONE_OF = 97
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


@dataclass(slots=True)
class Counted:
    """What has been posted; times by the sink's own clock, in seconds."""

    posts: int = 0
    first: float = 0.0
    last: float = 0.0
    checked: int = 0
    wrong: int = 0

    @property
    def rate(self) -> float:
        """Posts per second, from the first to the last; 0 for fewer than two."""
        return (self.posts - 1) / (self.last - self.first) if self.posts > 1 else 0.0


@dataclass(slots=True)
class Book:
    """The count, and the posts kept for checking."""

    secrets: dict[str, str] = field(default_factory=dict)
    counted: Counted = field(default_factory=Counted)
    kept: list[tuple[str, bytes]] = field(default_factory=list)

    def note(self, port: str, message: bytes) -> None:
        """Count one post."""
        now = time.perf_counter()
        counted = self.counted
        if not counted.posts:
            counted.first = now
        if counted.posts % _KEEP_ONE_OF == 0:
            self.kept.append((port, message))
        counted.posts += 1
        counted.last = now

    def close(self, secrets: dict[str, str]) -> Counted:
        """Check what was kept, and start anew with these secrets."""
        counted = self.counted
        counted.checked = len(self.kept)
        counted.wrong = sum(not is_signed(message, self.secrets.get(port, "")) for port, message in self.kept)
        self.secrets, self.counted, self.kept = secrets, Counted(), []
        return counted


class Endpoint(asyncio.Protocol):
    """Reads posts one after the other and answers each."""

    def __init__(self, book: Book, port: str, delay: float) -> None:
        self._book = book
        self._port = port
        self._delay = delay
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not asyncio's, only like them

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            whole = end + 4 + content_length(self._received[:end])
            if len(self._received) < whole:
                return
            if not self._received.startswith(b"POST "):
                # Somebody else's: another program of this machine that looks for its own server.
                self._transport.close()
                return
            self._book.note(self._port, self._received[:whole])
            self._received = self._received[whole:]
            if self._delay:
                asyncio.get_running_loop().call_later(self._delay, self._answer)
            else:
                self._answer()

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(_ANSWER)


def is_signed(message: bytes, secret: str) -> bool:
    """Whether a post carries the signature of Standard Webhooks, made with `secret`.

    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """
    head, _, body = message.partition(b"\r\n\r\n")
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    headers = {name.strip().lower(): value.strip() for name, _, value in lines}
    signed = b".".join((headers.get(b"webhook-id", b""), headers.get(b"webhook-timestamp", b""), body))
    digest = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256).digest()
    return b"v1," + base64.b64encode(digest) in headers.get(b"webhook-signature", b"").split(b" ")


async def serve(ports: list[str]) -> None:
    """Listen on loopback until stdin ends. The first port is the slow one."""
    loop, book, lines = asyncio.get_running_loop(), Book(), asyncio.StreamReader()
    for place, port in enumerate(ports):
        delay = SLOW_SECONDS if place == 0 else 0.0
        await loop.create_server(partial(Endpoint, book, port, delay), "127.0.0.1", int(port), backlog=1024)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        secrets: dict[str, Any] = json.loads(line)
        print(json.dumps(asdict(book.close(secrets))), flush=True)


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1:]))
