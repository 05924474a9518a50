"""Addresses of nodes and edges: paths of parts, as in `("sourcecred", "discord", "MEMBER", "user", "42")`."""

from __future__ import annotations

Address = tuple[str, ...]
"""Parts without NUL. A shorter one is a prefix of what begins with its parts."""


def has_prefix(address: Address, prefix: Address) -> bool:
    """Whether the address begins with all parts of the prefix."""
    return address[: len(prefix)] == prefix
