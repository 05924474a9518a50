"""Communities of every size: the same bytes from shuffled rows, and nothing in the way of a hostile name."""

from __future__ import annotations

from importlib import import_module

import pytest

from metagov_sdk.testing import build_graph_of
from tests.graphs.communities import CONFIGS, RULES, community


@pytest.mark.parametrize("members", [0, 1, 2, 400])
@pytest.mark.parametrize("rules", RULES)
async def test_everybody_is_a_participant(rules: str, members: int) -> None:
    manifest = import_module(f"plugins.{rules.replace('-', '_')}").manifest
    assert manifest.name == rules
    built = await build_graph_of(manifest, community(rules, members), config=CONFIGS[rules])
    assert len(built.identities) == max(members, 1)
    assert len({one.name.lower() for one in built.identities}) > members * 0.7
    assert any(node.timestamp_ms is not None for node in built.graph.nodes())
