"""Addresses of nodes and edges: paths of parts, as in `("sourcecred", "discord", "MEMBER", "user", "42")`.

Inside of a graph an address is its key: the parts in UTF-8, each with a NUL behind it, with the two lead bytes of
U+E000 to U+FFFF put behind those of the characters past U+FFFF, one character per byte. Keys sort, byte by byte, as
SourceCred sorts addresses: by UTF-16 code units. Of ASCII parts the key is the text itself, which costs nothing.
"""

from __future__ import annotations

from typing import NewType

from metagov_sdk.graph.errors import WrongGraph

Address = tuple[str, ...]
"""Parts without NUL. A shorter one is a prefix of what begins with its parts."""

Key = NewType("Key", str)
"""An address made ready. Keys one after the other are the key of the longer address: `key_of(a) + key_of(b)`."""

NO_BYTE = "\xff"
"""Occurs in no key, and so stands between keys that are kept together."""

_LEADS = bytes(range(0xEE, 0xF5))
_SORTED_LEADS = bytes([0xF3, 0xF4, *range(0xEE, 0xF3)])
_TO_SORTED = bytes.maketrans(_LEADS, _SORTED_LEADS)
_FROM_SORTED = bytes.maketrans(_SORTED_LEADS, _LEADS)


def has_prefix(address: Address, prefix: Address) -> bool:
    """Whether the address begins with all parts of the prefix."""
    return address[: len(prefix)] == prefix


def key_of(address: Address) -> Key:
    """The address's key. Raises WrongGraph for NUL in a part, and for text that is not Unicode."""
    key = "\0".join(address) + "\0"
    if key.count("\0") != len(address):
        if address:
            raise WrongGraph(f"an address has NUL in a part: {show_parts(address)}")
        return Key("")
    if key.isascii():
        return Key(key)
    try:
        return Key(key.encode().translate(_TO_SORTED).decode("latin-1"))
    except UnicodeEncodeError:
        raise WrongGraph(f"an address is not Unicode: {show_parts(address)}") from None


def address_of(key: str) -> Address:
    """The address with this key."""
    joined = key if key.isascii() else utf8(key).decode()
    return tuple(joined.split("\0")[:-1])


def utf8(keys: str) -> bytes:
    """What was made of keys, and ASCII between them, as UTF-8."""
    return keys.encode() if keys.isascii() else keys.encode("latin-1").translate(_FROM_SORTED)


def raw(nonce: str, address: Address) -> str:
    """The address as SourceCred has it in one string; the nonce is N for nodes, E for edges."""
    key_of(address)
    return "\0".join((nonce, *address, ""))


def show(key: str) -> str:
    """A key in words for people, on one line and not too long."""
    return show_parts(address_of(key))


def show_parts(address: Address) -> str:
    """An address in words for people, on one line and not too long."""
    text = ascii("/".join(address))[1:-1]
    return text if len(text) <= 200 else f"{text[:200]}…"
