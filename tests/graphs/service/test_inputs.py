"""Graphs of graphs: the community's other rule sets, and those of other people, who may send anything."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from app.core.egress import EgressPolicy
from app.graphs import builds
from metagov_sdk.graph import (
    Declaration,
    EdgeType,
    EdgeWeight,
    GraphBuilder,
    NodeType,
    read_graph,
    write_declaration,
    write_graph,
)
from tests.graphs.service.elsewhere import Elsewhere, open_elsewhere
from tests.graphs.service.test_builds import files_of
from tests.graphs.service.test_shares import path_of
from tests.graphs.service.towns import DISCORD_CONFIG, PROPS_CONFIG, Place, small_town
from tests.support.problems import problem

DECLARATION = Declaration(
    "Guests",
    ("guests",),
    ("guests",),
    (NodeType("Visit", "Visits", ("guests", "VISIT"), 2, "A visit"),),
    (EdgeType("visits", "is visited", ("guests", "VISITS"), EdgeWeight(1, 1), "Who came"),),
    (),
)


def guests(*, nodes: int = 3, weights: dict[tuple[str, ...], float] | None = None) -> bytes:
    """A graph as another instance publishes it."""
    builder = GraphBuilder("guests")
    for number in range(nodes):
        builder.node(("guests", "VISIT", str(number)), f"Visit {number}", 1_600_000_000_000 + number)
    for prefix, weight in (weights or {}).items():
        builder.node_weight(prefix, weight)
    return b"".join(write_graph(builder.finish()))


@pytest.fixture
async def elsewhere() -> AsyncIterator[Elsewhere]:
    async with open_elsewhere() as opened:
        opened.bodies = {"/graph": zlib.compress(guests()), "/declaration": write_declaration(DECLARATION)}
        yield opened


def taking(elsewhere: Elsewhere, **more: Any) -> dict[str, Any]:
    guest = {"name": "guests", "graph_url": f"{elsewhere.url}/graph", "declaration_url": f"{elsewhere.url}/declaration"}
    return {**PROPS_CONFIG, "inputs": [{**guest, **more}]}


async def served(place: Place, anonymous: httpx.AsyncClient, plugin: str = "props") -> Any:
    share = await place.share(plugin)
    return read_graph([(await anonymous.get(path_of(share["graph_url"]))).content])


async def build(place: Place) -> dict[str, Any]:
    assert (await place.driver.post("graph/props/build")).status_code == 202
    await place.work()
    return (await place.graphs())["props"]


async def test_another_instances_graph_is_taken_in(
    place: Place, elsewhere: Elsewhere, anonymous: httpx.AsyncClient
) -> None:
    await place.enable(props=taking(elsewhere))
    await place.work()
    graph = await served(place, anonymous)
    assert graph.node(("guests", "VISIT", "1")) is not None
    assert (await place.graphs())["props"]["nodes"] == 4 + 3
    top = (await place.driver.act("props.top-nodes", {"type": "Visit"})).json()
    assert {node["weight"] for node in top["nodes"]} == {2.0}


async def test_unchanged_inputs_are_not_sent_again(place: Place, elsewhere: Elsewhere) -> None:
    await place.enable(props=taking(elsewhere))
    await place.work()
    assert [each[2] for each in elsewhere.asked] == [200, 200]
    elsewhere.asked.clear()
    await build(place)
    assert [each[2] for each in elsewhere.asked] == [304, 304]

    built_at = (await place.graphs())["props"]["built_at"]
    await place.gateway.db.pool.execute("UPDATE graphs SET check_at = now() - interval '1 second'")
    await place.work()
    assert (await place.graphs())["props"]["built_at"] == built_at, "nothing has changed"
    elsewhere.bodies["/graph"] = guests(nodes=8)
    await place.gateway.db.pool.execute("UPDATE graphs SET check_at = now() - interval '1 second'")
    await place.work()
    assert (await place.graphs())["props"]["nodes"] == 4 + 8


async def test_who_is_away_is_stood_in_for_by_what_was_fetched_last(place: Place, elsewhere: Elsewhere) -> None:
    await place.enable(props=taking(elsewhere))
    elsewhere.status = 503
    await place.work()
    waiting = (await place.graphs())["props"]
    assert (waiting["state"], waiting["snapshot"]) == ("waiting", None)
    assert "it answered 503" in waiting["error"]
    elsewhere.status = 200
    assert (await build(place))["nodes"] == 7
    elsewhere.status = 503
    await place.archive(small_town(praises=5))
    await place.work()
    assert (await place.graphs())["props"]["nodes"] == 6 + 3
    elsewhere.status = 404
    gone = await build(place)
    assert gone["state"] == "failed", "it was taken back"
    assert gone["nodes"] == 9, "what was built before is still there"
    assert "guests" in gone["error"]
    assert "/graph" not in gone["error"], "a path can be a capability"


async def test_a_url_that_is_none_is_refused_wherever_it_comes_from(place: Place) -> None:
    await place.enable(props=PROPS_CONFIG)
    stored = json.dumps({**PROPS_CONFIG, "inputs": [{"name": "guests", "graph_url": "http://[x/graph"}]})
    await place.gateway.db.pool.execute("UPDATE instances SET config = $1, generation = generation + 1", stored)
    await place.work()
    graph = (await place.graphs())["props"]
    assert "the input 'guests' (no host) cannot be taken" in graph["error"]


async def test_whoever_drips_holds_up_nobody_for_long(
    place: Place, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builds, "_LONGEST_FETCH", 0.5)
    elsewhere.pause = 30
    await place.enable(props=taking(elsewhere))
    async with asyncio.timeout(20):
        await place.work()
    graph = (await place.graphs())["props"]
    assert graph["state"] == "waiting"
    assert "fetching its inputs took longer than" in graph["error"]
    assert not list(place.gateway.graphs.require_files().folder.glob("*/*"))


async def test_redirects_are_refused_and_not_followed(place: Place, elsewhere: Elsewhere) -> None:
    await place.enable(props=taking(elsewhere))
    await place.work()
    elsewhere.status = 302
    elsewhere.asked.clear()
    graph = await build(place)
    assert graph["state"] == "failed"
    assert "it answered 302, a redirect" in graph["error"]
    assert [path for path, _, _ in elsewhere.asked] == ["/graph"]


@pytest.mark.parametrize("name", ["ETag", "Last-Modified"])
@pytest.mark.parametrize("value", ['"é"', '"' + "x" * 3000 + '"'])
async def test_a_version_that_cannot_be_sent_back_is_forgotten(
    place: Place, elsewhere: Elsewhere, name: str, value: str
) -> None:
    elsewhere.headers = {"/graph": {name: value}}
    await place.enable(props=taking(elsewhere))
    for _ in range(2):
        assert (await build(place))["state"] == "built"
    again = 200 if name == "ETag" else 304
    assert [status for path, _, status in elsewhere.asked if path == "/graph"] == [200, again]


def without(graph: bytes, *path: str | int) -> bytes:
    """A graph with a member missing."""
    document = json.loads(graph)
    place = document
    for part in path[:-1]:
        place = place[part]
    del place[path[-1]]
    return json.dumps(document).encode()


def changed(graph: bytes, value: Any, *path: str | int) -> bytes:
    """A graph with something else at a place."""
    document = json.loads(graph)
    place = document
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return json.dumps(document).encode()


INNER = (1, "graphJSON", 1)
BROKEN = {
    "no version": (without(guests(), 0, "version"), "/0/version"),
    "another version": (changed(guests(), "0.9.0", 1, "graphJSON", 0, "version"), "/1/graphJSON/0/version"),
    "bad index": (changed(guests(), 99, *INNER, "nodes", 1, "index"), "/1/graphJSON/1/nodes/1/index"),
    "nul": (changed(guests(), ["a\0b"], *INNER, "sortedNodeAddresses", 0), "/1/graphJSON/1/sortedNodeAddresses/0/0"),
    "negative weight": (
        changed(guests(), {"N\0guests\0": -1}, 1, "weightsJSON", 1, "nodeWeights"),
        "/1/weightsJSON/1/nodeWeights/",
    ),
    "repeated prefix": (
        guests(weights={("guests", "VISIT"): 3}),
        "/1/weightsJSON/1/nodeWeights/",
    ),
    "cut off": (zlib.compress(guests())[:-10], "cut off"),
    "no gzip": (b"\x1f\x8b" + b"x" * 500, "gzip"),
    "no json": (b"<html>moved</html>", "neither JSON"),
    "empty": (b"", "its graph is wrong"),
    "bomb": (zlib.compress(b"[" + b" " * 2**26, 9), "times its size"),
    "bomb in a bomb": (gzip.compress(zlib.compress(b" " * 2**26)), "not UTF-8"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_graph_is_refused_with_the_place(place: Place, elsewhere: Elsewhere, name: str) -> None:
    await place.enable(props=taking(elsewhere))
    await place.work()
    before = files_of(place)
    good = (await place.graphs())["props"]
    elsewhere.bodies["/graph"], expected = BROKEN[name]
    bad = await build(place)
    assert bad["state"] == "failed"
    assert "the input 'guests' cannot be taken" in bad["error"]
    assert expected in bad["error"], bad["error"]
    after = {key: data for key, data in files_of(place).items() if not key.endswith(".input")}
    assert after == {key: data for key, data in before.items() if not key.endswith(".input")}
    assert {key: bad[key] for key in ("snapshot", "built_at", "nodes")} == {
        key: good[key] for key in ("snapshot", "built_at", "nodes")
    }


async def test_a_broken_declaration_is_refused_with_the_place(place: Place, elsewhere: Elsewhere) -> None:
    elsewhere.bodies["/declaration"] = changed(write_declaration(DECLARATION), -2, "nodeTypes", 0, "defaultWeight")
    await place.enable(props=taking(elsewhere))
    await place.work()
    error = (await place.graphs())["props"]["error"]
    assert "its declaration is wrong at /nodeTypes/0/defaultWeight" in error


async def test_conflicts_are_named(place: Place, elsewhere: Elsewhere) -> None:
    same = GraphBuilder("guests")
    same.node(("metagov", "props", "PROPS", "200000000000000001", "900151000000012345"), "nothing", 5)
    elsewhere.bodies["/graph"] = guests()
    await place.enable(props=PROPS_CONFIG)
    await place.work()
    top = (await place.driver.act("props.top-nodes", {"type": "Props", "limit": 1})).json()["nodes"][0]
    same = GraphBuilder("guests")
    same.node(tuple(top["address"]), "praise of another kind", 5)
    elsewhere.bodies["/graph"] = b"".join(write_graph(same.finish()))
    await place.enable(props=taking(elsewhere))
    await place.work()
    failed = (await place.graphs())["props"]
    assert failed["state"] == "failed"
    assert top["address"][-1] in failed["error"]
    assert "guests" in failed["error"]


async def test_too_large_a_body_is_not_kept(
    place: Place, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.graphs import inputs

    monkeypatch.setattr(inputs, "_SMALL", 1000)
    elsewhere.bodies["/declaration"] = b"[" + b"1," * 2**20
    await place.enable(props=taking(elsewhere))
    await place.work()
    failed = (await place.graphs())["props"]
    assert "larger than 1,000 bytes" in failed["error"]
    assert not any(key.endswith(".gz") for key in files_of(place))
    assert not list((place.gateway.graphs.require_files().folder / "tmp").iterdir())


async def test_no_packet_goes_to_a_private_address(place: Place, elsewhere: Elsewhere) -> None:
    await place.enable(props=taking(elsewhere))
    guarded = replace(place.gateway.graphs, egress=EgressPolicy(False))
    from app.graphs.builds import build_due, notice_moved

    await notice_moved(guarded)
    await build_due(guarded)
    failed = (await place.graphs())["props"]
    assert failed["state"] == "failed"
    assert elsewhere.asked == []


async def test_rule_sets_read_each_others_graphs(place: Place, anonymous: httpx.AsyncClient) -> None:
    both = {**PROPS_CONFIG, "inputs": [{"name": "discord", "plugin": "discord-graph"}]}
    await place.enable(props=both, discord_graph=DISCORD_CONFIG)
    await place.work()
    graphs = await place.graphs()
    assert {each["state"] for each in graphs.values()} == {"built"}, graphs
    assert graphs["props"]["nodes"] == graphs["discord-graph"]["nodes"] + 4
    await place.archive(small_town(praises=7))
    await place.work()
    graphs = await place.graphs()
    assert graphs["props"]["nodes"] == graphs["discord-graph"]["nodes"] + 8, "it follows the other"
    graph = await served(place, anonymous)
    assert any(node.address[1] == "discord" for node in graph.nodes())


@pytest.mark.parametrize(
    ("inputs", "pointer", "word"),
    [
        ([{"name": "self", "plugin": "props"}], "/0/plugin", "props → props"),
        ([{"name": "a", "plugin": "ballot"}], "/0/plugin", "no rule set"),
        ([{"name": "a", "plugin": "meetings", "graph_url": "http://x.example/"}], "/0", "either"),
        ([{"name": "a"}], "/0", "either"),
        ([{"name": "a", "graph_url": "file:///etc/passwd"}], "/0/graph_url", "http"),
        ([{"name": "a", "graph_url": "http://[x/graph"}], "/0/graph_url", "http"),
        ([{"name": "a", "graph_url": "http:///graph"}], "/0/graph_url", "http"),
        ([{"name": "a", "graph_url": "http://x.example:99999/"}], "/0/graph_url", "http"),
        ([{"name": "a", "graph_url": "http://x.example/"}] * 2, "", "one name"),
        ([{"name": f"a{n}", "graph_url": "http://x.example/"} for n in range(21)], "", "at most 20"),
    ],
)
async def test_inputs_that_cannot_be_are_refused(
    place: Place, inputs: list[dict[str, Any]], pointer: str, word: str
) -> None:
    answer = await place.driver.put("town", plugins=[{"name": "props", "config": {**PROPS_CONFIG, "inputs": inputs}}])
    error = problem(answer, 422)["errors"][0]
    assert error["pointer"].endswith(f"config/inputs{pointer}"), error
    assert word in error["detail"]


async def test_cycles_are_refused_and_named(place: Place) -> None:
    def reading(config: dict[str, Any], *plugins: str) -> dict[str, Any]:
        return {**config, "inputs": [{"name": f"in-{name}", "plugin": name} for name in plugins]}

    meetings = {"source": "discord", "meeting_channels": ["1"]}
    await place.enable(props=reading(PROPS_CONFIG, "meetings"), meetings=meetings, discord_graph=DISCORD_CONFIG)
    answer = await place.driver.post("plugin/discord-graph", reading(DISCORD_CONFIG, "props"))
    assert answer.status_code == 200, "no circle"
    answer = await place.driver.post("plugin/meetings", reading(meetings, "discord-graph"))
    refused = problem(answer, 422)
    assert refused["errors"][0]["pointer"] == "/inputs/0/plugin"
    assert "meetings → discord-graph → props → meetings" in refused["detail"]
    plugins = {each["name"]: each["config"] for each in (await place.driver.get("plugin")).json()["plugins"]}
    assert not plugins["meetings"].get("inputs")

    stored = json.dumps(reading(meetings, "discord-graph"))
    await place.gateway.db.pool.execute(
        "UPDATE instances SET config = $1, generation = generation + 1 WHERE plugin = 'meetings'", stored
    )
    await place.work()
    for graph in (await place.graphs()).values():
        assert graph["state"] == "failed"
        assert "read each other" in graph["error"]


async def test_a_source_has_to_mirror_something(place: Place) -> None:
    answer = await place.driver.put("town", plugins=[{"name": "props", "config": {**PROPS_CONFIG, "source": "ballot"}}])
    assert problem(answer, 422)["errors"][0]["pointer"].endswith("/source")
