"""Which URLs, hosts and addresses the gateway may connect to. Pure: no lookups, no connections."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import urlsplit

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

_LONGEST_URL = 8192
_UNSAFE_CHARACTER = re.compile(r"[\x00-\x20\x7f\\]")
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_HOW_TO_ALLOW = "if it is meant, the operator can name it in METAGOV_EGRESS_ALLOW"


class EgressRefused(Exception):
    """The policy forbids a URL, host or address; ``reason`` says why, fit to be shown to a driver."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Blocked(NamedTuple):
    network: IPNetwork
    kind: str
    private: bool
    """Whether ``allow_private`` (or an allow-listed host name) opens it."""


def _blocked(kind: str, *networks: str, private: bool = False) -> list[_Blocked]:
    return [_Blocked(ip_network(network), kind, private) for network in networks]


# Sources: the IANA special-purpose address registries (iana.org/assignments/iana-ipv4-special-registry and
# iana-ipv6-special-registry) and RFC 6890. The first entry that holds an address names it, so the metadata
# services come first: three of them sit inside ranges that allow_private opens.
_BLOCKED = (
    *_blocked("a cloud metadata address", "169.254.169.254/32", "fd00:ec2::/32"),  # AWS and most others
    *_blocked("a cloud metadata address", "fd20:ce::254/128"),  # Google Cloud
    *_blocked("a cloud metadata address", "100.100.100.200/32"),  # Alibaba Cloud
    *_blocked("a cloud metadata address", "168.63.129.16/32"),  # Azure's wire server, in public space
    *_blocked("a private address", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", private=True),
    *_blocked("a loopback address", "127.0.0.0/8", "::1/128", private=True),
    *_blocked("a carrier-grade NAT address", "100.64.0.0/10", private=True),
    *_blocked("a unique local address", "fc00::/7", private=True),
    *_blocked("a link-local address", "169.254.0.0/16", "fe80::/10"),
    *_blocked("a site-local address", "fec0::/10"),
    *_blocked("an unspecified address", "0.0.0.0/8", "::/128"),
    *_blocked("a multicast address", "224.0.0.0/4", "ff00::/8"),
    *_blocked("the broadcast address", "255.255.255.255/32"),
    *_blocked("a reserved address", "240.0.0.0/4"),
    *_blocked("a documentation address", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"),
    *_blocked("a documentation address", "2001:db8::/32", "3fff::/20"),
    *_blocked("a benchmarking address", "198.18.0.0/15", "2001:2::/48"),
    *_blocked("an IPv4-mapped or -compatible address", "::ffff:0:0/96", "::ffff:0:0:0/96", "::/96"),
    *_blocked("a NAT64 address", "64:ff9b::/96", "64:ff9b:1::/48"),
    *_blocked("a 6to4 address", "2002::/16", "192.88.99.0/24"),
    *_blocked("a Teredo address", "2001::/32"),
    *_blocked("an ORCHID address", "2001:10::/28", "2001:20::/28"),
    *_blocked("a discard address", "100::/64", "100:0:0:1::/64"),
    *_blocked("an address for protocol use", "192.0.0.0/24", "2001::/23", "5f00::/16"),
    *_blocked("an AS112 or AMT anycast address", "192.31.196.0/24", "192.52.193.0/24", "192.175.48.0/24"),
    *_blocked("an AS112 or AMT anycast address", "2620:4f:8000::/48"),
)


@dataclass(frozen=True)
class EgressPolicy:
    """What may be reached: the public Internet, plus what the operator opens.

    ``allow_private`` opens the private, loopback, carrier-grade NAT and unique-local ranges, as
    development and self-hosting need. It does not open link-local addresses, cloud metadata services or
    any other special range: those only by an entry in ``allow`` that holds them.

    ``allow`` (METAGOV_EGRESS_ALLOW) is a list of addresses, CIDR ranges and host names. A range opens its
    addresses, all of them and no others. A host name opens, for that exact name, what ``allow_private``
    opens. Raises ValueError for an entry that is none of these.
    """

    allow_private: bool = False
    allow: Sequence[str] = ()
    _networks: tuple[IPNetwork, ...] = field(init=False, repr=False, compare=False)
    _names: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        entries = [_parse_entry(entry) for entry in self.allow]
        object.__setattr__(self, "allow", tuple(self.allow))
        object.__setattr__(self, "_networks", tuple(entry for entry in entries if not isinstance(entry, str)))
        object.__setattr__(self, "_names", frozenset(entry for entry in entries if isinstance(entry, str)))

    def check_url(self, url: str) -> None:
        """Refuse a URL that can never be requested; a name is not looked up, only its spelling is checked.

        Raises EgressRefused unless it is http or https with a host, without user-info, with a port from
        1 to 65535 if it has one, and with a host that ``check_host`` takes.
        """
        # Checked on the raw text, because urlsplit drops tabs and newlines and other clients read \ as /.
        if len(url) > _LONGEST_URL or _UNSAFE_CHARACTER.search(url):
            raise EgressRefused("the URL holds a space, a control character or a backslash, or is too long")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise EgressRefused("the URL's host or port is malformed") from None
        if parts.scheme not in ("http", "https"):
            raise EgressRefused("the URL does not start with http:// or https://")
        if "@" in parts.netloc:
            raise EgressRefused("the URL holds a user name or password; credentials do not belong in a URL")
        if not host or not parts.netloc.isascii():
            raise EgressRefused("the URL has no host, or one that is not ASCII (write it as xn--…)")
        if port == 0:
            raise EgressRefused("the URL's port is 0; ports go from 1 to 65535")
        self.check_host(host)

    def check_host(self, host: str) -> None:
        """Refuse a malformed host, a blocked address in any of its spellings, and localhost.

        ``host`` stands without brackets or port. Raises EgressRefused.
        """
        address = parse_address(host)
        if address is not None:
            self.check_address(address)
            return
        name = _name(host)
        if name is None:
            raise EgressRefused("the host is not a valid name or address (write it in ASCII, as xn--… if needed)")
        if f".{name}".endswith(".localhost"):
            self.check_address(IPv4Address("127.0.0.1"), host=name)

    def check_address(self, ip: str | IPAddress, *, host: str | None = None) -> None:
        """Refuse an address in a blocked range.

        ``host`` is the name that resolved to ``ip``, if any. Raises EgressRefused; the reason does not
        repeat a resolved address, which would tell a stranger about the inside of the network.
        """
        address = ip_address(ip) if isinstance(ip, str) else ip
        if any(address in network for network in self._networks):
            return
        kind = self._refusal(address, host)
        if kind is not None:
            subject = "the host resolves to" if host is not None else f"{address} is"
            raise EgressRefused(f"{subject} {kind}; {_HOW_TO_ALLOW}")

    def _refusal(self, address: IPAddress, host: str | None) -> str | None:
        for network, kind, private in _BLOCKED:
            if address in network:
                opened = self.allow_private or (host is not None and _name(host) in self._names)
                return None if private and opened else kind
        if isinstance(address, IPv6Address) and (address not in _GLOBAL_UNICAST or address.scope_id):
            return "not a global unicast address"
        return None

    def opens_name(self, host: str) -> bool:
        """Return whether ``host`` is a name in ``allow``."""
        return _name(host) in self._names


def parse_address(host: str) -> IPAddress | None:
    """Read ``host`` as an address, in any spelling that inet_aton takes; None when it is a name.

    127.0.0.1 is also 127.1, 2130706433, 0x7f000001 and 0177.0.0.1, with or without a final dot.
    Raises EgressRefused for a host that is neither: one that ends in a number, which some resolvers
    would take for an address, or holds a colon without being an IPv6 address.
    """
    text = host.removesuffix(".")
    if ":" in text:
        try:
            return IPv6Address(text)
        except ValueError:
            raise EgressRefused("the host is not a valid IPv6 address") from None
    parts = text.split(".")
    if not _NUMBER.fullmatch(parts[-1]):
        return None
    numbers = [_inet_aton_number(part) for part in parts]
    *leading, last = numbers
    if (
        len(numbers) > 4
        or any(number is None or number > 255 for number in leading)
        or last is None
        or last >= 256 ** (5 - len(numbers))
    ):
        raise EgressRefused("the host is not a valid IPv4 address")
    packed = sum((number or 0) << (24 - 8 * place) for place, number in enumerate(leading))
    return IPv4Address(packed + last)


def _inet_aton_number(part: str) -> int | None:
    """Read one part of a dotted address: decimal, hex after 0x, octal after 0."""
    if not _NUMBER.fullmatch(part) or len(part) > 12:
        return None
    try:
        if part[:2] in ("0x", "0X"):
            return int(part[2:], 16)
        return int(part, 8 if part[0] == "0" else 10)
    except ValueError:
        return None


def _name(host: str) -> str | None:
    """Normalise a host name: lower case, no final dot; None when it is not one."""
    name = host.removesuffix(".").lower()
    if not host.isascii() or len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        return None
    return name


def _parse_entry(entry: str) -> IPNetwork | str:
    try:
        return ip_network(entry)
    except ValueError:
        name = _name(entry)
    if name is None or _NUMBER.fullmatch(name.rsplit(".", 1)[-1]):
        raise ValueError(
            f"METAGOV_EGRESS_ALLOW: {entry!r} is not an address, a CIDR range such as 10.1.0.0/16 "
            "(no host bits set) or a host name."
        )
    return name
