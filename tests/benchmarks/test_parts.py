"""What the benchmarks' own parts say is so: they would flatter the gateway otherwise, or wrong it."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime

from standardwebhooks import Webhook

from app.core.ids import moment_of
from benchmarks.pace import send_paced
from benchmarks.report import Report
from benchmarks.rows import time_of_id
from benchmarks.sink import Book, is_signed
from benchmarks.tally import quantile

_SECRET = "whsec_c2VjcmV0IG9mIG5vYm9keSdz"
_OTHER = "whsec_YW5vdGhlciBzZWNyZXQgb2YgaGVycw=="


def _post(body: bytes = b'{"n": 1}') -> bytes:
    now = datetime.now(UTC)
    signature = Webhook(_SECRET).sign("evt_1", now, body.decode())
    head = f"POST / HTTP/1.1\r\nWebhook-Id: evt_1\r\nwebhook-timestamp: {int(now.timestamp())}\r\n"
    return f"{head}webhook-signature: v1,bm9uZQ== {signature}\r\n\r\n".encode() + body


def test_the_sink_knows_a_signature_of_the_reference_library() -> None:
    post = _post()
    assert is_signed(post, _SECRET)
    assert not is_signed(post, _OTHER)
    assert not is_signed(post.replace(b'"n": 1', b'"n": 2'), _SECRET)


def test_the_sink_tells_posts_signed_for_another_port() -> None:
    book = Book({"1": _SECRET, "2": _OTHER})
    book.note("1", _post())
    assert book.close({"1": _OTHER}).wrong == 0
    book.note("1", _post())
    counted = book.close({})
    assert (counted.posts, counted.checked, counted.wrong) == (1, 1, 1)


async def test_a_paced_load_does_not_wait_for_answers() -> None:
    arrived: list[tuple[float, bytes]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError), contextlib.closing(writer):
            while head := await reader.readuntil(b"\r\n\r\n"):
                arrived.append((asyncio.get_running_loop().time(), head))
                await asyncio.sleep(0.3)
                writer.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")

    server = await asyncio.start_server(answer, "127.0.0.1")
    async with server:
        port = server.sockets[0].getsockname()[1]
        job = {"port": port, "request": "POST / HTTP/1.1\r\nx: @@UNIQUE@@\r\n\r\n", "status": 202}
        tally = await send_paced({**job, "rate": 100, "seconds": 0.2, "connections": 1})
    assert tally.failed == 0
    assert len(tally.latencies) == len(arrived) == 20
    assert min(tally.latencies) >= 0.29, "each answer took its time"
    # One connection that waited for its answers would have taken twenty times 0.3 s.
    assert arrived[-1][0] - arrived[0][0] < 3
    sent = [int(head.partition(b"x: ")[2]) for _, head in arrived]
    assert len(set(sent)) == 20, "each is marked with its own time"


def test_ratios_and_targets() -> None:
    report = Report("group")
    report.add("more is better", [3, 1, 2], "rows/s", "yardstick", [4, 4, 4], 0.5)
    report.add("less is better", [3, 1, 2], "ms", "yardstick", [1, 1, 1], 1.9, at_most=True)
    report.add("no target", [1], "ms", "yardstick", [2], None)
    assert [(figure["ratio"], figure["ok"]) for figure in report.figures] == [(0.5, True), (2.0, False), (0.5, None)]


def test_quantiles() -> None:
    assert [quantile(range(100), share) for share in (0.5, 0.99)] == [50, 99]
    assert quantile([], 0.5) == 0


def test_ids_of_another_time() -> None:
    moment = datetime(2026, 1, 5, 10, tzinfo=UTC)
    assert moment_of("evt_" + time_of_id(moment) + "0123456789abcdef") == moment
