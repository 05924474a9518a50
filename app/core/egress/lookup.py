"""From a host to the addresses that may be dialled for it."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

from app.core.egress.policy import EgressPolicy, IPAddress, parse_address

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""From (name, port) to its addresses as text; raises OSError when the name has none."""

# Name servers are chosen by whoever owns the name, and a slow one holds its thread for many seconds.
# Lookups therefore have threads of their own and cannot hold up the loop's other work in threads.
_LOOKUPS = ThreadPoolExecutor(max_workers=32, thread_name_prefix="lookup")


async def system_resolve(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver for every address of ``host``; raises OSError when there is none."""
    found = await asyncio.get_running_loop().run_in_executor(
        _LOOKUPS, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    )
    return [str(address[0]) for *_, address in found]


async def resolve_checked(policy: EgressPolicy, resolve: Resolve, host: str, port: int) -> list[IPAddress]:
    """Return the addresses of ``host`` (a name or an address), at least one, each one checked.

    One blocked address refuses the host, whatever its others are: no honest name mixes them.
    Raises EgressRefused, or OSError when the name does not resolve.
    """
    policy.check_host(host)
    literal = parse_address(host)
    if literal is not None:
        return [literal]
    addresses = list(dict.fromkeys(ip_address(text) for text in await resolve(host, port)))
    for address in addresses:
        policy.check_address(address, host=host)
    if not addresses:
        raise OSError(f"{host} has no address")
    return addresses
