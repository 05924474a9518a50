"""Writing SourceCred's formats, in pieces: same graph, same bytes."""

from __future__ import annotations

import re
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import chain
from math import isnan
from operator import eq
from typing import Literal

from metagov_sdk.graph.addresses import NO_BYTE, utf8
from metagov_sdk.graph.graph import WeightedGraph
from metagov_sdk.graph.javascript import encode, number, quoted
from metagov_sdk.graph.keys import PAGE, Keys

Packing = Literal["zlib", "gzip"]

_ESCAPED = re.compile('["\\\\\x01-\x1f]')
_ESCAPES = {code: quoted(chr(code))[1:-1] for code in (*range(1, 0x20), ord('"'), ord("\\"))}


def write_graph(graph: WeightedGraph) -> Iterator[bytes]:
    """`graph.json`: SourceCred's weightedGraph 0.1.0, in pieces of up to about a megabyte."""
    yield b'[{"type":"sourcecred/weightedGraph","version":"0.1.0"},{"graphJSON":'
    yield b'[{"type":"sourcecred/graph","version":"0.8.0"},{"edges":['
    yield from _joined(_edges(graph))
    yield b'],"nodes":['
    yield from _joined(_nodes(graph))
    yield b'],"sortedNodeAddresses":['
    yield from _joined(_addresses(graph))
    yield b']}],"weightsJSON":[{"type":"sourcecred/weights","version":"0.2.0"},{"edgeWeights":{'
    yield from _joined(_edge_weights(graph))
    yield b'},"nodeWeights":{'
    yield from _joined(_node_weights(graph))
    yield b"}}]}]"


def pack(pieces: Iterable[bytes], packing: Packing, level: int = 6) -> Iterator[bytes]:
    """The pieces, compressed; no time or name goes into it, so that same bytes give same bytes."""
    packer = zlib.compressobj(level, wbits=31 if packing == "gzip" else 15)
    for piece in pieces:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


def _joined(pages: Iterator[bytes]) -> Iterator[bytes]:
    for page in pages:
        yield page
        break
    for page in pages:
        yield b","
        yield page


def _edges(graph: WeightedGraph) -> Iterator[bytes]:
    edges = graph.edge_columns
    for page in range(edges.keys.pages):
        each = slice(page * PAGE, (page + 1) * PAGE)
        rows = zip(_parts(edges.keys, page), edges.dst[each], edges.src[each], _numbers(edges.times[each]), strict=True)
        yield utf8(
            ",".join(
                [
                    f'{{"address":{parts},"dstIndex":{dst},"srcIndex":{src},"timestampMs":{t}}}'
                    for parts, dst, src, t in rows
                ]
            )
        )


def _nodes(graph: WeightedGraph) -> Iterator[bytes]:
    nodes = graph.node_columns
    for start in range(0, len(nodes.described), PAGE):
        described = nodes.described[start : start + PAGE]
        found = [(index, place - 1) for index, place in enumerate(described, start) if place]
        if found:
            times = _numbers(array("d", [nodes.times[place] for _, place in found]))
            rows = [
                f'{{"description":{quoted(nodes.texts[place])},"index":{index},"timestampMs":{time}}}'
                for (index, place), time in zip(found, times, strict=True)
            ]
            yield encode(",".join(rows))


def _addresses(graph: WeightedGraph) -> Iterator[bytes]:
    keys = graph.node_columns.keys
    for page in range(keys.pages):
        yield utf8(",".join(_parts(keys, page)))


def _edge_weights(graph: WeightedGraph) -> Iterator[bytes]:
    weights = graph.prefixes.edges
    if weights:
        rows = [
            f'{_raw("E", key)}:{{"backwards":{number(weights[key].backwards)},"forwards":{number(weights[key].forwards)}}}'
            for key in sorted(weights)
        ]
        yield utf8(",".join(rows))


def _node_weights(graph: WeightedGraph) -> Iterator[bytes]:
    keys, weights = graph.node_columns.keys, graph.node_columns.weights
    prefixes = sorted(graph.prefixes.nodes.items())
    for page in range(keys.pages):
        start = page * PAGE
        own = [
            (key, weight)
            for key, weight in zip(keys.page(page), weights[start : start + PAGE], strict=True)
            if weight == weight
        ]
        if own:
            before = bisect_right(prefixes, own[-1])
            yield _weight_rows(sorted(chain(own, prefixes[:before])))
            del prefixes[:before]
    if prefixes:
        yield _weight_rows(prefixes)


def _weight_rows(rows: list[tuple[str, float]]) -> bytes:
    return utf8(",".join([f"{_raw('N', key)}:{number(weight)}" for key, weight in rows]))


def _raw(nonce: str, key: str) -> str:
    """An address in one string, quoted."""
    if _ESCAPED.search(key):
        key = key.translate(_ESCAPES)
    return f'"{nonce}\\u0000{key}"'.replace("\0", "\\u0000")


def _parts(keys: Keys, page: int) -> list[str]:
    """The addresses of a page as JSON arrays."""
    text = keys.text(page)
    if _ESCAPED.search(text):
        text = text.translate(_ESCAPES)
    # All at once: the last NUL of each key goes, the others become what stands between two strings.
    whole = text.replace("\0" + NO_BYTE, NO_BYTE).removesuffix("\0").replace("\0", '","')
    parts = [f'["{each}"]' for each in whole.split(NO_BYTE)]
    if page == 0 and keys[0] == "":
        parts[0] = "[]"
    return parts


def _numbers(times: array[float]) -> Iterable[object]:
    """Numbers that print as JavaScript writes them; NaN is null."""
    try:
        whole = list(map(int, times))
        return whole if all(map(eq, whole, times)) else map(number, times)
    except ValueError:
        return ["null" if isnan(time) else number(time) for time in times]
