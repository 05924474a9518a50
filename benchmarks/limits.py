"""What it costs a request to a platform that the platform's limits are kept: one statement before it is sent."""

from __future__ import annotations

from benchmarks.ingest import B16, bare_insert
from benchmarks.report import Comparison, Run

_SECONDS = 2.0

# Buckets that always have room: what is measured is taking, and not waiting.
_TAKE = """
SELECT wait FROM take_limits(
    'benchmark', {owner}, ARRAY['route', 'global'], ARRAY[1e-6, 1e-6], ARRAY[1000000, 1000000], ARRAY[1, 1],
    ARRAY[false, false], 5, 5000)
"""

COMPARISONS = (
    Comparison("limits taken, two buckets, 16 owners", "take, 16 owners", B16, 0.5),
    Comparison("limits taken, two buckets, one owner", "take, one owner", B16, 0.25),
    Comparison("limits taken, 16 owners, p99", "take, 16 owners", B16, None, "p99_ms", at_most=True),
)


def measure(run: Run) -> None:
    """Takes beside a bare INSERT: by owners of their own, and by all from the same two rows."""
    rounds = run.take_turns(
        {
            B16: bare_insert(run),
            "take, 16 owners": run.statement(_TAKE.format(owner="$1::text || pg_backend_pid()"), "owner"),
            "take, one owner": run.statement(_TAKE.format(owner="$1::text"), "owner"),
        },
        _SECONDS,
    )
    for comparison in COMPARISONS:
        run.report.compare(comparison, rounds)
