"""The archive's format: names of objects, packed blobs, the manifest, HEAD, signatures. Pure.

An archive is a folder of immutable objects and one HEAD:

    HEAD                              which manifest is the newest; the only object that changes
    manifests/<sha256>.json           a snapshot: canonical JSON; its SHA-256 is the snapshot's id
    manifests/<sha256>.sig            its Ed25519 signature, if the writer has a key
    blobs/<ab>/<sha256>.zst           a chunk of rows, or a JSON Schema: zstd; the SHA-256 is of what is packed
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Annotated, Literal, TypeVar

import orjson
import zstandard
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from metagov_sdk.archive import BadDigest, BadSignature, BrokenChain, NotCanonical, TooLarge, Truncated
from metagov_sdk.archive.canonical import canonical, moment

LEVEL = 3
"""zstd's; unchanged chunks keep the bytes they were first packed to, whatever later versions would make of them."""
LARGEST_BLOB = 32 * 2**20
"""The most bytes of packed content that a reader takes, and so that a writer makes."""
LARGEST_MANIFEST = 128 * 2**20
LARGEST_HEAD = 16 * 1024
LARGEST_SCHEMA = 2 * 2**20
LARGEST_SIGNATURE = 4 * 1024
_LARGEST_WINDOW = 64 * 2**20
_SIGNED = b"metagov-archive/1 manifest\n"
"""Before what is signed, so that a signature means nothing anywhere else."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
TableName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}\.[a-z0-9_][a-z0-9_-]{0,62}$")]
Community = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}$")]
Moment = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")]
Period = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d$")]
KeyValues = Annotated[tuple[str | int, ...], Field(min_length=1, max_length=16)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class ChunkEntry(_Document):
    """A chunk: rows of one partition and calendar month, or a part of those."""

    partition: str | None
    period: Period | None
    sha256: Sha256
    stored_sha256: Sha256
    bytes: Annotated[int, Field(ge=1, le=LARGEST_BLOB)]
    stored_bytes: Annotated[int, Field(ge=1, le=2 * LARGEST_BLOB)]
    rows: Annotated[int, Field(ge=1, le=LARGEST_BLOB)]
    first_key: KeyValues
    last_key: KeyValues


class TableEntry(_Document):
    """A table of a snapshot."""

    name: TableName
    key: Annotated[tuple[str, ...], Field(min_length=1, max_length=16)]
    partition: str | None
    time: str | None
    schema_sha256: Sha256
    synced_at: Moment | None
    complete_through: Moment | None
    rows: Annotated[int, Field(ge=0)]
    chunks: tuple[ChunkEntry, ...]


class Manifest(_Document):
    """A snapshot. Nothing in it depends on who wrote it, where or when."""

    format: Literal["metagov-archive/1"] = "metagov-archive/1"
    schema_version: Literal[1] = 1
    provider: Name
    community: Community
    tables: Annotated[tuple[TableEntry, ...], Field(max_length=1000)]
    previous: Sha256 | None
    seq: Annotated[int, Field(ge=1, le=2**53 - 1)]
    created_at: Moment | None

    def encode(self) -> bytes:
        """Its canonical bytes."""
        return canonical(self.model_dump(mode="python"))


class HeadFile(_Document):
    """What HEAD says; who wrote it is here, outside of all that is hashed."""

    format: Literal["metagov-archive-head/1"] = "metagov-archive-head/1"
    provider: Name
    community: Community
    snapshot: Sha256
    seq: Annotated[int, Field(ge=1, le=2**53 - 1)]
    created_at: Moment | None
    producer: Annotated[str, StringConstraints(max_length=200)]

    def encode(self) -> bytes:
        """Its bytes."""
        return canonical(self.model_dump(mode="python")) + b"\n"


DocumentT = TypeVar("DocumentT", bound=_Document)


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def blob_name(sha256: str) -> str:
    """The object that holds what has this digest."""
    return f"blobs/{sha256[:2]}/{sha256}.zst"


def manifest_name(snapshot: str) -> str:
    """The object that is this snapshot's manifest."""
    return f"manifests/{snapshot}.json"


def signature_name(snapshot: str) -> str:
    """The object that is this snapshot's signature."""
    return f"manifests/{snapshot}.sig"


def decode_manifest(data: bytes, snapshot: str) -> Manifest:
    """The manifest that has this id. Raises BadDigest, NotCanonical."""
    if digest(data) != snapshot:
        raise BadDigest(f"the manifest {snapshot} has other bytes than it was written with")
    manifest = _decode(Manifest, data, f"the manifest {snapshot}")
    if manifest.encode() != data:
        raise NotCanonical(f"the manifest {snapshot} is not canonical JSON")
    return manifest


def decode_head(data: bytes) -> HeadFile:
    """What HEAD says. Raises NotCanonical."""
    return _decode(HeadFile, data, "HEAD")


def _decode(model: type[DocumentT], data: bytes, what: str) -> DocumentT:
    try:
        # JSON knows no tuples, which strict models tell from lists unless they are given the JSON itself.
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = "/".join(str(part) for part in first["loc"])
        raise NotCanonical(f"{what} is malformed at /{place}: {first['msg']}") from None


_local = threading.local()


def pack(data: bytes) -> bytes:
    """Content as it is stored: one zstd frame that tells its size."""
    if not hasattr(_local, "compressor"):
        _local.compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=False, write_content_size=True)
    packed: bytes = _local.compressor.compress(data)
    return packed


def unpack(stored: bytes, what: str, most: int) -> bytes:
    """What was packed, never more than `most` bytes of it. Raises TooLarge, Truncated, BadDigest."""
    try:
        frame = zstandard.get_frame_parameters(stored)
    except zstandard.ZstdError:
        raise BadDigest(f"{what} is not a zstd frame") from None
    # The frame's header is the writer's word: memory is set aside by it before a byte is unpacked.
    if frame.content_size == zstandard.CONTENTSIZE_UNKNOWN or frame.content_size > most:
        raise TooLarge(f"{what} claims to unpack to more than {most} bytes")
    if frame.window_size > _LARGEST_WINDOW or frame.dict_id:
        raise TooLarge(f"{what} wants more memory to be unpacked than is given to it")
    try:
        data = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompress(
            stored, max_output_size=most, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        kind = Truncated if "incomplete" in str(error) or "did not decompress full" in str(error) else BadDigest
        raise kind(f"{what} cannot be unpacked: {error}") from None
    if len(data) != frame.content_size:
        raise Truncated(f"{what} unpacks to fewer bytes than it says")
    return data


def read_chunk(stored: bytes, entry: ChunkEntry) -> bytes:
    """A chunk's lines, if its bytes are the manifest's. Raises Truncated, TooLarge, BadDigest."""
    what = f"the blob {entry.sha256}"
    if len(stored) < entry.stored_bytes:
        raise Truncated(f"{what} has {len(stored)} bytes and should have {entry.stored_bytes}")
    if digest(stored) != entry.stored_sha256:
        raise BadDigest(f"{what} has other stored bytes than it was written with")
    data = unpack(stored, what, entry.bytes)
    if len(data) < entry.bytes:
        raise Truncated(f"{what} unpacks to {len(data)} bytes and should to {entry.bytes}")
    if digest(data) != entry.sha256:
        raise BadDigest(f"{what} holds other rows than it was written with")
    return data


def check_follows(manifest: Manifest, snapshot: str, earlier: Manifest) -> None:
    """Raises BrokenChain unless `earlier`, whose id `manifest` names as the previous, can be that."""
    if (earlier.provider, earlier.community) != (manifest.provider, manifest.community):
        raise BrokenChain(f"the manifest {snapshot} follows one of another archive")
    if earlier.seq != manifest.seq - 1:
        raise BrokenChain(f"the manifest {snapshot} is number {manifest.seq} and follows number {earlier.seq}")


class Signer:
    """Signs manifests with an Ed25519 key."""

    def __init__(self, seed: str) -> None:
        """seed: the private key, 32 bytes in base64. Raises ValueError, without repeating it."""
        self._key = Ed25519PrivateKey.from_private_bytes(_key_bytes(seed, "the signing key"))

    @property
    def public_key(self) -> str:
        """What readers trust: 32 bytes in base64."""
        return base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    def sign(self, manifest: bytes) -> bytes:
        """The signature's object."""
        signature = base64.b64encode(self._key.sign(_SIGNED + manifest)).decode()
        return canonical({"algorithm": "ed25519", "public_key": self.public_key, "signature": signature}) + b"\n"


def check_signature(manifest: bytes, signature: bytes, trusted: Collection[str]) -> None:
    """Raises BadSignature unless a trusted key (32 bytes in base64) has signed the manifest."""
    try:
        said = orjson.loads(signature)
        key, value = said["public_key"], base64.b64decode(said["signature"], validate=True)
        if not isinstance(key, str) or said["algorithm"] != "ed25519":
            raise ValueError
    except (ValueError, TypeError, KeyError):
        raise BadSignature("the manifest's signature is malformed") from None
    if key not in trusted:
        raise BadSignature(f"the manifest is signed with the key {key[:60]!r}, which is not one of the trusted ones")
    try:
        Ed25519PublicKey.from_public_bytes(_key_bytes(key, "a trusted key")).verify(value, _SIGNED + manifest)
    except InvalidSignature:
        raise BadSignature("the manifest's signature does not fit its bytes") from None


def check_keys(keys: Sequence[str]) -> None:
    """Raises ValueError for what is no public key (32 bytes in base64)."""
    for key in keys:
        _key_bytes(key, "a trusted key")


def _key_bytes(text: str, what: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise ValueError(f"{what} should be 32 bytes in base64")
    return raw


def written_moment(value: datetime | None) -> str | None:
    """A time as manifests have it."""
    return None if value is None else moment(value)
