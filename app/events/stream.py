"""Following the event log over Server-Sent Events.

Per process one loop asks the database twice a second how far the log of each driver with an open stream reaches, and
wakes the streams that have something to read. It asks rather than listens because no hint can tell when an event
shows: that is when the last older transaction ends, which may be another's, in another process. The cost is two small
statements a second per process, however many streams there are; none when there are none; and Redis is not needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import structlog
from starlette.responses import StreamingResponse
from starlette.types import Message, Send

from app.core.db import Database, is_away
from app.core.errors import Problem, TooMany
from app.events import log
from app.events.log import START, Filter, Position

POLL_SECONDS = 0.5
HEARTBEAT_SECONDS = 15.0
STALLED_SECONDS = 60.0
"""A reader that takes nothing for so long is let go; it comes back with the cursor it has."""
MOST_STREAMS = 100
"""Open streams of one driver in one process."""
_PAGE = 25
"""Events that a stream holds while its reader takes them; a platform's may be of many megabytes."""

# One line feed: a blank line after a comment makes some clients report an empty event.
_HEARTBEAT = b": heartbeat\n"

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Followed:
    """A driver with open streams: how far its log reaches, and the bell for when that changes."""

    streams: int = 0
    end: Position = START
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def ring(self) -> None:
        """Wake the streams that wait now."""
        news, self.news = self.news, asyncio.Event()
        news.set()


class EventStreams:
    """The open streams of one API process. An async context manager; streams end when it or the process is to."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._followed: dict[str, _Followed] = {}
        self._polling: asyncio.Task[None] | None = None
        self._ending = False
        self._stack = contextlib.ExitStack()

    async def __aenter__(self) -> EventStreams:
        self._stack.enter_context(_on_termination(asyncio.get_running_loop(), self.end))
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._stack.close()
        self.end()
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.wait([self._polling])

    def end(self) -> None:
        """Let every stream end where it is."""
        self._ending = True
        for followed in self._followed.values():
            followed.ring()

    async def newest(self, driver_id: str) -> Position:
        """Where a stream starts that wants what happens from now on."""
        return (await log.find_ends(self._db.pool, [driver_id])).get(driver_id, START)

    def check_room(self, driver_id: str) -> None:
        """Raises TooMany when the driver has as many streams as it may."""
        followed = self._followed.get(driver_id)
        if followed is not None and followed.streams >= MOST_STREAMS:
            raise TooMany(f"you have {MOST_STREAMS} open streams here; close one", headers={"retry-after": "5"})

    async def follow(
        self, driver_id: str, position: Position, wanted: Filter, still_allowed: Callable[[], Awaitable[object]]
    ) -> AsyncGenerator[bytes]:
        """A stream's bytes after `position`, without end. `still_allowed` raises a Problem when the key has gone.

        No connection is held while it waits for events or for its reader. Ends when the database cannot be reached.
        """
        try:
            async with contextlib.aclosing(self._follow(driver_id, position, wanted, still_allowed)) as stream:
                async for chunk in stream:
                    yield chunk
        except Problem as problem:
            _log.info("event stream ended", reason=problem.detail)
        except Exception as error:
            if not is_away(error):
                raise
            _log.warning("event stream ended: the database cannot be reached", error=type(error).__name__)

    async def _follow(
        self, driver_id: str, position: Position, wanted: Filter, still_allowed: Callable[[], Awaitable[object]]
    ) -> AsyncGenerator[bytes]:
        loop = asyncio.get_running_loop()
        with self._following(driver_id) as followed:
            yield _HEARTBEAT
            due = loop.time() + HEARTBEAT_SECONDS
            while not self._ending:
                if loop.time() >= due:
                    await still_allowed()
                    yield _HEARTBEAT
                    due = loop.time() + HEARTBEAT_SECONDS
                end = followed.end
                page = await log.read_after(self._db.pool, driver_id, position, wanted, limit=_PAGE)
                for position, event in page:
                    yield _frame(position, event)
                if len(page) == _PAGE:
                    continue
                # What was complete before this page was read holds nothing more for this stream.
                position = max(position, end)
                while followed.end <= position and not self._ending and loop.time() < due:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(followed.news.wait(), due - loop.time())

    @contextlib.contextmanager
    def _following(self, driver_id: str) -> Iterator[_Followed]:
        followed = self._followed.setdefault(driver_id, _Followed())
        followed.streams += 1
        if self._polling is None or self._polling.done():
            # In a context of its own: its log lines are not the first stream's request.
            self._polling = asyncio.get_running_loop().create_task(self._poll(), context=contextvars.Context())
        try:
            yield followed
        finally:
            followed.streams -= 1
            if not followed.streams:
                del self._followed[driver_id]
            if not self._followed:
                self._polling.cancel()
                self._polling = None

    async def _poll(self) -> None:
        while True:
            try:
                ends = await log.find_ends(self._db.pool, list(self._followed))
            except Exception as error:
                # Whatever it is, streams must not wait for ever for a loop that is gone.
                _log.warning("cannot see how far the event log reaches", error=type(error).__name__)
            else:
                self._note(ends)
            await asyncio.sleep(POLL_SECONDS)

    def _note(self, ends: dict[str, Position]) -> None:
        for driver_id, end in ends.items():
            followed = self._followed.get(driver_id)
            if followed is not None and end > followed.end:
                followed.end = end
                followed.ring()


class EventStreamResponse(StreamingResponse):
    """An answer of Server-Sent Events: closes its source whichever way it ends, and lets go of a stalled reader."""

    media_type = "text/event-stream"

    def __init__(self, source: AsyncGenerator[bytes]) -> None:
        super().__init__(source, headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        self._source = source

    async def stream_response(self, send: Send) -> None:
        """Send it all, as Starlette does."""

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(STALLED_SECONDS):
                await send(message)

        async with contextlib.aclosing(self._source):
            try:
                await super().stream_response(send_in_time)
            except TimeoutError:
                _log.info("event stream ended: its reader takes nothing")


def _frame(position: Position, event: dict[str, Any]) -> bytes:
    """One event in SSE's format. What a platform says of a type's name may not begin a line of its own."""
    name = "".join(c if c.isprintable() else " " for c in f"{event['source']}.{event['event_type']}")
    return f"id: {position.cursor}\nevent: {name}\ndata: {json.dumps(event)}\n\n".encode(errors="replace")


@contextlib.contextmanager
def _on_termination(loop: asyncio.AbstractEventLoop, tell: Callable[[], None]) -> Iterator[None]:
    """Calls `tell` in the loop on SIGTERM and SIGINT, before whoever heard of them until now.

    A server waits for open answers before it tells the application that it is ending: a stream would only hear of it
    by being cut off, after the server's whole time-out.
    """
    active = True
    restore: list[Callable[[], None]] = []

    def chain(number: signal.Signals) -> None:
        before = signal.getsignal(number)
        if not callable(before):
            return

        def heard(received: int, frame: FrameType | None) -> None:
            if active:
                loop.call_soon_threadsafe(tell)
            before(received, frame)

        try:
            signal.signal(number, heard)
        except ValueError:
            return  # Not in the main thread: signals are somebody else's.
        restore.append(lambda: _restore(number, heard, before))

    for number in (signal.SIGTERM, signal.SIGINT):
        chain(number)
    try:
        yield
    finally:
        active = False
        for undo in restore:
            undo()


def _restore(number: signal.Signals, ours: object, before: Callable[[int, FrameType | None], Any]) -> None:
    if signal.getsignal(number) is ours:
        signal.signal(number, before)
