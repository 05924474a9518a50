"""Communities of every size: the same bytes on every machine, and nothing in the way of a hostile name."""

from __future__ import annotations

import hashlib
from importlib import import_module

import pytest

from metagov_sdk.graph import write_declaration, write_graph, write_identities
from metagov_sdk.testing import build_graph_of
from tests.graphs.communities import CONFIGS, RULES, community

MADE = {
    "discord-graph": "70847ad949731fd07d6fbcf799f10961a3bfa9b1acbfcf7daee8e3b9224c8791",
    "discourse-graph": "88259a9b9a07c9f60f107a714ecd253b22c2d0895540a7fd6598b64dbf4fa4e1",
    "meetings": "1c53b4489e78ce365f158a50834ae09b334396fcc0d854e7cc45003b2debbe1c",
    "props": "31b5e37584f4215837fe1724df35890e09bb4502f2cf656f5b12e1494ab1fd24",
}
"""By rule set, the SHA-256 of its graph, declaration and identity proposals of a community of 400."""


@pytest.mark.parametrize("members", [0, 1, 2, 400])
@pytest.mark.parametrize("rules", RULES)
async def test_everybody_is_a_participant(rules: str, members: int) -> None:
    manifest = import_module(f"plugins.{rules.replace('-', '_')}").manifest
    assert manifest.name == rules
    built = await build_graph_of(manifest, community(rules, members), config=CONFIGS[rules])
    assert len(built.identities) == max(members, 1)
    assert len({one.name.lower() for one in built.identities}) > members * 0.7
    assert any(node.timestamp_ms is not None for node in built.graph.nodes())


@pytest.mark.parametrize("rules", RULES)
async def test_the_bytes_are_those_that_another_machine_made(rules: str) -> None:
    manifest = import_module(f"plugins.{rules.replace('-', '_')}").manifest
    built = await build_graph_of(manifest, community(rules, 400), config=CONFIGS[rules])
    assert built.declaration is not None
    digest = hashlib.sha256()
    for piece in (*write_graph(built.graph), write_declaration(built.declaration), write_identities(built.identities)):
        digest.update(piece)
    assert digest.hexdigest() == MADE[rules], (
        "a change of a rule set's output has to be meant: then write its digest here"
    )
