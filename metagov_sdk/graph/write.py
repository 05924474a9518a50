"""Writing SourceCred's formats, in pieces: same graph, same bytes."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from math import isnan
from operator import eq, itemgetter
from typing import Literal

from metagov_sdk.graph.addresses import NO_BYTE, utf8
from metagov_sdk.graph.graph import WeightedGraph
from metagov_sdk.graph.javascript import encode, number, quoted
from metagov_sdk.graph.keys import PAGE, Keys
from metagov_sdk.graph.weights import EdgeWeight

Packing = Literal["zlib", "gzip"]

_ESCAPED = bytes((*range(1, 0x20), ord('"'), ord("\\")))
_ESCAPES = {code: quoted(chr(code))[1:-1] for code in _ESCAPED}


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
        parts, times = _inner_parts(edges.keys, page), _numbers(edges.times[each])
        rows = [
            f'{{"address":["{inner}"],"dstIndex":{dst},"srcIndex":{src},"timestampMs":{time}}}'
            for inner, dst, src, time in zip(parts, edges.dst[each], edges.src[each], times, strict=True)
        ]
        yield utf8(_empty_first(edges.keys, page, ",".join(rows)))


def _nodes(graph: WeightedGraph) -> Iterator[bytes]:
    nodes = graph.node_columns
    for start in range(0, len(nodes.described), PAGE):
        indexes = [index for index, place in enumerate(nodes.described[start : start + PAGE], start) if place]
        places = [nodes.described[index] - 1 for index in indexes]
        texts, times = nodes.texts.take(places), _numbers([nodes.times[place] for place in places])
        rows = [
            f'{{"description":{quoted(text)},"index":{index},"timestampMs":{time}}}'
            for text, index, time in zip(texts, indexes, times, strict=True)
        ]
        if rows:
            yield encode(",".join(rows))


def _addresses(graph: WeightedGraph) -> Iterator[bytes]:
    keys = graph.node_columns.keys
    for page in range(keys.pages):
        yield utf8(_empty_first(keys, page, '["' + '"],["'.join(_inner_parts(keys, page)) + '"]'))


def _edge_weights(graph: WeightedGraph) -> Iterator[bytes]:
    weights = graph.prefixes.edges
    if weights:
        rows = sorted(weights.items(), key=itemgetter(0))
        yield _weights("E", [(key, _both(weight)) for key, weight in rows])


def _both(weight: EdgeWeight) -> str:
    return f'{{"backwards":{number(weight.backwards)},"forwards":{number(weight.forwards)}}}'


def _node_weights(graph: WeightedGraph) -> Iterator[bytes]:
    keys, weights = graph.node_columns.keys, graph.node_columns.weights
    prefixes = sorted((key, number(weight)) for key, weight in graph.prefixes.nodes.items())
    for page in range(keys.pages):
        of_page = weights[page * PAGE : (page + 1) * PAGE]
        if all(map(isnan, of_page)):
            continue
        own = [(key, number(each)) for key, each in zip(keys.page(page), of_page, strict=True) if each == each]
        before = bisect_right(prefixes, own[-1])
        yield _weights("N", sorted(prefixes[:before] + own) if before else own)
        del prefixes[:before]
    if prefixes:
        yield _weights("N", prefixes)


def _weights(nonce: str, rows: list[tuple[str, str]]) -> bytes:
    """Members of an object, named by addresses in one string."""
    if _needs_escapes(NO_BYTE.join([key for key, _ in rows])):
        rows = [(key.translate(_ESCAPES), weight) for key, weight in rows]
    return utf8(",".join([f'"{nonce}\0{key}":{weight}' for key, weight in rows]).replace("\0", "\\u0000"))


def _inner_parts(keys: Keys, page: int) -> list[str]:
    """The addresses of a page as JSON arrays, without `["` and `"]`."""
    text = keys.text(page)
    if _needs_escapes(text):
        text = text.translate(_ESCAPES)
    # All at once: the last NUL of each key goes, the others become what stands between two strings.
    whole = text.replace("\0" + NO_BYTE, NO_BYTE).removesuffix("\0").replace("\0", '","')
    return whole.split(NO_BYTE)


def _empty_first(keys: Keys, page: int, written: str) -> str:
    """The address without parts, if it is among them, comes first; it has no string in it."""
    return written.replace('[""]', "[]", 1) if page == 0 and keys[0] == "" else written


def _needs_escapes(text: str) -> bool:
    return len(text.encode("latin-1").translate(None, _ESCAPED)) < len(text)


def _numbers(times: Sequence[float]) -> Iterable[object]:
    """Numbers that print as JavaScript writes them; NaN is null."""
    try:
        whole = list(map(int, times))
        return whole if all(map(eq, whole, times)) else map(number, times)
    except ValueError:
        return ["null" if isnan(time) else number(time) for time in times]
