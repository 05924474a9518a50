"""Webhook verifiers: published vectors, other implementations, and hostile input."""

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import nacl.signing
import pytest
import standardwebhooks
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from metagov_sdk import verify
from metagov_sdk.headers import Headers
from metagov_sdk.verify import SecretRef, Unsigned, Verifier, config, setting
from tests.sdk.vendors import SMALL_ORDER

# Few: test_verify_fuzz.py runs the many.
EXAMPLES = 300
NOW = 1_700_000_000
HERE = setting("webhook_secret")
BODY = b'{"type":"vote","text":"\xc3\xa9\x00\xff"}'


@dataclass(frozen=True)
class Case:
    """A verifier and a request that it accepts."""

    verifier: Verifier
    secret: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    now: float = NOW

    def accepts(
        self,
        *,
        secret: str | None = None,
        headers: Iterable[tuple[str, str]] | None = None,
        body: bytes | None = None,
        now: float | None = None,
    ) -> bool:
        return self.verifier(
            self.secret if secret is None else secret,
            Headers(self.headers if headers is None else headers),
            self.body if body is None else body,
            self.now if now is None else now,
        )

    def with_header(self, name: str, value: str) -> tuple[tuple[str, str], ...]:
        return tuple((n, value if n.lower() == name.lower() else v) for n, v in self.headers)


def github() -> Case:
    # https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries
    digest = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    return Case(
        verify.hmac_sha256(HERE),
        "It's a Secret to Everybody",
        (("X-Hub-Signature-256", f"sha256={digest}"),),
        b"Hello, World!",
    )


def base64_hmac() -> Case:
    digest = base64.b64encode(hmac.digest(b"key", BODY, "sha256")).decode()
    verifier = verify.hmac_sha256(HERE, header="X-Digest", prefix="", encoding="base64")
    return Case(verifier, "key", (("X-Digest", digest),), BODY)


def slack() -> Case:
    # https://docs.slack.dev/authentication/verifying-requests-from-slack/
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
        b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
        b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554"
        b"%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    headers = (
        ("X-Slack-Request-Timestamp", "1531420618"),
        ("X-Slack-Signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
    )
    return Case(verify.slack_v0(HERE), "8f742231b10e8888abcd99yyyzzz85a5", headers, body, now=1531420618)


def discord(tolerance: float | None = 300) -> Case:
    signer = nacl.signing.SigningKey(bytes(range(32)))
    signature = signer.sign(str(NOW).encode() + BODY).signature.hex()
    headers = (("X-Signature-Ed25519", signature), ("X-Signature-Timestamp", str(NOW)))
    return Case(
        verify.ed25519(HERE, tolerance=tolerance),
        bytes(signer.verify_key).hex(),
        headers,
        BODY,
    )


WHSEC = "whsec_" + base64.b64encode(bytes(range(24))).decode()


def standard() -> Case:
    text = BODY[:20]
    sender = standardwebhooks.Webhook(WHSEC)
    signature = sender.sign("msg_1", datetime.fromtimestamp(NOW, UTC), text.decode())
    headers = (("webhook-id", "msg_1"), ("webhook-timestamp", str(NOW)), ("webhook-signature", signature))
    return Case(verify.standard_webhooks(HERE), WHSEC, headers, text)


def sendgrid(tolerance: float | None = 300) -> Case:
    # Twilio's own fixture, as in the tests of its SDKs (sendgrid-python, test/unit/test_eventwebhook.py).
    body = (
        b'[{"email":"hello@world.com","event":"dropped","reason":"Bounced Address",'
        b'"sg_event_id":"ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA",'
        b'"sg_message_id":"LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0",'
        b'"smtp-id":"<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>","timestamp":1600112492}]\r\n'
    )
    headers = (
        (
            "X-Twilio-Email-Event-Webhook-Signature",
            "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtEZtM=",
        ),
        ("X-Twilio-Email-Event-Webhook-Timestamp", "1600112502"),
    )
    key = (
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNN"
        "RaINXvVpiglSI8eNEc6wEA3F+g=="
    )
    return Case(verify.ecdsa_p256(HERE, tolerance=tolerance), key, headers, body, now=1600112502)


CASES: Mapping[str, Callable[[], Case]] = {
    "github": github,
    "base64_hmac": base64_hmac,
    "slack": slack,
    "discord": discord,
    "standard_webhooks": standard,
    "sendgrid": sendgrid,
}
TIMED = ("slack", "discord", "standard_webhooks", "sendgrid")


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


def test_accepts_the_published_or_cross_checked_request(case: Case) -> None:
    assert case.accepts()
    shouted = [(name.upper(), value) for name, value in case.headers]
    assert case.accepts(headers=shouted), "header names are case-insensitive"


def test_names_where_its_secret_comes_from(case: Case) -> None:
    assert case.verifier.secret == HERE
    assert case.verifier == type(case.verifier)(*_fields(case.verifier)), "verifiers are values"


def _fields(verifier: Verifier) -> list[object]:
    return [getattr(verifier, name) for name in type(verifier).__dataclass_fields__]  # type: ignore[attr-defined]


def test_refuses_when_no_secret_is_set(case: Case) -> None:
    assert not case.accepts(secret="")


def test_an_empty_secret_refuses_even_what_was_signed_with_it() -> None:
    forged = hmac.new(b"", BODY, hashlib.sha256).hexdigest()
    assert not verify.hmac_sha256(HERE)("", Headers([("X-Hub-Signature-256", f"sha256={forged}")]), BODY, NOW)
    for empty in ("", "whsec_"):
        mac = base64.b64encode(hmac.digest(b"", f"id.{NOW}.".encode() + BODY, "sha256")).decode()
        headers = Headers([("webhook-id", "id"), ("webhook-timestamp", str(NOW)), ("webhook-signature", f"v1,{mac}")])
        assert not verify.standard_webhooks(HERE)(empty, headers, BODY, NOW)


def test_refuses_another_secret(case: Case) -> None:
    for other in ("x", case.secret + "x", case.secret[:-1], case.secret.swapcase(), "0" * 64, "é", "\ud800"):
        # An Ed25519 key is hex, which means the same in either case.
        if other != case.secret and other.lower() != case.secret:
            assert not case.accepts(secret=other)


def test_refuses_a_missing_or_repeated_header(case: Case) -> None:
    for index, (name, value) in enumerate(case.headers):
        rest = [*case.headers[:index], *case.headers[index + 1 :]]
        assert not case.accepts(headers=rest)
        assert not case.accepts(headers=[*case.headers, (name.lower(), value)]), "repeated, even with equal values"
        assert not case.accepts(headers=[(name, "sha256=00"), *case.headers])


def test_refuses_any_flipped_byte(case: Case) -> None:
    for index in range(len(case.body)):
        for bit in (0x01, 0x20, 0x80):
            body = bytearray(case.body)
            body[index] ^= bit
            assert not case.accepts(body=bytes(body)), f"body byte {index} ^ {bit:#x}"
    for name, value in case.headers:
        for index in range(len(value)):
            for bit in range(8):
                flipped = value[:index] + chr(ord(value[index]) ^ (1 << bit)) + value[index + 1 :]
                assert not case.accepts(headers=case.with_header(name, flipped)), f"{name}: {value} → {flipped}"


def test_refuses_a_body_cut_or_lengthened(case: Case) -> None:
    for body in (b"", case.body[:-1], case.body[1:], case.body + b"\n", b"\xef\xbb\xbf" + case.body):
        assert not case.accepts(body=body)


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "\u00e9", "\ud800", "\x00", "=", ",", "v1", "v1,", "sha256=", "sha256=zz", "v0="),
        *("A" * 100_000, "9" * 5_000, "0" * 128, "=" * 64, "AAAA", "MEUCIQ=="),
        *("1e9", "-1700000000", "+170000000", "1_700_000_000", "0x6553f100", "1700000000.0", "nan", "inf"),
        *(" 1700000000", "1700000000\n", "\u0663" * 10),
    ],
)
def test_refuses_malformed_headers_without_raising(case: Case, value: str) -> None:
    for name, _ in case.headers:
        assert not case.accepts(headers=case.with_header(name, value))


@pytest.mark.parametrize("name", TIMED)
def test_timestamp_window_is_300_seconds_both_ways(name: str) -> None:
    case = CASES[name]()
    for seconds in (-300.0, -299.0, 0.0, 299.0, 300.0):
        assert case.accepts(now=case.now + seconds)
    for seconds in (-301, -300.5, 300.5, 301, 10**9, float("nan"), float("inf"), -float("inf")):
        assert not case.accepts(now=case.now + seconds)


def test_no_window_is_enforced_unless_asked_for() -> None:
    for case in (discord(tolerance=None), sendgrid(tolerance=None)):
        assert case.accepts(now=case.now + 10**6)


def test_a_timestamp_cannot_lend_digits_to_the_body() -> None:
    case = discord(tolerance=None)
    stamp = dict(case.headers)["X-Signature-Timestamp"]
    headers = case.with_header("X-Signature-Timestamp", stamp[:-1])
    assert not case.accepts(headers=headers, body=stamp[-1:].encode() + case.body)


def test_hex_case_counts_unless_the_platform_says_otherwise() -> None:
    strict, lax = verify.hmac_sha256(HERE), verify.hmac_sha256(HERE, any_case=True)
    digest = hmac.new(b"key", BODY, hashlib.sha256).hexdigest().upper()
    headers = Headers([("X-Hub-Signature-256", f"sha256={digest}")])
    assert not strict("key", headers, BODY, NOW)
    assert lax("key", headers, BODY, NOW)
    assert not lax("key", Headers([("X-Hub-Signature-256", f"SHA256={digest}")]), BODY, NOW)


def test_hmac_agrees_with_discourse_header() -> None:
    digest = hmac.new(b"key", BODY, hashlib.sha256).hexdigest()
    verifier = verify.hmac_sha256(config("webhook_secret"), header="X-Discourse-Event-Signature")
    assert verifier("key", Headers([("x-discourse-event-signature", f"sha256={digest}")]), BODY, NOW)


def test_ed25519_agrees_with_nacl_both_ways() -> None:
    for seed in range(20):
        signer = nacl.signing.SigningKey(hashlib.sha256(bytes([seed])).digest())
        stamp, body = str(NOW + seed), os.urandom(seed * 50)
        signature = signer.sign(stamp.encode() + body).signature
        headers = Headers([("X-Signature-Ed25519", signature.hex()), ("X-Signature-Timestamp", stamp)])
        check = verify.ed25519(HERE)
        assert check(bytes(signer.verify_key).hex(), headers, body, NOW)
        assert not check(bytes(signer.verify_key).hex(), headers, body + b"x", NOW)
        # To a lax verifier, a scalar raised by the group order is the same signature (RFC 8032, 5.1.7).
        order = 2**252 + 27742317777372353535851937790883648493
        raised = int.from_bytes(signature[32:], "little") + order
        malleated = (signature[:32] + raised.to_bytes(32, "little")).hex()
        twisted = Headers([("X-Signature-Ed25519", malleated), ("X-Signature-Timestamp", stamp)])
        assert not check(bytes(signer.verify_key).hex(), twisted, body, NOW)


@pytest.mark.parametrize("number", range(7))
def test_ed25519_refuses_keys_and_points_of_small_order(number: int) -> None:
    # With such a key every fourth message or so verifies under the same forged signature; zeros are a likely typo.
    assert len(SMALL_ORDER) == 7
    for body in (bytes([tail]) for tail in range(64)):
        for point in SMALL_ORDER:
            headers = Headers([("X-Signature-Ed25519", (point + bytes(32)).hex()), ("X-Signature-Timestamp", str(NOW))])
            for key in (SMALL_ORDER[number], SMALL_ORDER[number][:31] + bytes([SMALL_ORDER[number][31] | 0x80])):
                assert not verify.ed25519(HERE)(key.hex(), headers, body, NOW)


def test_standard_webhooks_takes_an_unpadded_secret_and_svix_names() -> None:
    key = b"k" * 25
    unpadded = "whsec_" + base64.b64encode(key).decode().rstrip("=")
    mac = base64.b64encode(hmac.digest(key, f"id.{NOW}.".encode() + BODY, "sha256")).decode()
    headers = Headers([("svix-id", "id"), ("svix-timestamp", str(NOW)), ("svix-signature", f"v1,{mac}")])
    assert verify.standard_webhooks(HERE, header_prefix="svix-")(unpadded, headers, BODY, NOW)
    assert not verify.standard_webhooks(HERE)(unpadded, headers, BODY, NOW)


def test_standard_webhooks_refuses_an_id_that_hides_the_timestamp() -> None:
    # Signed as id "a", timestamp 1700000000, body "1800000000.x"; presented eleven digits later.
    key = base64.b64decode(WHSEC.removeprefix("whsec_"))
    mac = base64.b64encode(hmac.digest(key, b"a.1700000000.1800000000.x", "sha256")).decode()
    headers = Headers(
        [
            ("webhook-id", "a.1700000000"),
            ("webhook-timestamp", "1800000000"),
            ("webhook-signature", f"v1,{mac}"),
        ]
    )
    assert not verify.standard_webhooks(HERE)(WHSEC, headers, b"x", 1_800_000_000)


def test_ecdsa_takes_p256_keys_only() -> None:
    check = verify.ecdsa_p256(HERE, signature_header="Sig", timestamp_header="At")
    curves: list[tuple[ec.EllipticCurve, bool]] = [
        (ec.SECP256R1(), True),
        (ec.SECP384R1(), False),
        (ec.SECP256K1(), False),
    ]
    for curve, expected in curves:
        private = ec.generate_private_key(curve)
        public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        signature = private.sign(str(NOW).encode() + BODY, ec.ECDSA(SHA256()))
        headers = Headers([("Sig", base64.b64encode(signature).decode()), ("At", str(NOW))])
        assert check(base64.b64encode(public).decode(), headers, BODY, NOW) is expected


def test_ecdsa_refuses_the_zero_signature() -> None:
    zero = base64.b64encode(binascii.unhexlify("3006020100020100")).decode()
    case = sendgrid()
    assert not case.accepts(headers=case.with_header("X-Twilio-Email-Event-Webhook-Signature", zero))


anything = st.one_of(
    st.text(max_size=200),
    st.text(st.characters(), max_size=40),
    st.text("0123456789abcdefABCDEF=,. v1sha256whsec_+/", max_size=200),
    st.binary(max_size=80).map(lambda raw: base64.b64encode(raw).decode()),
    st.binary(min_size=64, max_size=64).map(bytes.hex),
    st.just(str(NOW)),
)


@pytest.mark.parametrize("name", CASES)
def test_random_requests_are_refused_and_never_raise(name: str) -> None:
    case = CASES[name]()
    names = [header for header, _ in case.headers]

    @settings(max_examples=EXAMPLES, deadline=None, database=None)
    @given(
        secret=st.one_of(st.just(case.secret), anything),
        pairs=st.lists(st.tuples(st.sampled_from([*names, "other"]), anything), max_size=4),
        values=st.lists(anything, min_size=len(names), max_size=len(names)),
        body=st.binary(max_size=200),
        now=st.one_of(st.just(float(NOW)), st.floats()),
    )
    def refuse(secret: str, pairs: list[tuple[str, str]], values: list[str], body: bytes, now: float) -> None:
        assert case.accepts(secret=secret, headers=zip(names, values, strict=True), body=body, now=now) is False
        assert case.accepts(secret=secret, headers=pairs, body=body, now=now) is False

    refuse()


@pytest.mark.parametrize("name", CASES)
def test_one_random_part_in_a_valid_request_is_refused(name: str) -> None:
    case = CASES[name]()

    @settings(max_examples=max(EXAMPLES // 4, 100), deadline=None, database=None)
    @given(which=st.sampled_from(case.headers), value=anything, body=st.binary(max_size=300))
    def refuse(which: tuple[str, str], value: str, body: bytes) -> None:
        if value != which[1]:
            assert case.accepts(headers=case.with_header(which[0], value)) is False
        if body != case.body:
            assert case.accepts(body=body) is False

    refuse()


def test_secret_places_are_tried_in_order() -> None:
    ref = config("webhook_secret") | setting("webhook_secret") | setting("old")
    assert ref == SecretRef((("config", "webhook_secret"), ("setting", "webhook_secret"), ("setting", "old")))
    assert hash(ref) == hash(ref) and ref != setting("old") | config("webhook_secret")


def test_unsigned_needs_a_reason_and_is_no_verifier() -> None:
    assert verify.unsigned("The platform signs nothing.") == Unsigned("The platform signs nothing.")
    assert not hasattr(verify.unsigned("x"), "secret") and not callable(verify.unsigned("x"))
    with pytest.raises(ValueError, match="reason"):
        verify.unsigned(" ")


def test_an_unknown_encoding_is_refused_when_declared() -> None:
    with pytest.raises(ValueError, match="hex"):
        verify.hmac_sha256(HERE, encoding="base32")  # type: ignore[arg-type]
