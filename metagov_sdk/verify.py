"""Webhook signatures, checked over the raw bytes of a request.

A verifier is a value: made once, next to the webhook it guards, and called with the secret, the
headers, the body and the time. It answers True or False and **never raises**: whatever a stranger
posts is at worst a refusal. It refuses when no secret is set, when a header it reads is missing or
repeated, and when anything is not spelled exactly as the platform spells it. Comparisons take the
same time wherever the difference lies.

    @webhook(verify=slack_v0(setting("signing_secret")))
    @webhook(verify=hmac_sha256(config("webhook_secret") | setting("webhook_secret")))
"""

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Literal, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from metagov_sdk.headers import Headers

__all__ = [
    "SecretRef",
    "Unsigned",
    "Verifier",
    "config",
    "ecdsa_p256",
    "ed25519",
    "hmac_sha256",
    "setting",
    "slack_v0",
    "standard_webhooks",
    "unsigned",
]

# Longer than any header a platform signs with; Standard Webhooks may list many signatures in one.
_LONGEST_HEADER = 4096
# Unix seconds have ten digits from 2001 to 2286. A fixed width also means that where a platform signs
# timestamp + body without a separator, no digit can be moved from one to the other.
_UNIX_SECONDS = re.compile(rb"[0-9]{10}")
_SIGNATURE_HEX = re.compile(rb"[0-9a-f]{128}")

# The y coordinates of the points of small order on Ed25519's curve, two of them also unreduced (y + p). With such a
# key (all zeros is one) anybody can sign, and with such a point in a signature its owner signs every message at once.
# libsodium refuses them, OpenSSL does not. Source: Chalkias, Garillot and Nikolaenko, "Taming the many EdDSAs",
# https://eprint.iacr.org/2020/1244
_P25519 = 2**255 - 19
_ORDER_8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_WEAK_Y = frozenset({0, 1, _P25519 - 1, _P25519, _P25519 + 1, _ORDER_8, _P25519 - _ORDER_8})


@dataclass(frozen=True, slots=True)
class SecretRef:
    """Where a secret is found: places tried in order, the first that is set wins.

    ``sources`` holds (where, name) pairs: ``config`` is the instance's own configuration,
    ``setting`` the deployment's setting for the plugin. ``a | b`` tries ``a`` before ``b``.
    """

    sources: tuple[tuple[Literal["config", "setting"], str], ...]

    def __or__(self, other: "SecretRef") -> "SecretRef":
        return SecretRef(self.sources + other.sources)


def config(name: str) -> SecretRef:
    """Name a field of the instance's configuration."""
    return SecretRef((("config", name),))


def setting(name: str) -> SecretRef:
    """Name a setting of the plugin in this deployment (``METAGOV_<PLUGIN>_<NAME>``)."""
    return SecretRef((("setting", name),))


class Verifier(Protocol):
    """Tells whether a request was signed by the holder of a secret."""

    @property
    def secret(self) -> SecretRef:
        """Where the secret (or the platform's public key) comes from."""

    def __call__(self, secret: str, headers: Headers, body: bytes, now: float) -> bool:
        """Return whether ``body`` and ``headers`` are signed with ``secret``; never raise.

        ``body`` is the request body exactly as received, ``now`` is the time in unix seconds.
        An empty secret verifies nothing.
        """


@dataclass(frozen=True, slots=True)
class Unsigned:
    """Says that the platform signs nothing, and why that is acceptable. It has no secret."""

    reason: str

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise ValueError("unsigned(reason=…) needs the reason why this webhook carries no signature.")


def unsigned(reason: str) -> Unsigned:
    """Declare a webhook whose platform signs nothing; such a hook can only wake, never emit.

    Raises ValueError when ``reason`` is empty.
    """
    return Unsigned(reason)


def hmac_sha256(
    secret: SecretRef,
    header: str = "X-Hub-Signature-256",
    prefix: str = "sha256=",
    encoding: Literal["hex", "base64"] = "hex",
    *,
    any_case: bool = False,
) -> Verifier:
    """HMAC-SHA256 of the raw body, sent as ``prefix`` + digest in ``header``.

    The defaults are GitHub's
    (https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries); Discourse uses
    the same in ``X-Discourse-Event-Signature``. ``any_case`` accepts upper-case hex digits and is
    for platforms that document them. Such a signature has no timestamp, so a replay is caught by
    deduplication alone. Raises ValueError for an unknown ``encoding``.
    """
    return _HmacSha256(secret, header, prefix, encoding, any_case)


def slack_v0(secret: SecretRef, tolerance: float = 300) -> Verifier:
    """Slack's signing secret: ``X-Slack-Signature: v0=`` hex HMAC-SHA256 of ``v0:timestamp:body``.

    ``tolerance`` is how many seconds the timestamp may be away from now, either way.
    Source: https://docs.slack.dev/authentication/verifying-requests-from-slack/
    """
    return _SlackV0(secret, tolerance)


def ed25519(
    public_key: SecretRef,
    signature_header: str = "X-Signature-Ed25519",
    timestamp_header: str = "X-Signature-Timestamp",
    tolerance: float | None = None,
) -> Verifier:
    """Ed25519 over timestamp + body; key and signature in hex. The defaults are Discord's.

    Discord states no window for the timestamp, so none is enforced unless ``tolerance`` (seconds) is given.
    Source: https://docs.discord.com/developers/interactions/overview
    """
    return _Ed25519(public_key, signature_header, timestamp_header, tolerance)


def standard_webhooks(secret: SecretRef, tolerance: float = 300, header_prefix: str = "webhook-") -> Verifier:
    """Standard Webhooks, symmetric: ``v1,`` + base64 HMAC-SHA256 of ``id.timestamp.body``.

    The secret is base64, with or without ``whsec_``. Several signatures may stand in one header,
    separated by spaces (a sender rotating its secret); one that fits is enough, other versions are
    passed over. ``header_prefix`` is ``svix-`` for senders on Svix's own names.
    Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """
    return _StandardWebhooks(secret, tolerance, header_prefix)


def ecdsa_p256(
    public_key: SecretRef,
    signature_header: str = "X-Twilio-Email-Event-Webhook-Signature",
    timestamp_header: str = "X-Twilio-Email-Event-Webhook-Timestamp",
    tolerance: float | None = None,
) -> Verifier:
    """ECDSA on P-256 with SHA-256 over timestamp + body. The defaults are SendGrid's.

    The signature is base64 of DER, the key base64 of a DER SubjectPublicKeyInfo. No window is
    enforced for the timestamp unless ``tolerance`` (seconds) is given.
    Source: https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features
    """
    return _EcdsaP256(public_key, signature_header, timestamp_header, tolerance)


@dataclass(frozen=True, slots=True)
class _HmacSha256:
    secret: SecretRef
    header: str
    prefix: str
    encoding: Literal["hex", "base64"]
    any_case: bool

    def __post_init__(self) -> None:
        if self.encoding not in ("hex", "base64"):
            raise ValueError(f"encoding must be 'hex' or 'base64', not {self.encoding!r}.")

    def __call__(self, secret: str, headers: Headers, body: bytes, now: float) -> bool:
        key, given = _utf8(secret), _single(headers, self.header)
        prefix = _utf8(self.prefix) or b""
        if not key or given is None or not given.startswith(prefix):
            return False
        given = given.removeprefix(prefix)
        digest = hmac.digest(key, body, "sha256")
        if self.encoding == "base64":
            return hmac.compare_digest(base64.b64encode(digest), given)
        return hmac.compare_digest(binascii.hexlify(digest), given.lower() if self.any_case else given)


@dataclass(frozen=True, slots=True)
class _SlackV0:
    secret: SecretRef
    tolerance: float

    def __call__(self, secret: str, headers: Headers, body: bytes, now: float) -> bool:
        key = _utf8(secret)
        given = _single(headers, "X-Slack-Signature")
        sent_at = _timestamp(headers, "X-Slack-Request-Timestamp", now, self.tolerance)
        if not key or given is None or sent_at is None:
            return False
        mac = hmac.new(key, b"v0:" + sent_at + b":", hashlib.sha256)
        mac.update(body)
        return hmac.compare_digest(b"v0=" + binascii.hexlify(mac.digest()), given)


@dataclass(frozen=True, slots=True)
class _Ed25519:
    secret: SecretRef
    signature_header: str
    timestamp_header: str
    tolerance: float | None

    def __call__(self, secret: str, headers: Headers, body: bytes, now: float) -> bool:
        signature = _single(headers, self.signature_header)
        sent_at = _timestamp(headers, self.timestamp_header, now, self.tolerance)
        if not secret or signature is None or sent_at is None or not _SIGNATURE_HEX.fullmatch(signature):
            return False
        try:
            public, signed = bytes.fromhex(secret), binascii.unhexlify(signature)
            if _is_weak(public) or _is_weak(signed[:32]):
                return False
            Ed25519PublicKey.from_public_bytes(public).verify(signed, sent_at + body)
        except (ValueError, InvalidSignature):
            return False
        return True


@dataclass(frozen=True, slots=True)
class _StandardWebhooks:
    secret: SecretRef
    tolerance: float
    header_prefix: str

    def __call__(self, secret: str, headers: Headers, body: bytes, now: float) -> bool:
        key = _webhook_key(secret)
        identifier = _single(headers, self.header_prefix + "id")
        sent_at = _timestamp(headers, self.header_prefix + "timestamp", now, self.tolerance)
        given = _single(headers, self.header_prefix + "signature")
        # A full stop in the id would let its end pass for the timestamp; the specification forbids it.
        if not key or not identifier or b"." in identifier or sent_at is None or given is None:
            return False
        mac = hmac.new(key, identifier + b"." + sent_at + b".", hashlib.sha256)
        mac.update(body)
        expected = b"v1," + base64.b64encode(mac.digest())
        fits = [hmac.compare_digest(expected, signature) for signature in given.split(b" ")]
        return any(fits)


@dataclass(frozen=True, slots=True)
class _EcdsaP256:
    secret: SecretRef
    signature_header: str
    timestamp_header: str
    tolerance: float | None

    def __call__(self, secret: str, headers: Headers, body: bytes, now: float) -> bool:
        key = _p256_key(secret)
        signature = _base64(_single(headers, self.signature_header))
        sent_at = _timestamp(headers, self.timestamp_header, now, self.tolerance)
        if key is None or not signature or sent_at is None:
            return False
        try:
            key.verify(signature, sent_at + body, ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True


def _single(headers: Headers, name: str) -> bytes | None:
    """Return the value of a header that is present once, short enough and ASCII; else None."""
    values = headers.getall(name)
    if len(values) != 1 or len(values[0]) > _LONGEST_HEADER or not values[0].isascii():
        return None
    return values[0].encode("ascii")


def _timestamp(headers: Headers, name: str, now: float, tolerance: float | None) -> bytes | None:
    """Return the timestamp header as sent, or None when it is malformed or outside the tolerance."""
    value = _single(headers, name)
    if value is None or not _UNIX_SECONDS.fullmatch(value):
        return None
    # Written so that a NaN on either side refuses.
    return value if tolerance is None or abs(now - int(value)) <= tolerance else None


def _is_weak(point: bytes) -> bool:
    """Whether these bytes stand for a point of small order on Ed25519's curve; the top bit is the sign of x."""
    return int.from_bytes(point, "little") % 2**255 in _WEAK_Y


def _utf8(text: str) -> bytes | None:
    try:
        return text.encode() if text else None
    except UnicodeEncodeError:  # a lone surrogate
        return None


def _base64(value: bytes | None) -> bytes | None:
    """Decode canonical base64; None for anything that does not encode back to the same text."""
    try:
        decoded = base64.b64decode(value or b"", validate=True)
    except ValueError:
        return None
    return decoded if base64.b64encode(decoded) == value else None


def _webhook_key(secret: str) -> bytes | None:
    """Decode a ``whsec_`` secret; padding may be missing, as the reference libraries allow."""
    encoded = (_utf8(secret) or b"").removeprefix(b"whsec_")
    try:
        return base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        return None


def _p256_key(secret: str) -> EllipticCurvePublicKey | None:
    encoded = _utf8(secret)
    try:
        key = load_der_public_key(base64.b64decode(encoded or b"", validate=True))
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1) else None
