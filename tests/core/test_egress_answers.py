"""The guarded HTTP clients: no answer is endless in time or memory."""

import asyncio
import gzip
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence

import aiohttp
import httpx
import pytest

from app.core.egress import (
    BodyTooLarge,
    EgressPolicy,
    GuardedTransport,
    delivery_session,
    plugin_client,
    read_capped,
)
from tests.core.loopback import OPEN_BODY, Serve, answering, deliver, dripping, serving

PUBLIC = EgressPolicy()
LOOPBACK = EgressPolicy(allow=["127.0.0.1"])


@pytest.mark.parametrize(
    "serve",
    [
        pytest.param(dripping(OPEN_BODY, b"x", every=0.02), id="body"),
        pytest.param(dripping(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x", every=0.02), id="header"),
        pytest.param(dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n", every=0.02), id="continue"),
        pytest.param(dripping(b"", b"", every=0.02), id="silence"),
    ],
)
@pytest.mark.asyncio
async def test_a_slow_driver_meets_the_total_deadline(serve: Serve) -> None:
    async with serving(serve) as server:
        url = f"http://127.0.0.1:{server.port}/"
        begun = time.monotonic()
        async with asyncio.timeout(20):
            async with delivery_session(LOOPBACK, total_seconds=0.5) as session:
                with pytest.raises(TimeoutError):
                    await deliver(session, url)
            async with plugin_client(LOOPBACK, total_seconds=0.5) as client:
                with pytest.raises(httpx.ReadTimeout):
                    await client.get(url)
        assert time.monotonic() - begun > 0.9, "each took its half second"


@pytest.mark.asyncio
async def test_a_hanging_lookup_meets_the_total_deadline() -> None:
    async def hang(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        raise AssertionError

    async with asyncio.timeout(20):
        async with delivery_session(PUBLIC, total_seconds=0.3, resolve=hang) as session:
            with pytest.raises(TimeoutError):
                await deliver(session, "http://slow.test/")
        transport = GuardedTransport(PUBLIC, total_seconds=0.3, resolve=hang)
        async with httpx.AsyncClient(transport=transport) as client:
            with pytest.raises(httpx.TimeoutException):
                await client.get("http://slow.test/")


@pytest.fixture
def memory() -> Iterator[Callable[[], int]]:
    """Bytes allocated at the most since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.asyncio
async def test_an_endless_body_is_cut_at_the_cap(memory: Callable[[], int]) -> None:
    async with serving(dripping(OPEN_BODY, b"x" * 65536, every=0)) as server:
        url = f"http://127.0.0.1:{server.port}/"
        async with delivery_session(LOOPBACK) as session:
            status, body = await deliver(session, url, limit=100_000)
            assert (status, len(body)) == (200, 100_000)
        async with plugin_client(LOOPBACK, max_body=1_000_000) as client:
            with pytest.raises(BodyTooLarge, match="1000000"):
                await client.get(url)
    assert memory() < 8_000_000


@pytest.mark.asyncio
async def test_cutting_a_body_ends_its_connection() -> None:
    async with (
        serving(dripping(OPEN_BODY, b"x" * 65536, every=0.001)) as server,
        delivery_session(LOOPBACK) as session,
    ):
        response = await session.get(f"http://127.0.0.1:{server.port}/")
        assert await read_capped(response, 10) == b"x" * 10
        assert response.connection is None


@pytest.mark.asyncio
async def test_a_body_of_just_the_cap_is_whole_and_keeps_its_connection() -> None:
    async with serving(answering(b"x" * 1000)) as server:
        url = f"http://127.0.0.1:{server.port}/"
        async with delivery_session(LOOPBACK) as session:
            for _ in range(3):
                assert await deliver(session, url, limit=1000) == (200, b"x" * 1000)
            assert server.connections == 1
            assert await deliver(session, url, limit=999) == (200, b"x" * 999)
        async with plugin_client(LOOPBACK, max_body=1000) as client:
            assert len((await client.get(url)).content) == 1000
        async with plugin_client(LOOPBACK, max_body=999) as client:
            with pytest.raises(BodyTooLarge):
                await client.get(url)


@pytest.mark.parametrize(
    "serve",
    [
        pytest.param(dripping(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x" * 65536, every=0), id="one line"),
        pytest.param(dripping(b"HTTP/1.1 200 OK\r\n", b"X-Many: x\r\n" * 4096, every=0), id="many lines"),
    ],
)
@pytest.mark.asyncio
async def test_endless_headers_are_refused_in_bounded_memory(serve: Serve, memory: Callable[[], int]) -> None:
    async with serving(serve) as server:
        url = f"http://127.0.0.1:{server.port}/"
        async with delivery_session(LOOPBACK) as session:
            with pytest.raises(aiohttp.ClientError):
                await deliver(session, url)
        async with plugin_client(LOOPBACK) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(url)
    assert memory() < 8_000_000


@pytest.mark.asyncio
async def test_compressed_answers_are_unpacked_within_the_cap(memory: Callable[[], int]) -> None:
    bomb = gzip.compress(bytes(50_000_000), 9)
    before = memory()
    tracemalloc.reset_peak()
    async with serving(answering(bomb, "Content-Encoding: gzip")) as server:
        url = f"http://127.0.0.1:{server.port}/"
        async with plugin_client(LOOPBACK, max_body=1_000_000) as client:
            with pytest.raises(BodyTooLarge):
                await client.get(url)
        assert memory() < 10_000_000 < before, "unpacked in steps, not at once"
        async with delivery_session(LOOPBACK) as session:
            assert (await deliver(session, url))[1] == bomb[:65536], "deliveries never unpack"
    assert b"accept-encoding: gzip\r\n" in server.heads[0].lower()
    assert b"accept-encoding: identity\r\n" in server.heads[1].lower()


@pytest.mark.parametrize(
    ("coding", "body", "works"),
    [
        ("gzip", gzip.compress(b'{"a": 1}', mtime=0), True),
        ("X-GZip", gzip.compress(b'{"a": 1}', mtime=0), True),
        ("identity", b'{"a": 1}', True),
        ("gzip", b"", True),
        ("gzip", gzip.compress(b'{"a": 1}', mtime=0)[:-4], False),
        ("gzip", gzip.compress(b'{"a": 1}', mtime=0) + b"x", False),
        ("gzip", b"plain", False),
        ("br", b"\x0b\x02\x80", False),
        ("gzip, gzip", gzip.compress(gzip.compress(b'{"a": 1}', mtime=0), mtime=0), False),
    ],
)
@pytest.mark.asyncio
async def test_content_codings(coding: str, body: bytes, works: bool) -> None:
    async with (
        serving(answering(body, f"Content-Encoding: {coding}")) as server,
        plugin_client(LOOPBACK) as client,
    ):
        url = f"http://127.0.0.1:{server.port}/"
        if not works:
            with pytest.raises(httpx.DecodingError):
                await client.get(url)
            return
        answer = await client.get(url)
        assert answer.content == (b'{"a": 1}' if body else b"")
        async with client.stream("GET", url) as streamed:
            assert b"".join([part async for part in streamed.aiter_raw()]) == answer.content
