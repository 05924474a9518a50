"""uvicorn's HTTP protocol with an answer's head and body in one write: a system call less, here and at the client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEAD = b"HTTP/1.1 "


class OneWriteProtocol(HttpToolsProtocol):
    """Give it to `uvicorn.run` as `http`."""

    write_whole: Callable[[bytes], None]
    """Write an answer that is whole: nothing of it is held back."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        joined = _JoinedTransport(transport, self.loop)
        self.write_whole = joined.write_whole
        super().connection_made(cast(asyncio.Transport, joined))


class _JoinedTransport:
    """Holds an answer's head back until the body's first bytes come, or until the loop's next turn if none do."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Write, or keep for the next write."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(_HEAD):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def write_whole(self, data: bytes) -> None:
        """Write what nothing follows that belongs to it."""
        self._flush()
        self._transport.write(data)

    def close(self) -> None:
        """Close once all is written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
