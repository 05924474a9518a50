"""A group of benchmarks runs: with a hundredth of the load, and no word on what comes out."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from benchmarks import api

pytestmark = pytest.mark.slow


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


def test_a_group_runs_alone() -> None:
    document = run_benchmarks("--only", "api")
    assert [figure["name"] for figure in document["figures"]] == [comparison.name for comparison in api.COMPARISONS]
