"""The guarded HTTP clients: the checked address is the dialled one, and a refused one sees no connection."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from app.core.egress import (
    EgressPolicy,
    EgressRefused,
    GuardedTransport,
    delivery_session,
    plugin_client,
    resolve_checked,
    system_resolve,
)
from tests.core.loopback import answering, deliver, resolving, serving

PUBLIC = EgressPolicy()
LOOPBACK = EgressPolicy(allow=["127.0.0.1"])

HOSTS_OF_LOOPBACK = [
    "127.0.0.1",
    "localhost",
    "2130706433",
    "0x7f.1",
    "127.1",
    "[::ffff:127.0.0.1]",
    "rebound.test",
]


@pytest.mark.parametrize("host", HOSTS_OF_LOOPBACK)
@pytest.mark.asyncio
async def test_no_client_connects_to_a_blocked_address(host: str) -> None:
    async with serving(answering()) as server:
        url = f"http://{host}:{server.port}/"
        resolve = resolving(["127.0.0.1"])
        async with delivery_session(PUBLIC, resolve=resolve) as session:
            with pytest.raises(EgressRefused):
                await deliver(session, url)
        async with httpx.AsyncClient(transport=GuardedTransport(PUBLIC, resolve=resolve)) as client:
            with pytest.raises(EgressRefused):
                await client.get(url)
        assert server.connections == 0


@pytest.mark.asyncio
async def test_a_name_that_turns_private_after_the_check_is_never_dialled() -> None:
    async with serving(answering()) as server:
        rebinding = resolving(["93.184.215.14"], ["127.0.0.1"])
        url = f"http://rebind.test:{server.port}/"
        PUBLIC.check_url(url)
        assert await resolve_checked(PUBLIC, rebinding, "rebind.test", server.port)
        async with delivery_session(PUBLIC, resolve=rebinding) as session:
            with pytest.raises(EgressRefused, match="loopback") as refused:
                await deliver(session, url)
        assert "127.0.0.1" not in refused.value.reason, "a stranger learns no inside address"
        async with httpx.AsyncClient(transport=GuardedTransport(PUBLIC, resolve=rebinding)) as client:
            with pytest.raises(EgressRefused, match="loopback"):
                await client.get(url)
        assert server.connections == 0


@pytest.mark.asyncio
async def test_the_checked_address_is_the_dialled_one() -> None:
    async with (
        serving(answering(b"checked")) as checked,
        serving(answering(b"other"), host="127.0.0.2") as other,
    ):
        # Both addresses are open; a client that asked twice would end at the other one.
        policy = EgressPolicy(allow=["127.0.0.0/8"])
        url = f"http://name.test:{checked.port}/"
        async with delivery_session(policy, resolve=resolving(["127.0.0.1"], ["127.0.0.2"])) as session:
            assert await deliver(session, url) == (200, b"checked")
        transport = GuardedTransport(policy, resolve=resolving(["127.0.0.1"], ["127.0.0.2"]))
        async with httpx.AsyncClient(transport=transport) as client:
            assert (await client.get(url)).content == b"checked"
        assert other.connections == 0
        assert all(f"host: name.test:{checked.port}".encode() in head.lower() for head in checked.heads)


@pytest.mark.asyncio
async def test_the_socket_itself_is_guarded_when_a_resolver_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    # What a poisoned cache or a literal that no resolver saw would come to.
    async with serving(answering()) as server, delivery_session(PUBLIC) as session:
        assert isinstance(session.connector, aiohttp.TCPConnector)
        request = session.get(f"http://rebind.test:{server.port}/")
        monkeypatch.setattr(session.connector._resolver, "resolve", _unguarded)
        with pytest.raises(EgressRefused):
            await request
        assert server.connections == 0


async def _unguarded(host: str, port: int = 0, family: int = 0) -> list[dict[str, object]]:
    return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 0, "flags": 0}]


@pytest.mark.parametrize("answer", [["127.0.0.1", "10.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["127.0.0.1", "fe80::1%eth0"]])
@pytest.mark.asyncio
async def test_one_blocked_address_among_several_refuses_the_name(answer: list[str]) -> None:
    policy = EgressPolicy(allow=["127.0.0.1"]) if answer[0] == "127.0.0.1" else PUBLIC
    with pytest.raises(EgressRefused):
        await resolve_checked(policy, resolving(answer), "mixed.test", 80)


@pytest.mark.asyncio
async def test_a_name_in_the_allow_list_is_reached_and_its_address_alone_is_not() -> None:
    policy = EgressPolicy(allow=["inside.test"])
    async with (
        serving(answering()) as server,
        delivery_session(policy, resolve=resolving(["127.0.0.1"])) as session,
    ):
        assert (await deliver(session, f"http://inside.test:{server.port}/"))[0] == 200
        for host in ("127.0.0.1", "outside.test"):
            with pytest.raises(EgressRefused):
                await deliver(session, f"http://{host}:{server.port}/")
        transport = GuardedTransport(policy, resolve=resolving(["127.0.0.1"]))
        async with httpx.AsyncClient(transport=transport) as client:
            assert (await client.get(f"http://inside.test:{server.port}/")).status_code == 200
            with pytest.raises(EgressRefused):
                await client.get(f"http://outside.test:{server.port}/")


@pytest.mark.asyncio
async def test_a_second_address_is_tried_and_an_unknown_name_is_an_ordinary_error() -> None:
    policy = EgressPolicy(allow=["127.0.0.0/8"])
    async with serving(answering()) as server:
        both = resolving(["127.0.0.3", "127.0.0.1"])
        async with httpx.AsyncClient(transport=GuardedTransport(policy, resolve=both)) as client:
            assert (await client.get(f"http://two.test:{server.port}/")).status_code == 200
        async with delivery_session(policy, resolve=both) as session:
            assert (await deliver(session, f"http://two.test:{server.port}/"))[0] == 200
    async with httpx.AsyncClient(transport=GuardedTransport(policy, resolve=resolving([]))) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get("http://none.test/")
    async with delivery_session(policy, resolve=resolving([])) as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await deliver(session, "http://none.test/")


@pytest.mark.asyncio
async def test_the_system_resolver_answers_with_addresses() -> None:
    assert "127.0.0.1" in await system_resolve("127.0.0.1", 80)
    assert set(await system_resolve("localhost", 80)) & {"127.0.0.1", "::1"}


@pytest.mark.asyncio
async def test_user_info_is_refused_by_both_clients() -> None:
    async with serving(answering()) as server:
        url = f"http://user:password@127.0.0.1:{server.port}/"
        async with delivery_session(LOOPBACK) as session:
            with pytest.raises(EgressRefused, match="password") as refused:
                await deliver(session, url)
        async with plugin_client(LOOPBACK) as client:
            with pytest.raises(EgressRefused, match="password"):
                await client.get(url)
        assert "user:" not in refused.value.reason
        assert server.connections == 0


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
@pytest.mark.asyncio
async def test_redirects_are_not_followed(status: str) -> None:
    async with serving(answering()) as target:
        location = f"Location: http://127.0.0.1:{target.port}/"
        async with serving(answering(b"", location, status=status)) as server:
            url = f"http://127.0.0.1:{server.port}/"
            async with delivery_session(LOOPBACK) as session:
                assert (await deliver(session, url))[0] == int(status[:3])
                with pytest.raises(EgressRefused, match="redirect"):
                    await session.post(url, data=b"{}")
            async with plugin_client(LOOPBACK) as client:
                assert (await client.get(url)).status_code == int(status[:3])
        assert target.connections == 0


@pytest.mark.asyncio
async def test_a_redirect_a_plugin_follows_is_checked_too() -> None:
    async with serving(answering(), host="127.0.0.2") as target:
        location = f"Location: http://127.0.0.2:{target.port}/"
        async with (
            serving(answering(b"", location, status="302 Found")) as server,
            plugin_client(LOOPBACK) as client,
        ):
            with pytest.raises(EgressRefused):
                await client.get(f"http://127.0.0.1:{server.port}/", follow_redirects=True)
        assert target.connections == 0


@pytest.mark.asyncio
async def test_no_cookies_are_kept_and_no_proxy_settings_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answering()) as proxy, serving(answering(b"ok", "Set-Cookie: a=b; Path=/")) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "")
        url = f"http://127.0.0.1:{server.port}/"
        async with delivery_session(LOOPBACK) as session, plugin_client(LOOPBACK) as client:
            for _ in range(2):
                assert (await deliver(session, url))[0] == 200
                assert (await client.get(url)).status_code == 200
        assert proxy.connections == 0
        assert len(server.heads) == 4 and not any(b"cookie" in head.lower() for head in server.heads)


@pytest.mark.asyncio
async def test_clients_can_share_one_transport() -> None:
    async with serving(answering()) as server:
        shared = GuardedTransport(LOOPBACK)
        for token in ("one", "two"):
            client = plugin_client(
                LOOPBACK,
                base_url=f"http://127.0.0.1:{server.port}/api/",
                headers={"Authorization": token},
                transport=shared,
            )
            assert (await client.get("me")).status_code == 200
        await shared.aclose()
        assert server.connections == 1
        assert b"GET /api/me " in server.heads[0] and b"Authorization: two" in server.heads[1]


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS contexts of a server named secure.test and of a client that trusts only it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "secure.test")])
    begun = datetime.now(UTC) - timedelta(hours=1)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begun)
        .not_valid_after(begun + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("secure.test")]), critical=False)
        .sign(key, SHA256())
    )
    pem = tmp_path / "server.pem"
    pem.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + signed.public_bytes(Encoding.PEM)
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pem)
    client = ssl.create_default_context(cadata=signed.public_bytes(Encoding.PEM).decode())
    return server, client


@pytest.mark.asyncio
async def test_tls_names_and_verifies_the_host_not_the_address(
    certificate: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server_tls, client_tls = certificate
    asked_for: list[str] = []
    server_tls.sni_callback = lambda _, name, __: asked_for.append(name)
    resolve = resolving(["127.0.0.1"])
    async with serving(answering(), tls=server_tls) as server:
        async with delivery_session(LOOPBACK, tls=client_tls, resolve=resolve) as session:
            assert (await deliver(session, f"https://secure.test:{server.port}/"))[0] == 200
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await deliver(session, f"https://other.test:{server.port}/")
        transport = GuardedTransport(LOOPBACK, tls=client_tls, resolve=resolve)
        async with httpx.AsyncClient(transport=transport) as client:
            assert (await client.get(f"https://secure.test:{server.port}/")).status_code == 200
            with pytest.raises(httpx.ConnectError, match=r"other\.test"):
                await client.get(f"https://other.test:{server.port}/")
        async with delivery_session(LOOPBACK, resolve=resolve) as session:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await deliver(session, f"https://secure.test:{server.port}/")
    assert asked_for == ["secure.test", "other.test", "secure.test", "other.test", "secure.test"]
