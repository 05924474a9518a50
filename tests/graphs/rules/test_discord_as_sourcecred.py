"""The real Discord plugin of SourceCred, and our rules: the same graph of the same server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from metagov_sdk.graph import PublishedGraph, write_declaration
from metagov_sdk.testing import build_graph_of
from plugins.discord.provider import _read_messages
from plugins.discord_graph import manifest
from plugins.discord_graph.kinds import DECLARATION
from tests.graphs.archived import server_archive
from tests.graphs.servers import cases

DATA = Path(__file__).parent.parent / "data" / "discord"
CASES = sorted(path.stem for path in DATA.glob("*.json"))


def read_case(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    return found


def parts(raw: str) -> tuple[str, ...]:
    return tuple(raw.split("\0")[1:-1])


async def build(case: dict[str, Any], **switches: Any) -> PublishedGraph:
    archive = server_archive(case["api"], case["config"][0]["guildId"])
    return await build_graph_of(manifest, archive, config={"config": case["config"], "anchor": False, **switches})


def test_cases_are_all_kept() -> None:
    assert sorted(cases()) == CASES


@pytest.mark.parametrize("name", CASES)
def test_kept_case_is_of_the_server_that_is_made_up(name: str) -> None:
    kept, made = read_case(name), cases()[name]
    assert (kept["config"], kept["api"]) == (made["config"], made["api"])


@pytest.mark.parametrize("name", CASES)
async def test_nodes_edges_and_descriptions_are_the_same(name: str) -> None:
    case = read_case(name)
    built = await build(case)
    expected = case["sourcecred"]["graph"][1]["graphJSON"][1]
    addresses = [tuple(address) for address in expected["sortedNodeAddresses"]]
    assert {node.address: (node.description, node.timestamp_ms) for node in built.graph.nodes()} == {
        addresses[node["index"]]: (node["description"], node["timestampMs"]) for node in expected["nodes"]
    }
    assert {edge.address: (edge.src, edge.dst, edge.timestamp_ms) for edge in built.graph.edges()} == {
        tuple(edge["address"]): (addresses[edge["srcIndex"]], addresses[edge["dstIndex"]], edge["timestampMs"])
        for edge in expected["edges"]
    }


@pytest.mark.parametrize("name", CASES)
async def test_weights_are_the_same_to_the_last_bit(name: str) -> None:
    case = read_case(name)
    built = await build(case)
    expected = case["sourcecred"]["graph"][1]["weightsJSON"][1]
    # SourceCred's plugin adds the types' weights to its graph's; its external plugin does so as it reads ours.
    assert built.declaration is not None
    declared = built.declaration
    assert {
        **dict(built.graph.node_weights()),
        **{kind.prefix: kind.default_weight for kind in declared.node_types},
    } == {parts(address): weight for address, weight in expected["nodeWeights"].items()}
    both = {
        **dict(built.graph.edge_weights()),
        **{kind.prefix: kind.default_weight for kind in declared.edge_types},
    }
    assert {address: (weight.forwards, weight.backwards) for address, weight in both.items()} == {
        parts(address): (weight["forwards"], weight["backwards"]) for address, weight in expected["edgeWeights"].items()
    }


@pytest.mark.parametrize("name", CASES)
async def test_identities_are_the_same(name: str) -> None:
    case = read_case(name)
    built = await build(case)
    found = [(one.name, one.plugin_name, one.type, one.address, one.description) for one in built.identities]
    assert sorted(found) == sorted(
        (one["name"], one["pluginName"], one["type"], parts(one["alias"]["address"]), one["alias"]["description"])
        for one in case["sourcecred"]["identities"]
    )


def test_declaration_is_the_same() -> None:
    assert json.loads(write_declaration(DECLARATION)) == read_case("plain")["sourcecred"]["declaration"]


def test_an_emoji_that_the_server_has_deleted_is_named_as_by_sourcecred() -> None:
    message = {"id": "1", "channel_id": "2", "reactions": [{"emoji": {"id": "77", "name": None}, "count": 1}]}
    (child,) = _read_messages([message], more=False).children
    # models.js: `${name}:${id}`, of a name that is null.
    assert child.data == ["2", ["null:77"]]
