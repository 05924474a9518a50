"""A picture of the top of a graph, as SVG. The same graph gives the same picture.

Nodes that are joined attract each other, all repel each other, from fixed places on and for a fixed number of steps.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from app.graphs.index import LONGEST_LABEL
from app.graphs.reader import Top
from metagov_sdk.graph import GraphNode

_WIDTH, _HEIGHT, _MARGIN = 1200.0, 800.0, 70.0
_STEPS = 250
_GOLDEN = math.pi * (3 - math.sqrt(5))
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#997755", "#777777")
_LONGEST_TEXT = 28
_GREAT = 12.0
"""The radius from which on a node's label is bold."""
_WIDE_FROM = 0x1100
"""Letters from here on (Chinese, Japanese, Korean, emoji) are about as wide as they are high."""
_LINK = re.compile(r"\[(?P<text>(?:[^\]\\]|\\.)*)\]\([^)]*\)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


@dataclass(slots=True)
class _Place:
    x: float
    y: float


def draw(top: Top, title: str) -> str:
    """The picture: nodes sized by their inflow, coloured by their type, named where there is room, edges by weight."""
    places = _lay_out(top)
    types = sorted({node.type or "other" for node in top.nodes})
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(types)}
    radii = _radii(top.nodes)
    heaviest = max((weight for _, _, weight in top.edges), default=1.0) or 1.0
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" '
        'font-family="sans-serif" font-size="13">',
        f"<title>{_text(title)}</title>",
        f'<rect width="{_WIDTH:.0f}" height="{_HEIGHT:.0f}" fill="#ffffff"/>',
        f'<text x="20" y="32" font-size="19">{_text(title)}</text>',
        '<g stroke="#888888" stroke-opacity="0.45">',
    ]
    for src, dst, weight in top.edges:
        one, other = places[src], places[dst]
        width = 0.6 + 3 * math.sqrt(weight / heaviest)
        lines.append(
            f'<line x1="{one.x:.0f}" y1="{one.y:.0f}" x2="{other.x:.0f}" y2="{other.y:.0f}" '
            f'stroke-width="{width:.1f}"/>'
        )
    lines.append("</g>")
    labels = _place_labels(top.nodes, places, radii)
    for node, place, radius, label in zip(top.nodes, places, radii, labels, strict=True):
        colour = colours[node.type or "other"]
        full = f"{node.type or 'other'}: {plain_label(node.label) or '/'.join(node.address)}, inflow {node.inflow:.4g}"
        lines.append(
            f'<g><title>{_text(full)}</title><circle cx="{place.x:.0f}" cy="{place.y:.0f}" r="{radius:.1f}" '
            f'fill="{colour}" stroke="#ffffff"/>{label}</g>'
        )
    for number, (name, colour) in enumerate(colours.items()):
        y = _HEIGHT - 24 - 20 * (len(colours) - 1 - number)
        lines.append(f'<circle cx="28" cy="{y:.0f}" r="7" fill="{colour}"/>')
        lines.append(f'<text x="42" y="{y + 4:.0f}">{_text(name)}</text>')
    return "\n".join([*lines, "</svg>\n"])


def plain_label(text: str) -> str:
    """A description without the markup that SourceCred shows it with: links as their text, references resolved."""
    # Looking for links takes as long as the square of a text that is nothing but brackets.
    return _CONTROL.sub(" ", html.unescape(_LINK.sub(lambda link: link["text"], text[:LONGEST_LABEL]))).strip()


def _place_labels(nodes: Sequence[GraphNode], places: Sequence[_Place], radii: Sequence[float]) -> list[str]:
    """By node its label, on the right, the left, or nowhere (its title is there all the same): none covers another.

    Those of the greatest come first.
    """
    taken = [
        _Box(place.x - radius, place.y - radius, place.x + radius, place.y + radius)
        for place, radius in zip(places, radii, strict=True)
    ]
    labels = [""] * len(nodes)
    for number in sorted(range(len(nodes)), key=lambda number: -radii[number]):
        is_great = radii[number] >= _GREAT
        size, bold = (14, ' font-weight="bold"') if is_great else (11, "")
        text = _short(nodes[number])
        wide = size * sum(1 if ord(letter) >= _WIDE_FROM else 0.7 if is_great else 0.6 for letter in text)
        place, gap = places[number], radii[number] + 4
        for left in (place.x + gap, place.x - gap - wide):
            box = _Box(left, place.y - 0.6 * size, left + wide, place.y + 0.6 * size)
            inside = box.left >= 0 and box.right <= _WIDTH
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                anchored = f'x="{left:.0f}"' if left > place.x else f'x="{place.x - gap:.0f}" text-anchor="end"'
                at = f'{anchored} y="{place.y + 4:.0f}"'
                labels[number] = f'<text {at} font-size="{size}"{bold}>{_text(text)}</text>'
                break
    return labels


@dataclass(frozen=True, slots=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: _Box) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def _short(node: GraphNode) -> str:
    label = plain_label(node.label) or "/".join(node.address[-1:]) or "(no address)"
    return label if len(label) <= _LONGEST_TEXT else label[: _LONGEST_TEXT - 1] + "…"


def _text(text: str) -> str:
    return escape(_CONTROL.sub(" ", text), {'"': "&quot;", "'": "&#39;"})


def _radii(nodes: Sequence[GraphNode]) -> list[float]:
    greatest = max((node.inflow for node in nodes), default=0.0)
    return [5 + 17 * math.sqrt(max(node.inflow, 0.0) / greatest) if greatest > 0 else 8.0 for node in nodes]


def _lay_out(top: Top) -> list[_Place]:
    """Fruchterman and Reingold's forces, from a spiral on that has the first nodes in the middle."""
    count = len(top.nodes)
    if not count:
        return []
    wide, high = _WIDTH - 2 * _MARGIN - 150, _HEIGHT - 2 * _MARGIN
    places = [
        _Place(
            math.cos(n * _GOLDEN) * math.sqrt((n + 0.5) / count), math.sin(n * _GOLDEN) * math.sqrt((n + 0.5) / count)
        )
        for n in range(count)
    ]
    pairs = sorted({(min(src, dst), max(src, dst)) for src, dst, _ in top.edges})
    ideal = 1.6 / math.sqrt(count)
    for step in range(_STEPS):
        _push(places, pairs, ideal, 0.12 * (1 - step / _STEPS) + 0.002)
    xs, ys = [place.x for place in places], [place.y for place in places]
    spread_x, spread_y = (max(xs) - min(xs)) or 1.0, (max(ys) - min(ys)) or 1.0
    return [
        _Place(_MARGIN + (x - min(xs)) / spread_x * wide, _MARGIN + (y - min(ys)) / spread_y * high)
        for x, y in zip(xs, ys, strict=True)
    ]


def _push(places: list[_Place], pairs: Sequence[tuple[int, int]], ideal: float, most: float) -> None:
    """One step: move each node by the forces on it, by `most` at most."""
    count = len(places)
    dx, dy = [0.0] * count, [0.0] * count
    for one in range(count):
        for other in range(one):
            x, y = places[one].x - places[other].x, places[one].y - places[other].y
            square = x * x + y * y or 1e-9
            force = ideal * ideal / square
            dx[one] += x * force
            dy[one] += y * force
            dx[other] -= x * force
            dy[other] -= y * force
    for one, other in pairs:
        x, y = places[one].x - places[other].x, places[one].y - places[other].y
        force = math.sqrt(x * x + y * y) / ideal
        dx[one] -= x * force
        dy[one] -= y * force
        dx[other] += x * force
        dy[other] += y * force
    for number, place in enumerate(places):
        x, y = dx[number] - place.x * ideal, dy[number] - place.y * ideal
        length = math.sqrt(x * x + y * y) or 1e-9
        place.x += x / length * min(length, most)
        place.y += y / length * min(length, most)
