"""The egress policy: which URLs, hosts and addresses are refused."""

from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network
from socket import inet_aton

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.egress import EgressPolicy, EgressRefused
from app.core.egress.policy import parse_address

PUBLIC = EgressPolicy()

BLOCKED_RANGES = {
    "private": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"],
    "loopback": ["127.0.0.0/8", "::1/128"],
    "link-local": ["169.254.0.0/16", "fe80::/10"],
    "NAT": ["100.64.0.0/10"],
    "unique local": ["fc00::/7"],
    "site-local": ["fec0::/10"],
    "unspecified": ["0.0.0.0/8", "::/128"],
    "multicast": ["224.0.0.0/4", "ff00::/8"],
    "reserved": ["240.0.0.0/5"],
    "broadcast": ["255.255.255.255/32"],
    "documentation": ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"],
    "benchmarking": ["198.18.0.0/15", "2001:2::/48"],
    "6to4": ["2002::/16", "192.88.99.0/24"],
    "Teredo": ["2001::/32"],
    "NAT64": ["64:ff9b::/96", "64:ff9b:1::/48"],
    "mapped": ["::ffff:0:0/96", "::ffff:0:0:0/96", "::7f00:1/128", "::808:808/128"],
    "ORCHID": ["2001:10::/28", "2001:20::/28"],
    "discard": ["100::/64"],
    "protocol": ["192.0.0.0/24", "5f00::/16"],
    "anycast": ["192.31.196.0/24", "192.52.193.0/24", "192.175.48.0/24", "2620:4f:8000::/48"],
    "metadata": ["169.254.169.254/32", "100.100.100.200/32", "168.63.129.16/32"],
    "metadata on IPv6": ["fd00:ec2::254/128", "fd20:ce::254/128"],
    "global unicast": ["4000::/3", "200::/7", "8000::/1"],
}
EDGES = [
    (str(address), kind)
    for kind, networks in BLOCKED_RANGES.items()
    for network in map(ip_network, networks)
    for address in {network[0], network[-1]}
]
REACHABLE = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:4860:4860::8888",
    "2600::1",
    "2a00:1450:4001:81b::200e",
    "2001:200::1",
    "2003::1",
]


@pytest.mark.parametrize(("address", "kind"), EDGES)
def test_blocked_ranges_are_refused_from_end_to_end(address: str, kind: str) -> None:
    with pytest.raises(EgressRefused):
        PUBLIC.check_address(address)
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(EgressRefused) as refused:
        PUBLIC.check_url(f"https://{host}/hook")
    assert address in refused.value.reason and "METAGOV_EGRESS_ALLOW" in refused.value.reason


def test_the_reason_names_the_kind() -> None:
    kinds = {
        "10.1.2.3": "private",
        "127.0.0.1": "loopback",
        "169.254.169.254": "metadata",
        "2002::1": "6to4",
        "::ffff:1.1.1.1": "mapped",
        "64:ff9b::101:101": "NAT64",
    }
    for address, word in kinds.items():
        with pytest.raises(EgressRefused, match=word):
            PUBLIC.check_address(address)


@pytest.mark.parametrize("address", REACHABLE)
def test_public_addresses_just_outside_the_ranges_are_reachable(address: str) -> None:
    PUBLIC.check_address(ip_address(address))


def test_allow_private_opens_what_self_hosting_needs_and_nothing_else() -> None:
    policy = EgressPolicy(allow_private=True)
    opened = {"private", "loopback", "NAT", "unique local"}
    for address, kind in EDGES:
        if kind in opened:
            policy.check_address(address)
        else:
            with pytest.raises(EgressRefused):
                policy.check_address(address)
    policy.check_url("http://localhost:8000/hook")
    policy.check_url("http://[::1]:8000/hook")


def test_an_allowed_range_opens_itself_only() -> None:
    policy = EgressPolicy(allow=["10.1.0.0/16", "fd12::/32", "169.254.169.254"])
    for address in ("10.1.0.0", "10.1.255.255", "fd12::1", "169.254.169.254"):
        policy.check_address(address)
    policy.check_url("http://0xA9FEA9FE/latest")
    for address in ("10.0.255.255", "10.2.0.0", "fd13::1", "169.254.169.253", "127.0.0.1"):
        with pytest.raises(EgressRefused):
            policy.check_address(address)


def test_an_allowed_name_opens_private_addresses_for_that_name_only() -> None:
    policy = EgressPolicy(allow=["Hooks.Internal."])
    policy.check_address("10.0.0.1", host="hooks.internal")
    policy.check_address("127.0.0.1", host="HOOKS.INTERNAL.")
    for host in ("xhooks.internal", "a.hooks.internal", "internal", None):
        with pytest.raises(EgressRefused):
            policy.check_address("10.0.0.1", host=host)
    with pytest.raises(EgressRefused, match="metadata"):
        policy.check_address("169.254.169.254", host="hooks.internal")


BAD_ENTRIES = ["", "10.0.0.1/8", "10.0.0.0/33", "300.1.1.1", "1", "a b", "http://x", "*.example", "[::1]"]


@pytest.mark.parametrize("entry", BAD_ENTRIES)
def test_a_malformed_allow_entry_is_refused_with_the_mend(entry: str) -> None:
    with pytest.raises(ValueError, match="METAGOV_EGRESS_ALLOW"):
        EgressPolicy(allow=[entry])


ODD_URLS = [
    *[
        "hook",
        "//example.org/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "gopher://example.org/",
        "unix:/run/x",
        "javascript:alert(1)",
        "http:example.org",
        "http:///hook",
        "http://",
        "https://:443/",
        "http://?x",
        "http://#x",
        "http://user@example.org/",
        "http://user:pw@example.org/",
        "http://@example.org/",
        "http://example.org@127.0.0.1/",
        "http://127.0.0.1#@example.org/",
        "http://example.org:pw@[::1]/",
        "http://example.org:0/",
        "http://example.org:65536/",
        "http://example.org:80a/",
        "http://example.org:-1/",
        "http://ex%61mple.org/",
        "http://%31%32%37.0.0.1/",
        "http://example..org/",
        "http://.example.org/",
        "http://-a.test/",
        "http://exam_ple-.test/",
        "http://[::1/",
        "http://::1/",
        "http://[::1]x/",
        "http://[::g]/",
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[::127.0.0.1]/",
        "http://[0:0:0:0:0:0:0:1]/",
        "http://[2606:4700::1111%25eth0]/",
        "http://[127.0.0.1]/",
        "http://localhost/",
        "http://LOCALHOST/",
        "http://localhost./",
        "http://a.localhost/",
        "http://localhost:8000/",
        "http://127.0.0.1./",
        "http://127.0.0.1../",
        "http://127.1/",
        "http://127.0.1/",
        "http://2130706433/",
        "http://2130706433./",
        "http://0x7f000001/",
        "http://0X7F.1/",
        "http://0x7f.0x0.0x0.0x1/",
        "http://017700000001/",
        "http://0177.0.0.1/",
        "http://0177.0.0.01/",
        "http://00000177.1/",
        "http://0/",
        "http://0x0/",
        "http://10.1/",
        "http://0xa9fea9fe/",
        "http://2852039166/",
        "http://0251.0376.0251.0376/",
        "http://3232235521/",
        "http://4294967295/",
        "http://4294967296/",
        "http://256.1.1.1/",
        "http://1.2.3.256/",
        "http://1.1.1.1.1/",
        "http://08.8.8.8/",
        "http://0x/",
        "http://example.1/",
        "http://a.0x7f/",
        "http://1..1/",
    ],
    "",
    " http://example.org/",
    "http://exa mple.org/",
    "http://example.org\t/",
    "http://exam\nple.org/",
    "http://example.org\x00.test/",
    "http://example.org\\@127.0.0.1/",
    "http:\\\\127.0.0.1/",
    "http://\u043f\u0440\u0438.test/",  # Cyrillic, not in its xn-- form
    "http://\uff11\uff12\uff17.\uff10.\uff10.\uff11/",  # full-width digits
    "http://\u2460\u2461\u2466.0.0.1/",  # circled digits
    "http://127\u30020\u30020\u30021/",  # ideographic full stops
    "http://\u212aube.test/",  # the Kelvin sign, which lower-cases to k
    "http://example.org:\uff18\uff10/",
    f"http://{'a' * 64}.test/",
    f"http://{'a.' * 127}test/",
    f"http://a.test/{'x' * 9000}",
]
ORDINARY_URLS = [
    "http://example.org",
    "HTTPS://Example.org:8443/a?b=c#d",
    "https://example.org./",
    "https://xn--e1afmkfd.test/",
    "https://hooks_1.example.org/@me",
    "https://example.org/?url=http://127.0.0.1/",
    "http://8.8.8.8/",
    "http://0x08080808/",
    "http://[2606:4700:4700::1111]:80/",
    "http://1e100.test/",
    "http://10.example.org/",
    "http://0x7f.example/",
    "https://example.org/path/é",
]


@pytest.mark.parametrize("url", ODD_URLS)
def test_odd_and_hostile_urls_are_refused(url: str) -> None:
    with pytest.raises(EgressRefused) as refused:
        PUBLIC.check_url(url)
    assert refused.value.reason == str(refused.value)


@pytest.mark.parametrize("url", ORDINARY_URLS)
def test_ordinary_urls_pass(url: str) -> None:
    PUBLIC.check_url(url)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
    st.lists(st.sampled_from(["{}", "0{:o}", "0x{:x}", "0X{:X}"]), min_size=4, max_size=4),
)
def test_numeric_hosts_are_read_as_inet_aton_reads_them(number: int, parts: int, spellings: list[str]) -> None:
    octets = list(number.to_bytes(4, "big"))
    values = [*octets[: parts - 1], int.from_bytes(octets[parts - 1 :], "big")]
    host = ".".join(form.format(value) for form, value in zip(spellings, values, strict=False))
    assert parse_address(host) == IPv4Address(number) == IPv4Address(inet_aton(host))
    assert parse_address(host + ".") == IPv4Address(number)


def test_ranges_of_the_table_do_not_reach_into_the_open_internet() -> None:
    refused = 0
    for first in range(256):
        for second in range(256):
            try:
                PUBLIC.check_address(IPv4Address(bytes([first, second, 77, 77])))
            except EgressRefused:
                refused += 1
    large = ["0.0.0.0/8", "10.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3"]
    small = ["100.64.0.0/10", "172.16.0.0/12", "198.18.0.0/15", "169.254.0.0/16", "192.168.0.0/16"]
    assert refused == sum(IPv4Network(block).num_addresses // 2**16 for block in large + small)
