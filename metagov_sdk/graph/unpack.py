"""Unpacking files of unknown origin, in pieces, with a bound on what comes out."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from metagov_sdk.graph.errors import GraphTooLarge, WrongPacking

_PIECE = 2**18
_FORGIVEN = 16 * 2**20
"""Bytes that may come out, whatever went in, before the ratio counts."""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How much a reader takes. Bytes, but for `ratio`, `nodes` (as many weights may be set, too) and `edges`."""

    packed: int = 256 * 2**20
    unpacked: int = 1024 * 2**20
    ratio: int = 200
    """Unpacked to packed, past the first 16 MiB. Graphs pack to a tenth or a twentieth; more than this is a bomb."""
    nodes: int = 5_000_000
    edges: int = 10_000_000
    element: int = 2**20
    """One node, edge or weight as it is written."""


LIMITS = ReadLimits()


def unpack(pieces: Iterable[bytes], limits: ReadLimits = LIMITS) -> Iterator[bytes]:
    """A file's bytes unpacked, whichever of the three it is: plain, zlib or gzip.

    Raises GraphTooLarge as soon as it is, and WrongPacking.
    """
    pieces = _bounded(pieces, limits.packed)
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= 2:
            break
    rest = _chained(head, pieces)
    if head[:2] == b"\x1f\x8b":
        return _inflate(rest, limits, "gzip", 31)
    if head and head[0] & 0x0F == 8 and head[0] <= 0x78 and int.from_bytes(head[:2]) % 31 == 0:
        return _inflate(rest, limits, "zlib", 15)
    if head.lstrip()[:1] in (b"[", b"{", b""):
        return _within(rest, limits.unpacked)
    raise WrongPacking("", "it is neither JSON nor packed with zlib or gzip")


def _bounded(pieces: Iterable[bytes], most: int) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > most:
            raise GraphTooLarge("", f"the file is larger than {most:,} bytes")
        yield piece


def _chained(head: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from pieces


def _within(pieces: Iterable[bytes], most: int) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > most:
            raise GraphTooLarge("", f"it holds more than {most:,} bytes")
        yield piece


def _inflate(pieces: Iterable[bytes], limits: ReadLimits, packing: str, wbits: int) -> Iterator[bytes]:
    inflater = zlib.decompressobj(wbits)
    came, went = 0, 0
    for piece in pieces:
        came += len(piece)
        while piece:
            if inflater.eof:
                raise WrongPacking("", f"something follows the end of the {packing} data")
            try:
                out = inflater.decompress(piece, _PIECE)
            except zlib.error as error:
                raise WrongPacking("", f"the {packing} data is damaged ({error})") from None
            piece = inflater.unconsumed_tail or inflater.unused_data
            went += len(out)
            if went > limits.unpacked:
                raise GraphTooLarge("", f"it unpacks to more than {limits.unpacked:,} bytes")
            if went > _FORGIVEN and went > came * limits.ratio:
                raise GraphTooLarge("", f"it unpacks to more than {limits.ratio} times its size")
            if out:
                yield out
    if rest := inflater.flush():
        yield rest
    if not inflater.eof:
        raise WrongPacking("", f"the {packing} data is cut off")
