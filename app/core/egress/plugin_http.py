"""The httpx client that plugins are given to talk to their platforms."""

import asyncio
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpcore
import httpx

from app.core.egress.lookup import Resolve, resolve_checked, system_resolve
from app.core.egress.policy import EgressPolicy, EgressRefused

_GZIP_WINDOW = zlib.MAX_WBITS | 16
_MOST_ADDRESSES_TRIED = 4
_SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


class BodyTooLarge(Exception):
    """A response body went past the cap; reading it was stopped and its connection closed."""


class GuardedTransport(httpx.AsyncHTTPTransport):
    """An httpx transport that connects only to checked addresses and bounds every answer.

    The name in the URL stays the Host header and the name that TLS verifies; only the dialled address is
    chosen here. ``total_seconds`` bounds a request from its start to the end of its body
    (httpx.ReadTimeout), ``max_body`` the body's bytes after decompression (BodyTooLarge). gzip is
    the one compression taken, as it can be unpacked within a bound. Raises EgressRefused for what
    ``policy`` refuses, also when a caller has redirects followed: each hop comes through here.
    """

    def __init__(
        self,
        policy: EgressPolicy,
        *,
        total_seconds: float = 30,
        max_body: int = 32 * 1024 * 1024,
        connections: int = 100,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve = system_resolve,
    ) -> None:
        context = tls or httpx.create_ssl_context(trust_env=False)
        super().__init__(verify=context, trust_env=False)
        self._policy = policy
        self._total_seconds = total_seconds
        self._max_body = max_body
        # httpx passes no network backend through, so its pool is replaced by one that has ours.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=30,
            network_backend=_GuardedBackend(policy, resolve),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request``; see the class for what is raised besides httpx's own errors."""
        self._policy.check_url(str(request.url))
        request.headers["Accept-Encoding"] = "gzip"
        deadline = asyncio.get_running_loop().time() + self._total_seconds
        try:
            async with asyncio.timeout_at(deadline):
                answer = await super().handle_async_request(request)
        except TimeoutError:
            raise _too_slow(request) from None
        coding = answer.headers.get("Content-Encoding", "identity").strip().lower()
        if coding not in ("identity", "gzip", "x-gzip"):
            await answer.aclose()
            raise httpx.DecodingError(f"the answer is compressed as {coding[:40]!r}, only gzip was offered")
        headers = answer.headers
        if coding != "identity":
            headers = httpx.Headers(
                [
                    (name, value)
                    for name, value in headers.raw
                    if name.lower() not in (b"content-encoding", b"content-length")
                ]
            )
        assert isinstance(answer.stream, httpx.AsyncByteStream)  # noqa: S101 - what httpx's transport makes
        body = _BoundedBody(answer.stream, request, deadline, self._max_body, compressed=coding != "identity")
        return httpx.Response(answer.status_code, headers=headers, stream=body, extensions=answer.extensions)


def plugin_client(
    policy: EgressPolicy,
    *,
    base_url: str = "",
    headers: Mapping[str, str] | None = None,
    auth: httpx.Auth | None = None,
    total_seconds: float = 30,
    max_body: int = 32 * 1024 * 1024,
    transport: httpx.AsyncBaseTransport | None = None,
) -> httpx.AsyncClient:
    """Make a client that reaches only what ``policy`` permits.

    It follows no redirects, keeps no cookies and reads no proxy settings or .netrc. ``transport`` shares one
    pool of connections among clients (``policy`` and the two bounds are then the transport's own); closing
    a client closes its transport, so a shared one is closed by its owner instead.
    """
    return httpx.AsyncClient(
        transport=transport or GuardedTransport(policy, total_seconds=total_seconds, max_body=max_body),
        base_url=base_url,
        headers=headers,
        auth=auth,
        timeout=httpx.Timeout(min(10, total_seconds)),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
        trust_env=False,
    )


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Dials the checked addresses of a host, in turn, instead of the host."""

    def __init__(self, policy: EgressPolicy, resolve: Resolve) -> None:
        self._policy = policy
        self._resolve = resolve
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[_SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                addresses = await resolve_checked(self._policy, self._resolve, host, port)
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"looking up {host} took too long") from None
        except socket.gaierror as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved: {error.strerror}") from error
        except OSError as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved: {error}") from error
        tried = addresses[:_MOST_ADDRESSES_TRIED]
        each = None if timeout is None else timeout / len(tried)
        for address in tried[:-1]:
            try:
                return await self._network.connect_tcp(str(address), port, each, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._network.connect_tcp(str(tried[-1]), port, each, local_address, socket_options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        socket_options: Iterable[_SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise EgressRefused("local sockets are not reachable by URL")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _BoundedBody(httpx.AsyncByteStream):
    """A response body that ends with an error at a deadline or past a number of unpacked bytes."""

    def __init__(
        self,
        stream: httpx.AsyncByteStream,
        request: httpx.Request,
        deadline: float,
        limit: int,
        *,
        compressed: bool,
    ) -> None:
        self._stream = stream
        self._request = request
        self._deadline = deadline
        self._limit = limit
        self._unpack = zlib.decompressobj(_GZIP_WINDOW) if compressed else None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = aiter(self._stream)
        left = self._limit
        started = False
        while (chunk := await self._next_in_time(chunks)) is not None:
            started = True
            # One byte more than is left is enough to know that the body is too large.
            part = chunk if self._unpack is None else self._inflate(self._unpack, chunk, left + 1)
            left -= len(part)
            if left < 0:
                raise BodyTooLarge(f"the answer is larger than {self._limit} bytes")
            if part:
                yield part
        if started and self._unpack is not None and not self._unpack.eof:
            raise httpx.DecodingError("the compressed answer ends early", request=self._request)

    async def _next_in_time(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        try:
            async with asyncio.timeout_at(self._deadline):
                return await anext(chunks, None)
        except TimeoutError:
            raise _too_slow(self._request) from None

    def _inflate(self, unpack: "zlib._Decompress", chunk: bytes, most: int) -> bytes:
        try:
            part = unpack.decompress(chunk, most)
        except zlib.error as error:
            raise httpx.DecodingError(f"the answer is not valid gzip: {error}", request=self._request) from error
        if unpack.unused_data:  # zlib would keep all of it, however much follows
            raise httpx.DecodingError("the compressed answer goes on past its end", request=self._request)
        return part

    async def aclose(self) -> None:
        await self._stream.aclose()


def _too_slow(request: httpx.Request) -> httpx.ReadTimeout:
    return httpx.ReadTimeout(f"{request.url.host} did not answer in full in time", request=request)
