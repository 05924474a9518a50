"""Addresses of servers, as drivers write them into configurations."""

from __future__ import annotations

from urllib.parse import urlsplit


def normalise_url(text: str, *, example: str = "https://example.org", instead: str = "give credentials apart") -> str:
    """One spelling per server: scheme and host in lower case, no default port, no slash at the end.

    example: such an address; instead: what to do for one with a user name or password. Raises ValueError, in plain
    words, for what is not the address of a web server.
    """
    if not text.isprintable() or " " in text or "\\" in text:
        raise ValueError(f"should be a web address without spaces, such as {example}")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("should start with https:// (or http://) and a host name")
    if "@" in parts.netloc:
        raise ValueError(f"should not hold a user name or password: {instead}")
    if parts.query or parts.fragment:
        raise ValueError("should end before any ? or #")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = "" if parts.port in (None, {"http": 80, "https": 443}[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"
