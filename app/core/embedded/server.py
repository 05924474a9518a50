"""The life of one embedded server: lock, clear what a killed one left, launch, wait, revive, stop."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar, Self

from app.core.embedded import launch
from app.core.embedded.errors import StartFailed
from app.core.embedded.home import Lock, claim_socket_dir, make_socket_dir

_LOG_LIMIT = 5 * 1024 * 1024
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""All a server inherits: the gateway's secrets do not concern it, and PG* variables would steer Postgres."""


class EmbeddedServer(ABC):
    """A server that belongs to this process: started from its main thread, stopped with it.

    All methods block and are plain functions. Use `with`, or `start()` and `stop()`.
    """

    name: ClassVar[str]
    """Name of the server, and of its folder in the data directory."""
    _program: ClassVar[str]
    _death_signal: ClassVar[signal.Signals]
    _stop_signals: ClassVar[tuple[signal.Signals, ...]]
    """From the politest to the last before SIGKILL."""

    def __init__(self, data_dir: Path) -> None:
        self.home = data_dir.absolute() / self.name
        self.log_path = self.home / "log"
        self._lock = Lock(self.home / "lock")
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: Path | None = None
        self._log_start = 0
        self._launched_at = 0.0
        self._pause = 0.0

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect, the same after a `revive()`. Raises StartFailed before `launch()`."""

    @property
    def pid(self) -> int | None:
        """Process id of the server, None when it was not launched or was stopped."""
        return None if self._process is None else self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, timeout: float = 60.0) -> str:
        """Launch, wait at most `timeout` seconds until clients are served, and return the URL.

        Raises NotInstalled, InUse or StartFailed; nothing is left running then.
        """
        self.launch()
        return self.wait_ready(timeout)

    def launch(self) -> None:
        """Take the lock, clear what a killed server left, and start the process without waiting for it."""
        if self._process is not None and self._process.poll() is None:
            return
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            self._stop_leftovers()
            self._process = self._prepare_and_spawn()
        except OSError as error:
            self.stop()
            raise StartFailed(
                f"{self.name} cannot use {self.home}: {error}. "
                "Choose another --data-dir, or run as an ordinary user if you are root."
            ) from error
        except BaseException:
            self.stop()
            raise
        self._launched_at = time.monotonic()

    def wait_ready(self, timeout: float = 60.0) -> str:
        """Wait until clients are served and return the URL. Raises StartFailed with the end of the log."""
        if self._process is None:
            raise StartFailed(f"{self.name} was not launched")
        deadline = time.monotonic() + timeout
        try:
            while not self._is_ready(self._process.pid):
                if self._process.poll() is not None:
                    raise StartFailed(self._explain_end(self._process.returncode))
                if time.monotonic() > deadline:
                    raise StartFailed(f"{self.name} was not ready after {timeout:g} s.{self._log_tail()}")
                time.sleep(0.01)
        except BaseException:
            self.stop()
            raise
        return self.url

    def revive(self) -> bool:
        """Launch again if the server ended on its own; True if it did. Does not wait for it to be ready.

        One that keeps ending at once is tried at growing intervals, up to 10 s. Raises as `launch` does.
        """
        if self._process is None or self._process.poll() is None:
            return False
        lived = time.monotonic() - self._launched_at
        if lived < self._pause:
            return False
        self._pause = 0.0 if lived > 30.0 else min(10.0, max(0.5, 2 * self._pause))
        self.launch()
        return True

    def stop(self, timeout: float = 5.0) -> None:
        """End the server within about `timeout` seconds, harder the longer it takes, and give up the lock."""
        try:
            if self._process is not None:
                self._end_process(self._process, timeout)
                self._process = None
                self._stop_leftovers()
            if self._sockets is not None:
                shutil.rmtree(self._sockets, ignore_errors=True)
        finally:
            self._lock.release()

    def _end_process(self, process: subprocess.Popen[bytes], timeout: float) -> None:
        shares = (0.7, *[0.3 / len(self._stop_signals)] * len(self._stop_signals))
        for step, share in zip((*self._stop_signals, signal.SIGKILL), shares, strict=True):
            if process.poll() is not None:
                return
            process.send_signal(step)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout * share)
        process.wait()

    @abstractmethod
    def _prepare_and_spawn(self) -> subprocess.Popen[bytes]:
        """Bring the server's files in order and start its process; runs under the lock."""

    @abstractmethod
    def _folders(self) -> tuple[Path, ...]:
        """The folders this server's processes work in; a leftover is known by them."""

    @abstractmethod
    def _is_ready(self, pid: int) -> bool: ...

    @property
    def _socket_dir(self) -> Path:
        if self._sockets is None:
            raise StartFailed(f"{self.name} was not launched")
        return self._sockets

    def _open_socket_dir(self, uid: int, gid: int) -> None:
        """Have an empty socket folder for that user, the same as before if there was one: clients know it."""
        if self._sockets is None or not claim_socket_dir(self._sockets, uid=uid, gid=gid):
            self._sockets = make_socket_dir(self.home, uid=uid, gid=gid)

    def _main_pid(self) -> int | None:
        """Id of an earlier server's main process where its children must not get the first signal."""
        return None

    def _run_as(self) -> tuple[int, int] | None:
        """User and group id to run as, None for our own."""
        return None

    def _spawn(
        self,
        argv: Sequence[str],
        cwd: Path,
        stdin: IO[bytes] | int = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Start a program in `cwd`, on this server's log, in a session of its own: no Ctrl-C reaches it."""
        if self.log_path.exists() and self.log_path.stat().st_size > _LOG_LIMIT:
            self.log_path.replace(self.log_path.with_name("log.old"))
        uid, gid = self._run_as() or (None, None)
        wrapped = launch.command(argv, death_signal=self._death_signal, uid=uid, gid=gid, cwd=cwd)
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            return subprocess.Popen(  # noqa: S603 - argument list made here, no shell
                wrapped,
                stdin=stdin,
                stdout=log,
                stderr=log,
                env={key: os.environ[key] for key in _ENVIRONMENT if key in os.environ} | {"LC_ALL": "C"},
                start_new_session=True,
                umask=0o077,
            )

    def _explain_end(self, code: int) -> str:
        if code == launch.UNREACHABLE:
            return (
                f"{self.name} does not run as root, and could not be started as an unprivileged user instead."
                f"{self._log_tail()}\nRun as an ordinary user, or choose a --data-dir every user can reach."
            )
        return f"{self.name} ended with code {code} before it was ready.{self._log_tail()}"

    def _log_tail(self) -> str:
        """The last lines this start wrote, and where the rest is."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(self._log_start)
                lines = log.read().decode("utf-8", "replace").splitlines()[-8:]
        except OSError:
            lines = []
        return "".join(f"\n  {line}" for line in lines) + f"\nIts log: {self.log_path}"

    def _stop_leftovers(self) -> None:
        """End processes of an earlier server here whose starter was killed.

        They are stopped rather than adopted: nobody could wait for one that is not our child, it carries the
        settings, socket and perhaps version of its day, and a clean stop and start takes under a second.
        """
        # Imported late: psutil comes with the extra, and its absence is reported before we get here.
        from app.core.embedded import leftovers

        if not leftovers.end(self._program, self._folders(), self._stop_signals, main_pid=self._main_pid()):
            raise StartFailed(f"An earlier {self.name} still runs on {self.home} and cannot be ended.")
