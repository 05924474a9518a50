"""The aiohttp session that posts events to endpoints and callbacks."""

import math
import socket
import ssl
from ipaddress import IPv6Address
from types import SimpleNamespace

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import AddrInfoType

from app.core.egress.lookup import Resolve, resolve_checked, system_resolve
from app.core.egress.policy import EgressPolicy, EgressRefused

_MAX_HEADER_BYTES = 8190
_MAX_HEADERS = 128


class GuardedResolver(AbstractResolver):
    """Resolves names for aiohttp and lets only checked addresses through."""

    def __init__(self, policy: EgressPolicy, resolve: Resolve = system_resolve) -> None:
        self._policy = policy
        self._resolve = resolve
        self._opened_by_name: set[str] = set()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the checked addresses of ``host``. Raises EgressRefused, or OSError if it has none."""
        results: list[ResolveResult] = []
        for address in await resolve_checked(self._policy, self._resolve, host, port):
            its_family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
            if family not in (socket.AF_UNSPEC, its_family):
                continue
            results.append(
                ResolveResult(
                    hostname=host,
                    host=str(address),
                    port=port,
                    family=its_family,
                    proto=socket.IPPROTO_TCP,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
            )
        if not results:
            raise OSError(f"{host} has no address of the family asked for")
        if self._policy.opens_name(host):
            self._opened_by_name.update(result["host"] for result in results)
        return results

    async def close(self) -> None:
        """Release nothing: lookups hold no resources."""

    def open_socket(self, info: AddrInfoType) -> socket.socket:
        """Make the socket for an address that is about to be dialled, checking it once more.

        aiohttp asks no resolver when the URL holds an address, and keeps resolved ones in a cache; this
        sees every dial. Raises EgressRefused.
        """
        family, kind, protocol, _, target = info
        if str(target[0]) not in self._opened_by_name:
            self._policy.check_address(str(target[0]))
        return socket.socket(family, kind, protocol)


def delivery_session(
    policy: EgressPolicy,
    *,
    total_seconds: float = 15,
    connections: int = 256,
    per_host: int = 16,
    tls: ssl.SSLContext | None = None,
    resolve: Resolve = system_resolve,
) -> aiohttp.ClientSession:
    """Make a session that reaches only what ``policy`` permits. Call it inside a running event loop.

    ``total_seconds`` bounds a request from its start to the last byte read of the answer;
    ``connections`` and ``per_host`` bound open connections. It keeps no cookies, reads no proxy
    settings or .netrc, asks for uncompressed answers and never decompresses one, and takes at most 128
    header lines of 8 KiB. Read bodies with ``read_capped``.

    Pass ``allow_redirects=False`` with a request to see a redirect as the answer it is; otherwise it
    raises EgressRefused instead of being followed. So does a request for a URL the policy refuses.
    """
    resolver = GuardedResolver(policy, resolve)
    connector = aiohttp.TCPConnector(
        resolver=resolver,
        socket_factory=resolver.open_socket,
        # What is cached has been checked. Ten seconds spare a busy endpoint a lookup for each connection.
        ttl_dns_cache=10,
        limit=connections,
        limit_per_host=per_host,
        ssl=tls if tls is not None else True,
    )
    return aiohttp.ClientSession(
        connector=connector,
        # aiohttp would round a longer deadline up to the next whole second.
        timeout=aiohttp.ClientTimeout(total=total_seconds, sock_connect=min(5, total_seconds), ceil_threshold=math.inf),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity"},
        auto_decompress=False,
        trust_env=False,
        max_line_size=_MAX_HEADER_BYTES,
        max_field_size=_MAX_HEADER_BYTES,
        max_headers=_MAX_HEADERS,
        trace_configs=[_url_guard(policy)],
    )


async def read_capped(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read at most ``limit`` bytes of a body and end the response.

    A longer body is cut there and its connection closed, so the rest is never received; a body that
    fits leaves the connection for reuse. Raises TimeoutError past the session's deadline.
    """
    body = bytearray()
    while len(body) < limit:
        chunk = await response.content.read(limit - len(body))
        if not chunk:
            break
        body += chunk
    if response.content.at_eof():
        response.release()
    else:
        response.close()
    return bytes(body)


def _url_guard(policy: EgressPolicy) -> aiohttp.TraceConfig:
    async def check(
        session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestStartParams
    ) -> None:
        policy.check_url(str(params.url))

    async def refuse(
        session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestRedirectParams
    ) -> None:
        params.response.close()
        raise EgressRefused(f"the answer is a redirect ({params.response.status}); redirects are not followed")

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(check)
    trace.on_request_redirect.append(refuse)
    return trace
