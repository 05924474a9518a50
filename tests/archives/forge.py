"""An archive in memory that a test can damage, and forgeries whose digests all fit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson

from app.archives.format import blob_name, digest, manifest_name, pack, unpack
from metagov_sdk.archive import ArchiveSettings, DataArchive, Head, HeadMoved, MissingObject, TooLarge
from metagov_sdk.archive.canonical import canonical


class MemoryArchive(DataArchive):
    """Objects in a dictionary. `before_head` is awaited before HEAD is moved."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.head_data: bytes | None = None
        self.added: list[str] = []
        self.before_head: Callable[[], Any] | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, below: str, settings: ArchiveSettings) -> AsyncIterator[MemoryArchive]:
        yield cls()

    async def head(self) -> Head:
        return Head(self.head_data, digest(self.head_data or b""))

    async def read(self, name: str, most: int) -> bytes:
        if name not in self.objects:
            raise MissingObject(f"{name} is not there")
        if len(self.objects[name]) > most:
            raise TooLarge(f"{name} is too large")
        return self.objects[name]

    async def missing(self, names: Collection[str]) -> set[str]:
        return {name for name in names if name not in self.objects}

    async def add(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        if name in self.objects and not replace:
            return False
        self.objects[name] = data
        self.added.append(name)
        return True

    async def move_head(self, data: bytes, expected: Head) -> None:
        if self.before_head is not None:
            hook, self.before_head = self.before_head, None
            await hook()
        if digest(self.head_data or b"") != expected.version:
            raise HeadMoved("another writer has set HEAD")
        self.head_data = data

    @property
    def snapshot(self) -> str:
        """The newest snapshot's id."""
        return str(orjson.loads(self.head_data or b"")["snapshot"])

    def manifest(self) -> Any:
        """The newest manifest, to be changed."""
        return orjson.loads(self.objects[manifest_name(self.snapshot)])

    def forge(self, manifest: Mapping[str, Any]) -> str:
        """Set HEAD to this manifest, with digests that fit; returns its id."""
        data = canonical(dict(manifest))
        snapshot = digest(data)
        self.objects[manifest_name(snapshot)] = data
        head = {**orjson.loads(self.head_data or b""), "snapshot": snapshot, "seq": manifest["seq"]}
        self.head_data = canonical(head)
        return snapshot

    def rows(self, chunk: Mapping[str, Any]) -> list[bytes]:
        """A chunk's lines."""
        return unpack(self.objects[blob_name(chunk["sha256"])], "it", 2**25).splitlines(keepends=True)

    def forge_rows(self, chunk: dict[str, Any], lines: list[bytes]) -> None:
        """Replace a chunk's lines, and all that a forger can make fit: digests, lengths, counts."""
        self.forge_blob(chunk, b"".join(lines))
        chunk["rows"] = len(lines)

    def forge_blob(self, chunk: dict[str, Any], data: bytes, stored: bytes | None = None) -> None:
        """Replace a chunk's bytes."""
        stored = pack(data) if stored is None else stored
        chunk.update(sha256=digest(data), stored_sha256=digest(stored), bytes=len(data), stored_bytes=len(stored))
        self.objects[blob_name(chunk["sha256"])] = stored
