"""The benchmarks run: with a hundredth of the load, and no word on what comes out."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.suite import COMPARISONS


def test_every_figure_is_measured_and_no_request_fails() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--scale", "0.01", "--rounds", "1"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    document = json.loads(run.stdout)
    assert document["failures"] == {}
    names = [figure["name"] for figure in document["figures"]]
    assert names[:2] == ["memory of the idle API", "memory of the idle worker"]
    assert names[2:] == [comparison.name for comparison in COMPARISONS]
    assert all(figure["value"] > 0 and figure["yardstick"]["value"] > 0 for figure in document["figures"])
    assert all((figure["ok"] is None) == (figure["target"] is None) for figure in document["figures"])
