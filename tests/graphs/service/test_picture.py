"""The picture of a graph's top, whatever its nodes are called."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree

import pytest

from app.graphs.picture import draw, plain_label
from app.graphs.reader import Top
from metagov_sdk.graph import GraphNode

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = [
    "<script>alert(1)</script>",
    "\"'><image href='x' onerror='y'>",
    "&amp;&#x3C;b&#x3E; &lt;i&gt;",
    "\x00\x1b[31m\u202e right to left \ud800 \ufffe",
    "]]>" * 30,
    "[a link](javascript:alert`1`)",
    "",
    "名" * 200,
]


def top_of(labels: list[str], edges: list[tuple[int, int, float]]) -> Top:
    nodes = [
        GraphNode(
            address=("x", str(number)), label=label, type="Kind <" if number % 2 else None, timestamp_ms=None,
            weight=1, inflow=float(len(labels) - number), edges=1,
        )
        for number, label in enumerate(labels)
    ]  # fmt: skip
    return Top(nodes, edges)


def test_it_is_well_formed_whatever_nodes_are_called() -> None:
    picture = draw(top_of(HOSTILE, [(0, 1, 2.0), (1, 2, 0.0), (2, 0, 1.0)]), "town & <props>")
    root = ElementTree.fromstring(picture)
    assert {each.tag.removeprefix(SVG) for each in root.iter()} == {
        "svg", "title", "rect", "text", "g", "line", "circle",
    }  # fmt: skip
    assert not any(name.startswith("on") or "href" in name for each in root.iter() for name in each.attrib)
    assert "<script>alert(1)</script>" in [each.text for each in root.iter(f"{SVG}text")]
    assert len(root.findall(f"{SVG}g")) == 1 + len(HOSTILE)


def test_a_node_without_name_or_address_is_drawn() -> None:
    node = top_of([""], []).nodes[0].model_copy(update={"address": ()})
    ElementTree.fromstring(draw(Top([node], []), "town"))


def test_a_label_of_nothing_but_brackets_takes_no_time() -> None:
    assert plain_label("[" * 1_000_000) == "[" * 1000


def test_the_same_graph_gives_the_same_picture() -> None:
    top = top_of([f"node {number}" for number in range(30)], [(n, (n * 7) % 30, float(n)) for n in range(30)])
    assert draw(top, "a") == draw(top, "a")


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_all_of_it_is_within_the_picture(count: int) -> None:
    root = ElementTree.fromstring(draw(top_of([str(n) for n in range(count)], []), "t"))
    for circle in root.iter(f"{SVG}circle"):
        x, y, r = (float(circle.attrib[name]) for name in ("cx", "cy", "r"))
        assert r <= x <= 1200 - r
        assert r <= y <= 800 - r


def test_labels_that_have_no_room_are_left_to_the_titles() -> None:
    names = [f"somebody with a long name, {number}" for number in range(100)]
    root = ElementTree.fromstring(draw(top_of(names, []), "t"))
    nodes = [group for group in root.findall(f"{SVG}g") if group.find(f"{SVG}circle") is not None]
    assert [str(node.findtext(f"{SVG}title")) for node in nodes] == [
        f"{'Kind <' if number % 2 else 'other'}: {name}, inflow {100 - number}" for number, name in enumerate(names)
    ]
    boxes = [_box(each) for node in nodes for each in node.findall(f"{SVG}text")]
    assert 5 < len(boxes) < 100
    for one, other in itertools.combinations(boxes, 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart, f"{one} and {other} overlap"


def _box(label: ElementTree.Element) -> tuple[float, float, float, float]:
    """Left, top, right, bottom, of letters that are half as wide as they are high: less than any font's."""
    size = float(label.attrib["font-size"])
    wide, x, y = 0.5 * size * len(label.text or ""), float(label.attrib["x"]), float(label.attrib["y"])
    left = x - wide if label.attrib.get("text-anchor") == "end" else x
    return left, y - 0.7 * size, left + wide, y


def test_labels_are_without_markup() -> None:
    assert plain_label("#talk [&#x22;hi &amp; ho...&#x22;](https://discord.com/channels/1/2)") == '#talk "hi & ho..."'
