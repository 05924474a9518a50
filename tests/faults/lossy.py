"""Stands between the gateway and Postgres, and can lose one answer: what was asked is done, and nobody hears of it."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

_SOCKET = ".s.PGSQL.5432"


class LossyPath:
    """Passes bytes both ways, until a statement holds `watch`: its answer is dropped and the connection closed."""

    def __init__(self, server: Path) -> None:
        self._server = server
        self.watch: bytes | None = None
        self.lost = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the gateway's."""
        answers, asks = await asyncio.open_unix_connection(str(self._server))
        cut = asyncio.Event()

        async def ask() -> None:
            while data := await reader.read(65536):
                if self.watch is not None and self.watch in data:
                    self.watch = None
                    cut.set()
                asks.write(data)
                await asks.drain()

        async def answer() -> None:
            while data := await answers.read(65536):
                if cut.is_set():
                    self.lost += 1
                    return
                writer.write(data)
                await writer.drain()

        ways = [asyncio.create_task(ask()), asyncio.create_task(answer())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for side in (writer, asks):
                side.close()
                with contextlib.suppress(OSError):
                    await side.wait_closed()


@contextlib.asynccontextmanager
async def lossy_path(database_url: str) -> AsyncIterator[tuple[LossyPath, str]]:
    """The path, and the database's URL by way of it. The database is one on a unix socket."""
    (folder,) = parse_qs(urlsplit(database_url).query)["host"]
    path = LossyPath(Path(folder) / _SOCKET)
    with tempfile.TemporaryDirectory(prefix="lossy-") as here:
        server = await asyncio.start_unix_server(path.serve, Path(here) / _SOCKET)
        try:
            yield path, database_url.replace(f"host={folder}", f"host={quote(here)}")
        finally:
            server.close()
