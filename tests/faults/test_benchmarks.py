"""The benchmarks run, all of them: with a hundredth of the load, and no word on what comes out."""

from __future__ import annotations

from benchmarks import api, delivery, ingest, limits, processes
from benchmarks.suite import GROUPS
from tests.benchmarks.test_smoke import run_benchmarks


def test_every_figure_is_measured_and_no_request_fails() -> None:
    document = run_benchmarks()
    figures = document["figures"]
    assert [figure["name"] for figure in figures[:2]] == ["memory of the idle API", "memory of the idle worker"]
    assert list(dict.fromkeys(figure["group"] for figure in figures)) == list(GROUPS)
    names = [figure["name"] for figure in figures]
    assert len(set(names)) == len(names)
    compared = {
        comparison.name for group in (api, delivery, ingest, limits, processes) for comparison in group.COMPARISONS
    }
    assert compared < set(names)
    assert [figure for figure in figures if figure["value"] <= 0 or figure["yardstick"]["value"] <= 0] == []
    assert all((figure["ok"] is None) == (figure["target"] is None) for figure in figures)
    assert len(document["series"]["memory over webhooks"]) > 2
