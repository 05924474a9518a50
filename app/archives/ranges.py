"""Immutable bytes over HTTP: ETag, conditional and range requests (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response

from app.core.errors import Problem

_RANGE = re.compile(r"bytes=(?:(\d{1,15})-(\d{0,15})|-(\d{1,15}))")
_FOR_EVER = "private, max-age=31536000, immutable"
_VARY = "Authorization, X-Metagov-Community"


class NotSatisfiable(Problem):
    """The range that was asked for lies outside."""

    status = 416


def immutable(request: Request, data: bytes, name: str, media_type: str) -> Response:
    """What never changes: whole, a range of it, or 304. `name` is its ETag. Raises NotSatisfiable."""
    etag = f'"{name}"'
    headers = {"ETag": etag, "Cache-Control": _FOR_EVER, "Vary": _VARY, "Accept-Ranges": "bytes"}
    if is_known(request, etag):
        return Response(status_code=304, headers=headers)
    wanted = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    # Several ranges at once, or a unit that nobody knows, may be answered as if none had been asked for.
    if wanted is None or request.headers.get("if-range", etag) != etag:
        return Response(data, headers=headers, media_type=media_type)
    size = len(data)
    first, last, suffix = wanted.groups()
    start = max(0, size - int(suffix)) if suffix is not None else int(first)
    end = size if suffix is not None or not last else min(size, int(last) + 1)
    if suffix is None and last and int(last) < int(first):
        return Response(data, headers=headers, media_type=media_type)
    if start >= size:
        raise NotSatisfiable(f"there are {size} bytes", headers={"Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return Response(data[start:end], 206, headers, media_type)


def is_known(request: Request, etag: str) -> bool:
    """Whether the caller has this version already."""
    tags = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return "*" in tags or etag in tags
