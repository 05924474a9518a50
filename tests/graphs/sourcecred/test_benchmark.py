"""The benchmark of graphs runs, and its two graphs are equal. What it takes besides is built here, once."""

from __future__ import annotations

import pytest

from tests.benchmarks.test_smoke import run_benchmarks
from tests.graphs.sourcecred.install import can_build, tree


@pytest.mark.skipif(not can_build(), reason="SourceCred's own Discord plugin needs g++ and node's headers")
def test_graphs_beside_sourcecred() -> None:
    tree(native=True)
    document = run_benchmarks("--only", "graph")
    names = [figure["name"] for figure in document["figures"]]
    assert names[:2] == ["graphs built beside SourceCred", "memory beside SourceCred"]
    assert [row["messages"] for row in document["series"]["graphs"]] == [1000, 10000]
