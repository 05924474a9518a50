"""The real SourceCred takes our graphs by URL and scores everybody: `make test-sourcecred`."""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path

import pytest

from metagov_sdk.graph import PublishedGraph, build_graph, pack
from tests.graphs.archived import server_archive
from tests.graphs.communities import CHANNEL, CONFIGS, RULES, community
from tests.graphs.servers import GUILD, THUMB, Town
from tests.graphs.sourcecred.install import tree
from tests.graphs.sourcecred.instance import Scored, files_of, run_instance

MEMBERS = {"empty": 0, "one member": 1, "two members": 2, "5,000 hostile names": 5000}


@pytest.fixture(scope="session")
def modules() -> Path:
    return tree()


async def published(rules: str, members: int) -> PublishedGraph:
    manifest = import_module(f"plugins.{rules.replace('-', '_')}").manifest
    config = manifest.config.model_validate(CONFIGS[rules])
    return await build_graph(manifest.graph(config), community(rules, members))


def check_scores(scored: list[Scored], graphs: list[PublishedGraph]) -> None:
    """Everybody who was proposed is a participant, and has numbers for scores."""
    addresses = {address for each in scored for address in each.addresses}
    assert addresses == {"N\0" + "\0".join(one.address) + "\0" for graph in graphs for one in graph.identities}
    for each in scored:
        assert each.total is not None and math.isfinite(each.total), each
        assert all(score is not None and math.isfinite(score) for score in each.weekly), each


@pytest.mark.parametrize("members", MEMBERS.values(), ids=MEMBERS.keys())
@pytest.mark.parametrize("rules", RULES)
async def test_instance_scores_everybody(rules: str, members: int, modules: Path, tmp_path: Path) -> None:
    graph = await published(rules, members)
    scored = run_instance(tmp_path, modules, files_of(rules, graph))
    check_scores(scored, [graph])
    # An empty community is a participant itself: SourceCred can do nothing without one.
    assert len(scored) == max(members, 1)
    if members > 1:
        assert sum(each.total or 0 for each in scored) > 0.1


async def test_instance_takes_what_begins_with_a_week(modules: Path, tmp_path: Path) -> None:
    town = Town()
    town.channel(CHANNEL, "thanks")
    for id in ("1", "2"):
        town.member(id, f"member-{id}")
    town.say(CHANNEL, "1", "<@2>", ["2"], reactions={THUMB: ["1", "2"]})
    town.messages[0]["timestamp"] = "2024-01-07T00:00:00.000000+00:00"
    for rules in ("discord-graph", "meetings", "props"):
        manifest = import_module(f"plugins.{rules.replace('-', '_')}").manifest
        config = manifest.config.model_validate(CONFIGS[rules])
        graph = await build_graph(manifest.graph(config), server_archive(town.api(), GUILD))
        (tmp_path / rules).mkdir()
        check_scores(run_instance(tmp_path / rules, modules, files_of(rules, graph)), [graph])


async def test_instance_takes_all_of_them_together(modules: Path, tmp_path: Path) -> None:
    graphs = {rules: await published(rules, 40) for rules in RULES}
    files = {path: body for rules in RULES for path, body in files_of(rules, graphs[rules]).items()}
    scored = run_instance(tmp_path, modules, files)
    check_scores(scored, list(graphs.values()))
    # A member of the server is one participant, however many graphs of it there are.
    assert len(scored) == 80


@pytest.mark.parametrize("packing", ["zlib", "gzip"])
async def test_instance_takes_packed_graphs(packing: str, modules: Path, tmp_path: Path) -> None:
    graph = await published("props", 10)
    files = files_of("props", graph)
    (tmp_path / "plain").mkdir()
    (tmp_path / "packed").mkdir()
    plain = run_instance(tmp_path / "plain", modules, files)
    files["/props/graph.json"] = b"".join(pack([files["/props/graph.json"]], packing))  # type: ignore[arg-type]
    assert [(each.name, each.total) for each in run_instance(tmp_path / "packed", modules, files)] == [
        (each.name, each.total) for each in plain
    ]
