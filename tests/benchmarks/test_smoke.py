"""The benchmarks run: with a hundredth of the load, and no word on what comes out."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from benchmarks import api, delivery, ingest, limits, processes
from benchmarks.suite import GROUPS

pytestmark = pytest.mark.slow

# That of graphs runs in `make test-sourcecred`, which has what it is compared with.
_HERE = [group for group in GROUPS if group != "graph"]


def run_benchmarks(*arguments: str) -> dict[str, Any]:
    """What they print, as small as they get."""
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--scale", "0.01", "--rounds", "1", *arguments],
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    document: dict[str, Any] = json.loads(run.stdout)
    assert document["failures"] == {}
    return document


def test_every_figure_is_measured_and_no_request_fails() -> None:
    document = run_benchmarks(*(f"--only={group}" for group in _HERE))
    figures = document["figures"]
    assert [figure["name"] for figure in figures[:2]] == ["memory of the idle API", "memory of the idle worker"]
    assert list(dict.fromkeys(figure["group"] for figure in figures)) == _HERE
    names = [figure["name"] for figure in figures]
    assert len(set(names)) == len(names)
    compared = {
        comparison.name for group in (api, delivery, ingest, limits, processes) for comparison in group.COMPARISONS
    }
    assert compared < set(names)
    assert [figure for figure in figures if figure["value"] <= 0 or figure["yardstick"]["value"] <= 0] == []
    assert all((figure["ok"] is None) == (figure["target"] is None) for figure in figures)
    assert len(document["series"]["memory over webhooks"]) > 2


def test_a_group_runs_alone() -> None:
    document = run_benchmarks("--only", "api")
    assert [figure["name"] for figure in document["figures"]] == [comparison.name for comparison in api.COMPARISONS]
