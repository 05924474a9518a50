"""What the platforms' own libraries say of a signed request, and where our verifiers are stricter on purpose."""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from random import Random
from typing import ClassVar, Literal

import nacl.exceptions
import nacl.signing
import standardwebhooks
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from slack_sdk.signature import Clock, SignatureVerifier

from metagov_sdk import verify
from metagov_sdk.verify import Verifier, setting
from tests.sdk.mutations import Pairs, Signed

HERE = setting("webhook_secret")
LONGEST_HEADER = 4096
_GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
_IDENTITY = b"\x01" + bytes(31)
# Points of small order on Ed25519's curve: libsodium's list (crypto_core/ed25519/ref10/ed25519_ref10.c).
SMALL_ORDER = [bytes(32), _IDENTITY] + [
    bytes.fromhex(point)
    for point in (
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
]

Stricter = Mapping[str, Callable[[Signed], bool]]
"""Why ours refuses what the vendor's accepts → whether that is so of a request. A reason that is never met is dead."""


class Vendor(ABC):
    """A way of signing, with the vendor's own check of it."""

    verifier: Verifier
    read: tuple[str, ...]
    """The headers that the check reads, in lower case."""
    stricter: Stricter

    @abstractmethod
    def sign(self, rng: Random, stamp: str, body: bytes) -> Signed:
        """A request signed as the platform does, at a time spelled `stamp`, which may be a wrong spelling."""

    @abstractmethod
    def verdict(self, request: Signed, headers: Mapping[str, str]) -> bool:
        """The vendor's verdict; `headers` are the last values of each name. What it raises is no verdict."""

    def rightly_accepted(self, request: Signed, headers: Mapping[str, str]) -> bool:
        """Whether a request that the vendor's library cannot read is genuine all the same."""
        return False


def last_values(headers: Pairs) -> dict[str, str]:
    """Headers as vendors take them: one value for each name, in lower case."""
    return {name.lower(): value for name, value in headers}


def _repeated(names: tuple[str, ...]) -> Callable[[Signed], bool]:
    def repeated(request: Signed) -> bool:
        given = [name.lower() for name, _ in request.headers]
        return any(given.count(name) > 1 for name in names)

    return repeated


def _too_long(names: tuple[str, ...]) -> Callable[[Signed], bool]:
    return lambda request: any(len(last_values(request.headers).get(name, "")) > LONGEST_HEADER for name in names)


def _odd_time(name: str) -> Callable[[Signed], bool]:
    def odd(request: Signed) -> bool:
        value = last_values(request.headers).get(name, "")
        return not (len(value) == 10 and value.isascii() and value.isdigit())

    return odd


def _not_canonical(text: str) -> bool:
    return base64.b64encode(base64.b64decode(text)).decode() != text


_REPEATED = "a header that is repeated: whoever reads another of its values than we do would see another request"
_TIME = "a time not of ten ASCII digits: int() and float() take spaces, signs, underscores, fractions, other scripts"
_LONG = "a header longer than any platform's: what is compared is bounded"
_BASE64 = "base64 with foreign letters or spare bits: one signature would have many spellings"


class Hmac(Vendor):
    """GitHub's and Discourse's: compared as their documentation shows, with the standard library alone."""

    def __init__(self, header: str, prefix: str = "sha256=", encoding: Literal["hex", "base64"] = "hex") -> None:
        self.header, self.prefix, self.encoding = header, prefix, encoding
        self.verifier = verify.hmac_sha256(HERE, header, prefix, encoding)
        self.read = (header.lower(),)
        self.stricter = {
            _REPEATED: _repeated(self.read),
            "an empty secret: anybody could sign with it": lambda request: not request.secret,
        }

    def sign(self, rng: Random, stamp: str, body: bytes) -> Signed:
        secret = rng.choice(("It's a Secret to Everybody", "s3cret", "ключ", "x" * 100, ""))
        return Signed(secret, ((self.header, self._signature(secret, body)), ("X-Delivery", "1")), body, 0.0)

    def verdict(self, request: Signed, headers: Mapping[str, str]) -> bool:
        return hmac.compare_digest(self._signature(request.secret, request.body), headers[self.read[0]])

    def _signature(self, secret: str, body: bytes) -> str:
        mac = hmac.new(secret.encode(), body, hashlib.sha256)
        return self.prefix + (base64.b64encode(mac.digest()).decode() if self.encoding == "base64" else mac.hexdigest())


@dataclass
class _At(Clock):
    """A clock that stands still."""

    at: float

    def now(self) -> float:
        return self.at


class Slack(Vendor):
    """slack_sdk's SignatureVerifier."""

    verifier = verify.slack_v0(HERE)
    read = ("x-slack-request-timestamp", "x-slack-signature")

    def __init__(self) -> None:
        self.stricter = {_REPEATED: _repeated(self.read), _TIME: _odd_time(self.read[0])}

    def sign(self, rng: Random, stamp: str, body: bytes) -> Signed:
        secret = rng.choice(("8f742231b10e8888abcd99yyyzzz85a5", "another", "é" * 8, "x" * 70, " "))
        headers = (("X-Slack-Request-Timestamp", stamp), ("X-Slack-Signature", self._signature(secret, stamp, body)))
        return Signed(secret, headers, body, 0.0)

    def verdict(self, request: Signed, headers: Mapping[str, str]) -> bool:
        library = SignatureVerifier(request.secret, _At(request.now))
        return library.is_valid_request(request.body, dict(headers))

    def rightly_accepted(self, request: Signed, headers: Mapping[str, str]) -> bool:
        """It decodes the body, and takes no blank secret."""
        signature = self._signature(request.secret, headers[self.read[0]], request.body)
        return signature == headers[self.read[1]] and abs(request.now - int(headers[self.read[0]])) <= 300

    def _signature(self, secret: str, stamp: str, body: bytes) -> str:
        return "v0=" + hmac.digest(secret.encode(), f"v0:{stamp}:".encode() + body, "sha256").hex()


class StandingClock(datetime):
    """`datetime` with a clock that stands still: standardwebhooks reads the time by itself."""

    at: ClassVar[float]

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> StandingClock:
        return cls.fromtimestamp(cls.at, tz=tz)


class StandardWebhooks(Vendor):
    """The standardwebhooks library."""

    verifier = verify.standard_webhooks(HERE)
    read = ("webhook-id", "webhook-timestamp", "webhook-signature")

    def __init__(self) -> None:
        self.stricter = {
            _REPEATED: _repeated(self.read),
            _TIME: _odd_time(self.read[1]),
            _LONG: _too_long(self.read),
            _BASE64: self._respelled,
            "a full stop in the id: its end could pass for the timestamp": lambda r: "." in self._value(r, 0),
            "a header that is not ASCII": lambda r: any(not self._value(r, at).isascii() for at in range(3)),
            "a secret that is not base64": self._odd_secret,
        }

    def sign(self, rng: Random, stamp: str, body: bytes) -> Signed:
        key = rng.choice((bytes(range(24)), b"k" * 25, b"short", bytes(64)))
        text = base64.b64encode(key).decode()
        secret = rng.choice((f"whsec_{text}", text, f"whsec_{text.rstrip('=')}"))
        ident = rng.choice(("msg_1", "msg_1", "msg_2", "a.b", "é", "")) if rng.random() < 0.3 else "msg_3"
        mac = hmac.digest(key, f"{ident}.{stamp}.".encode() + body, "sha256")
        signature = f"v1,{base64.b64encode(mac).decode()}"
        headers = (("webhook-id", ident), ("webhook-timestamp", stamp), ("webhook-signature", signature))
        return Signed(secret, headers, body, 0.0)

    def verdict(self, request: Signed, headers: Mapping[str, str]) -> bool:
        StandingClock.at = request.now
        library = standardwebhooks.Webhook(request.secret)
        try:
            library.verify(request.body, dict(headers), json_parse=False)
        except standardwebhooks.WebhookVerificationError:
            return False
        return True

    def rightly_accepted(self, request: Signed, headers: Mapping[str, str]) -> bool:
        """It decodes the body, and raises over a signature of another form that stands before the right one."""
        key = base64.b64decode(request.secret.removeprefix("whsec_") + "==")
        ident, stamp, signatures = (headers[name] for name in self.read)
        mac = hmac.digest(key, f"{ident}.{stamp}.".encode() + request.body, "sha256")
        fits = f"v1,{base64.b64encode(mac).decode()}" in signatures.split(" ")
        return fits and bool(key) and abs(request.now - int(stamp)) <= 300

    def _value(self, request: Signed, at: int) -> str:
        return last_values(request.headers).get(self.read[at], "")

    def _respelled(self, request: Signed) -> bool:
        given = [part.partition(",")[2] for part in self._value(request, 2).split(" ")]
        return any(_reads(text) and _not_canonical(text) for text in given)

    def _odd_secret(self, request: Signed) -> bool:
        encoded = request.secret.removeprefix("whsec_")
        try:
            base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except ValueError:
            return True
        return False


def _reads(text: str) -> bool:
    try:
        return bool(base64.b64decode(text))
    except ValueError:
        return False


class Discord(Vendor):
    """PyNaCl, called as Discord's documentation shows."""

    verifier = verify.ed25519(HERE)
    read = ("x-signature-timestamp", "x-signature-ed25519")

    def __init__(self) -> None:
        signers = [nacl.signing.SigningKey(bytes([number]) * 32) for number in range(4)]
        self._signers = {bytes(signer.verify_key).hex(): signer for signer in signers}
        self.stricter = {
            _REPEATED: _repeated(self.read),
            _TIME: _odd_time(self.read[0]),
            "a signature with upper-case digits or spaces in it: it would have many spellings": self._respelled,
        }

    def sign(self, rng: Random, stamp: str, body: bytes) -> Signed:
        public, signer = rng.choice(list(self._signers.items()))
        message = stamp.encode() + body
        signature = signer.sign(message).signature
        trick = rng.randrange(20)
        if trick == 0:  # a key of small order: with OpenSSL anybody can sign for it
            public, signature = rng.choice(SMALL_ORDER).hex(), rng.choice(SMALL_ORDER) + bytes(32)
        elif trick == 1:  # a signature whose random point is of small order
            signature = _IDENTITY + self._answer(public, signer, message).to_bytes(32, "little")
        elif trick == 2:  # the same scalar, raised by the group order (RFC 8032, 5.1.7)
            raised = int.from_bytes(signature[32:], "little") + _GROUP_ORDER
            signature = signature[:32] + raised.to_bytes(32, "little")
        headers = (("X-Signature-Ed25519", signature.hex()), ("X-Signature-Timestamp", stamp))
        return Signed(public, headers, body, 0.0)

    def verdict(self, request: Signed, headers: Mapping[str, str]) -> bool:
        key = nacl.signing.VerifyKey(bytes.fromhex(request.secret))
        message = headers[self.read[0]].encode() + request.body
        try:
            key.verify(message, bytes.fromhex(headers[self.read[1]]))
        except nacl.exceptions.BadSignatureError:
            return False
        return True

    def _respelled(self, request: Signed) -> bool:
        given = last_values(request.headers).get(self.read[1], "")
        return given != bytes.fromhex(given).hex()

    @staticmethod
    def _answer(public: str, signer: nacl.signing.SigningKey, message: bytes) -> int:
        """The scalar that fits the identity as the random point: the hash times the private scalar."""
        scalar = bytearray(hashlib.sha512(bytes(signer)).digest()[:32])
        scalar[0] &= 248
        scalar[31] = scalar[31] & 127 | 64
        challenge = hashlib.sha512(_IDENTITY + bytes.fromhex(public) + message).digest()
        return int.from_bytes(challenge, "little") * int.from_bytes(scalar, "little") % _GROUP_ORDER


class SendGrid(Vendor):
    """ECDSA with `cryptography`, read as leniently as the standard library reads base64."""

    verifier = verify.ecdsa_p256(HERE)
    read = ("x-twilio-email-event-webhook-timestamp", "x-twilio-email-event-webhook-signature")

    def __init__(self) -> None:
        self._signers = [ec.derive_private_key(number, ec.SECP256R1()) for number in (7, 8, 9)]
        self._other_curve = ec.derive_private_key(7, ec.SECP256K1())
        self.stricter = {
            _REPEATED: _repeated(self.read),
            _TIME: _odd_time(self.read[0]),
            _LONG: _too_long(self.read),
            _BASE64: lambda request: _not_canonical(last_values(request.headers)[self.read[1]]),
            "a key that is not base64": lambda request: not _strict_base64(request.secret),
            "a key on another curve than P-256": lambda request: (
                not isinstance(_key(request.secret).curve, ec.SECP256R1)
            ),
        }

    def sign(self, rng: Random, stamp: str, body: bytes) -> Signed:
        signer = rng.choice(self._signers) if rng.random() < 0.95 else self._other_curve
        public = signer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        signature = signer.sign(stamp.encode() + body, ec.ECDSA(SHA256()))
        headers = (
            ("X-Twilio-Email-Event-Webhook-Signature", base64.b64encode(signature).decode()),
            ("X-Twilio-Email-Event-Webhook-Timestamp", stamp),
        )
        return Signed(base64.b64encode(public).decode(), headers, body, 0.0)

    def verdict(self, request: Signed, headers: Mapping[str, str]) -> bool:
        signature = base64.b64decode(headers[self.read[1]])
        return _fits(request.secret, signature, headers[self.read[0]].encode() + request.body)


@functools.lru_cache(10_000)  # many examples are one request with different things around it
def _fits(public: str, signature: bytes, message: bytes) -> bool:
    try:
        _key(public).verify(signature, message, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


@functools.lru_cache(1000)
def _key(secret: str) -> ec.EllipticCurvePublicKey:
    key = load_der_public_key(base64.b64decode(secret))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


def _strict_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return False
    return True


VENDORS: Mapping[str, Callable[[], Vendor]] = {
    "github": lambda: Hmac("X-Hub-Signature-256"),
    "discourse": lambda: Hmac("X-Discourse-Event-Signature"),
    "hmac_base64": lambda: Hmac("X-Digest", prefix="", encoding="base64"),
    "slack_v0": Slack,
    "standard_webhooks": StandardWebhooks,
    "ed25519": Discord,
    "ecdsa_p256": SendGrid,
}
