"""What drivers wait for: actions and reads, beside a bare route."""

from __future__ import annotations

from benchmarks import requests
from benchmarks.report import Comparison, Run

_SECONDS = 2.0

COMPARISONS = (
    Comparison("action", "action", "bare route", 0.25),
    Comparison("community read", "community read", "bare route", 0.25),
    Comparison("bare route over bare SELECT", "bare route", "select", None),
)


def measure(run: Run) -> None:
    """Actions and reads. The generator's ceiling is measured too: nothing near it is the gateway's own."""
    stack = run.stack
    rounds = run.take_turns(
        {
            "select": run.statement("SELECT id, title FROM benchmark_rows WHERE id = $1", 7),
            "bare route": run.http(stack.bare_port, requests.bare_read(), 200),
            "action": run.http(stack.api_port, requests.random_int(stack.api_key), 200),
            "community read": run.http(stack.api_port, requests.community_read(stack.api_key), 200),
            "generator ceiling": run.http(stack.echo_port, requests.bare_read(), 200),
        },
        _SECONDS,
    )
    for comparison in COMPARISONS:
        run.report.compare(comparison, rounds)
