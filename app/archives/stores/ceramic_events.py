"""Events of Ceramic's model instance documents, as bytes: DAG-CBOR, CIDs, signatures, CAR files. Pure.

Sources: https://ipld.io/specs/codecs/dag-cbor/spec/, https://ipld.io/specs/transport/car/carv1/,
https://w3c-ccg.github.io/did-method-key/, the packages `events` and `model-instance-client` of
https://github.com/ceramicstudio/ceramic-sdk.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_DAG_CBOR, _DAG_JOSE = 0x71, 0x85
_STREAM_ID, _MODEL_INSTANCE = 0xCE, 3


@dataclass(frozen=True, slots=True)
class Cid:
    """A CIDv1 with a SHA-256."""

    raw: bytes

    def __str__(self) -> str:
        return "b" + base64.b32encode(self.raw).decode().lower().rstrip("=")


class Controller:
    """An Ed25519 key as `did:key`, which signs a stream's events."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        public = self._key.public_key().public_bytes_raw()
        self._name = "z" + _positional(b"\xed\x01" + public, _BASE58)
        self.did = f"did:key:{self._name}"

    def sign(self, payload: Mapping[str, Any]) -> tuple[Cid, bytes]:
        """A signed event: its id, and the CAR file that carries it."""
        inner = encode(payload)
        link = cid_of(inner)
        protected = orjson.dumps({"alg": "EdDSA", "kid": f"{self.did}#{self._name}"}, option=orjson.OPT_SORT_KEYS)
        signature = self._key.sign(_base64(protected) + b"." + _base64(link.raw))
        envelope = encode({"payload": link.raw, "signatures": [{"protected": protected, "signature": signature}]})
        root = cid_of(envelope, _DAG_JOSE)
        return root, car(root, [(link, inner), (root, envelope)])


def init_event(controller: str, model: bytes, unique: bytes) -> tuple[Cid, bytes]:
    """The first event of the one stream that these three name; anybody can make it, so it is not signed."""
    header = {"controllers": [controller], "model": model, "sep": "model", "unique": unique}
    block = encode({"data": None, "header": header})
    return cid_of(block), car(cid_of(block), [(cid_of(block), block)])


def data_event(controller: Controller, stream: Cid, previous: Cid, content: Any) -> tuple[Cid, bytes]:
    """An event that replaces a stream's content."""
    patch = [{"op": "replace", "path": "", "value": content}]
    return controller.sign({"data": patch, "id": stream, "prev": previous})


def stream_id(init: Cid) -> str:
    """The id of the stream that starts with this event."""
    return "k" + _positional(_varint(_STREAM_ID) + _varint(_MODEL_INSTANCE) + init.raw, _BASE36)


def read_stream_id(text: str) -> bytes:
    """A stream id's bytes. Raises ValueError."""
    if not text.startswith("k") or not set(text) <= set(_BASE36) or not 40 < len(text) < 120:
        raise ValueError("not a Ceramic stream id, which starts with k")
    number = int(text[1:], 36)
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    if not raw.startswith(_varint(_STREAM_ID)):
        raise ValueError("not a Ceramic stream id")
    return raw


def read_cid(text: str) -> Cid:
    """A CIDv1 in base32. Raises ValueError."""
    try:
        raw = base64.b32decode(text[1:].upper() + "=" * (-len(text[1:]) % 8))
    except ValueError:
        raw = b""
    if not text.startswith("b") or raw[:1] != b"\x01" or not 36 <= len(raw) <= 40:
        raise ValueError("not a CID in base32")
    return Cid(raw)


def read_multibase(text: str) -> bytes:
    """What is written in base64 with or without padding, for URLs or not. Raises ValueError."""
    if text[:1] not in ("m", "M", "u", "U"):
        raise ValueError("not in one of multibase's base64s")
    body = text[1:].rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)


def multibase(data: bytes) -> str:
    """Bytes in multibase's base64url."""
    return "u" + _base64(data).decode()


def cid_of(block: bytes, codec: int = _DAG_CBOR) -> Cid:
    """A block's id."""
    return Cid(b"\x01" + _varint(codec) + b"\x12\x20" + hashlib.sha256(block).digest())


def car(root: Cid, blocks: Sequence[tuple[Cid, bytes]]) -> bytes:
    """A CAR file, version 1."""
    parts = [encode({"roots": [root], "version": 1}), *(cid.raw + block for cid, block in blocks)]
    return b"".join(_varint(len(part)) + part for part in parts)


def encode(value: Any) -> bytes:
    """DAG-CBOR: names sorted by length, then bytes. Raises TypeError for floats and what it has no word for."""
    if value is None:
        return b"\xf6"
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        return _head(3, len(value.encode())) + value.encode()
    if isinstance(value, Cid):
        return b"\xd8\x2a" + encode(b"\0" + value.raw)
    if isinstance(value, list | tuple):
        return _head(4, len(value)) + b"".join(map(encode, value))
    if isinstance(value, Mapping):
        names = sorted((name.encode() for name in value), key=lambda name: (len(name), name))
        members = (_head(3, len(name)) + name + encode(value[name.decode()]) for name in names)
        return _head(5, len(value)) + b"".join(members)
    raise TypeError(f"DAG-CBOR has no word for a {type(value).__name__}")


def _head(major: int, count: int) -> bytes:
    if count < 24:
        return bytes([major << 5 | count])
    size = next(size for size in range(4) if count < 1 << (8 << size))
    return bytes([major << 5 | 24 + size]) + count.to_bytes(1 << size, "big")


def _varint(number: int) -> bytes:
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _positional(data: bytes, digits: str) -> str:
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, len(digits))
        text = digits[digit] + text
    return text


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
