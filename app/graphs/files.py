"""Where graphs lie: files in one folder, packed with gzip, each named by the SHA-256 of what is packed.

A file is written under another name, forced to disk and then renamed: what has its name is whole. What no row names
goes with the sweep, but not at once: somebody may have read the row just before it changed.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import tempfile
import zlib
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import time

PIECE = 2**16
_LEVEL = 3
_BLOCK, _AHEAD = 2**22, 2
"""What is packed at once, so large that waiting for the interpreter is next to nothing; how many blocks wait."""
_NAME = re.compile(r"[0-9a-f]{64}\.(?:gz|sqlite|input)")
_UNFINISHED, _FRESH_NAME = "tmp", re.compile(r"[0-9a-f]{8}-\w+")
_GRACE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A file's digest and size, both of what is packed."""

    sha256: str
    size: int


class GraphFiles:
    """The folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Where a file of this name is, or would be. Raises ValueError for what is no name."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name[:80]!r} is no file of a graph")
        return self.folder / name[:2] / name

    def write_packed(self, pieces: Iterable[bytes]) -> Kept:
        """Keep what the pieces are together; what is there already stays."""
        digest, size = hashlib.sha256(), 0
        packer = zlib.compressobj(_LEVEL, wbits=31)

        def take(block: bytes) -> None:
            digest.update(block)
            fresh.write(packer.compress(block))

        # In a thread of its own: digests and packing leave the interpreter to whoever makes the pieces.
        with self.writing() as fresh, ThreadPoolExecutor(1, "packing") as thread:
            waiting: deque[Future[None]] = deque()
            for block in _blocks(pieces):
                size += len(block)
                waiting.append(thread.submit(take, block))
                if len(waiting) > _AHEAD:
                    waiting.popleft().result()
            for each in waiting:
                each.result()
            fresh.write(packer.flush())
            fresh.keep(f"{digest.hexdigest()}.gz")
        return Kept(digest.hexdigest(), size)

    def read_packed(self, sha256: str) -> Iterator[bytes]:
        """What was packed, in pieces. Raises OSError, and zlib.error where the disk is damaged."""
        unpacker = zlib.decompressobj(wbits=31)
        with self.path(f"{sha256}.gz").open("rb") as file:
            while piece := file.read(PIECE):
                while piece:
                    if out := unpacker.decompress(piece, 4 * PIECE):
                        yield out
                    piece = unpacker.unconsumed_tail
        if out := unpacker.flush():
            yield out

    def writing(self) -> Fresh:
        """A file on its way: use it as a context manager, and say `keep` when all of it is there."""
        return Fresh(self)

    def has(self, name: str) -> bool:
        """Whether it is there; if so, the sweep takes it for new."""
        try:
            os.utime(self.path(name))
        except FileNotFoundError:
            return False
        return True

    def remove(self, names: Iterable[str]) -> None:
        """Remove files at once, also those that somebody may be about to read."""
        for name in names:
            self.path(name).unlink(missing_ok=True)

    def sweep(self, named: Collection[str], older_than: float = _GRACE_SECONDS) -> int:
        """Remove what is not named and has been there for some time, unfinished files among it. Returns how many.

        Files of another kind stay: the folder may be somebody's by mistake.
        """
        before = time() - older_than
        count = 0
        for path in self.folder.glob("*/*"):
            own = _NAME.fullmatch(path.name) or (path.parent.name == _UNFINISHED and _FRESH_NAME.fullmatch(path.name))
            try:
                if own and path.name not in named and path.stat().st_mtime < before:
                    path.unlink()
                    count += 1
            except FileNotFoundError:
                continue
        return count


class Fresh:
    """A file that is being written. What is not kept is gone."""

    def __init__(self, files: GraphFiles) -> None:
        self._files = files

    def __enter__(self) -> Fresh:
        folder = self._files.folder / _UNFINISHED
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f"{secrets.token_hex(4)}-", dir=folder)
        self.path = Path(name)
        self._file = os.fdopen(handle, "wb")
        return self

    def write(self, data: bytes) -> None:
        """Add bytes."""
        self._file.write(data)

    def keep(self, name: str) -> None:
        """All of it is there: force it to disk, and give it its name."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        target = self._files.path(name)
        if self._files.has(name):
            return
        target.parent.mkdir(mode=0o700, exist_ok=True)
        self.path.replace(target)
        _sync_folder(target.parent)

    def __exit__(self, *exc: object) -> None:
        try:
            self._file.close()
        finally:
            # Where the disk is full, closing fails as well.
            self.path.unlink(missing_ok=True)


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _BLOCK:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
