"""Archives in a folder: `file:///var/lib/metagov/archives`. What is there is whole, also after the power went."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

from app.archives.format import LARGEST_HEAD, digest
from metagov_sdk.archive import ArchiveAway, ArchiveSettings, DataArchive, Head, HeadMoved, MissingObject, TooLarge

_NOTHING = "none"
_SCRATCH = re.compile(r"\..+\.[0-9a-f]{16}")
"""What `_write` names a file by until it is whole."""


class FilesystemArchive(DataArchive):
    """A folder of files. They appear by a rename; HEAD changes under a lock that the kernel drops with its holder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, below: str, settings: ArchiveSettings) -> AsyncIterator[FilesystemArchive]:
        """A folder below the one that the URL names. Raises ValueError for a URL with a host or a relative path."""
        parts = urlsplit(url)
        path = unquote(parts.path)
        if parts.netloc or parts.query or parts.fragment or not path.startswith("/") or "\0" in path:
            raise ValueError("a file archive's URL is file:// and an absolute path: file:///var/lib/metagov/archives")
        yield cls(Path(path) / below)

    async def head(self) -> Head:
        """HEAD as it is now."""
        return await asyncio.to_thread(self._head)

    async def read(self, name: str, most: int) -> bytes:
        """A file's bytes. Raises MissingObject, TooLarge, ArchiveAway."""
        return await asyncio.to_thread(self._read, name, most)

    async def missing(self, names: Collection[str]) -> set[str]:
        """Those that are not there."""
        return await asyncio.to_thread(lambda: {name for name in names if not (self._folder / name).is_file()})

    async def add(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        """Write a file, if there is none. Raises ArchiveAway."""
        return await asyncio.to_thread(self._add, name, data, replace=replace)

    async def move_head(self, data: bytes, expected: Head) -> None:
        """Set HEAD, if it is still what was expected. Raises HeadMoved, ArchiveAway."""
        await asyncio.to_thread(self._move_head, data, expected)

    async def sweep_scratch(self, older_than: timedelta) -> int:
        """Remove what writers were in the middle of when they died. Raises ArchiveAway."""
        return await asyncio.to_thread(self._sweep_scratch, time.time() - older_than.total_seconds())

    def _sweep_scratch(self, before: float) -> int:
        removed = 0
        with _said_plainly(self._folder):
            for folder, _, names in os.walk(self._folder):
                for name in filter(_SCRATCH.fullmatch, names):
                    path = Path(folder, name)
                    with contextlib.suppress(FileNotFoundError):
                        if path.lstat().st_mtime < before:
                            path.unlink()
                            removed += 1
        return removed

    def _head(self) -> Head:
        try:
            data = self._read("HEAD", LARGEST_HEAD)
        except MissingObject:
            return Head(None, _NOTHING)
        return Head(data, digest(data))

    def _read(self, name: str, most: int) -> bytes:
        with _said_plainly(self._folder):
            try:
                # An archive may come from elsewhere: a link in it must not lead out of it.
                descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            except (FileNotFoundError, NotADirectoryError):
                raise MissingObject(f"{name} is not there") from None
            with open(descriptor, "rb") as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise MissingObject(f"{name} is no file")
                if found.st_size > most:
                    raise TooLarge(f"{name} has {found.st_size} bytes, {most} is the most that is read")
                return file.read(most + 1)

    def _add(self, name: str, data: bytes, *, replace: bool) -> bool:
        path = self._folder / name
        with _said_plainly(self._folder):
            if not replace and path.is_file():
                return False
            _write(path, data)
        return True

    def _move_head(self, data: bytes, expected: Head) -> None:
        with _said_plainly(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            with open(self._folder / "lock", "ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if self._head().version != expected.version:
                    raise HeadMoved("another writer has set HEAD")
                _write(self._folder / "HEAD", data)


def _write(path: Path, data: bytes) -> None:
    """A file that is whole or not there, and stays when the power goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(scratch, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _said_plainly(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArchiveAway(f"the archive's folder {folder} cannot be used: {error.strerror or error}") from error
