"""What a share opens: three files, for a SourceCred instance's external plugin or another gateway. No API key.

A token that is unknown, expired or revoked, a graph that was never built and a name that is none are answered alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import BinaryIO

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.archives.ranges import is_known
from app.core.asgi import SHARES_PREFIX
from app.core.errors import NotFound, Unavailable
from app.core.http import PlainRoute
from app.graphs.files import PIECE
from app.graphs.service import QUEUE, Graphs
from app.graphs.shares import FILES, find_shared

_NO_STORE = {"cache-control": "no-store"}
_HEADERS = {
    # Only the one who has the URL may keep it, and asks each time whether it is still open.
    "Cache-Control": "private, no-cache",
    "Vary": "Accept-Encoding",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
_GZIP = re.compile(r"(?:^|,)\s*(?:gzip|x-gzip|\*)\s*(?:;\s*q\s*=\s*([01](?:\.\d{0,3})?))?\s*(?=,|$)", re.IGNORECASE)
_AGAIN = """
UPDATE graphs SET forced = true, next_at = clock_timestamp() WHERE instance_id = $1 AND next_at IS NULL
"""


def url_of(use: Graphs, token: str, name: str) -> str:
    """The address of one of a share's files."""
    return f"{use.public_url}{SHARES_PREFIX}{token}/{name}"


async def read_shared(request: Request) -> Response:
    """One of a shared graph's files."""
    use: Graphs = request.app.state.graphs
    request.app.state.public_calls.take(request.client.host if request.client else "?")
    name = FILES.get(request.path_params["name"])
    found = await find_shared(use, request.path_params["token"])
    if name is None or found is None or use.files is None:
        raise NotFound("there is nothing here, or not any more", headers=_NO_STORE)
    instance_id, files = found
    sha256, size = files[name]["sha256"], files[name]["size"]
    packed = takes_gzip(request.headers.get("accept-encoding", ""))
    etag = f'"{sha256}-gzip"' if packed else f'"{sha256}"'
    headers = {**_HEADERS, "ETag": etag}
    if is_known(request, f'"{sha256}"') or is_known(request, f'"{sha256}-gzip"'):
        return Response(status_code=304, headers=headers)
    path = use.files.path(f"{sha256}.gz")
    try:
        # Opened before anything is answered: from here on it can be read, even if it is swept.
        file = await asyncio.to_thread(path.open, "rb")
    except FileNotFoundError:
        await use.db.pool.execute(_AGAIN, instance_id)
        use.wake.poke(QUEUE)
        raise Unavailable("the file is being made again; try again", retry_after=30) from None
    if packed:
        headers["Content-Encoding"] = "gzip"
        size = _size_of(file)
    headers["Content-Length"] = str(size)
    if request.method == "HEAD":
        file.close()
        return Response(headers=headers, media_type="application/json")
    return StreamingResponse(_pieces(file, packed=packed), headers=headers, media_type="application/json")


def takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding header names gzip, not with a weight of zero. Pure."""
    found = _GZIP.search(accepted)
    return found is not None and float(found[1] or 1) > 0


def _size_of(file: BinaryIO) -> int:
    size = file.seek(0, 2)
    file.seek(0)
    return size


async def _pieces(file: BinaryIO, *, packed: bool) -> AsyncIterator[bytes]:
    with contextlib.closing(file):
        pieces = _packed(file) if packed else _unpacked(file)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece


def _packed(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.read(4 * PIECE), b"")


def _unpacked(file: BinaryIO) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(wbits=31)
    while piece := file.read(PIECE):
        while piece:
            if out := unpacker.decompress(piece, 8 * PIECE):
                yield out
            piece = unpacker.unconsumed_tail
    if out := unpacker.flush():
        yield out


ROUTES = (PlainRoute(f"{SHARES_PREFIX}{{token}}/{{name}}", read_shared, methods=["GET"]),)
"""Starlette adds HEAD."""
