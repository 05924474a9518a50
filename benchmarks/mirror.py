"""A platform mirrored: pages normalised and stored, beside a bare COPY of the same rows. Then the mirror archived."""

from __future__ import annotations

from benchmarks.apart import measure_apart
from benchmarks.report import Run

_ROWS = 200_000
_LEAST_RATE = 10_000
_LEAST_ARCHIVED = 100_000
_MOST_MB = 200.0


def measure(run: Run) -> None:
    """On a database of its own; the gateway's processes are idle meanwhile."""
    rows = max(2_000, round(_ROWS * run.scale))
    found = [
        measure_apart("benchmarks.mirror_probe", {"rows": rows}, run.stack.environment, run.say)
        for _ in range(run.rounds)
    ]
    rates = [each["rows"] / each["seconds"] for each in found]
    run.report.fail("rows mirrored", sum(each["rows"] != rows for each in found), "rows are missing")
    run.report.budget("mirror: rows normalised and stored", rates, "rows/s", _LEAST_RATE)
    copies = [1 / each["copy_seconds"] for each in found]
    run.report.add("mirror: rows, beside COPY", rates, "rows/s", "bare COPY", copies, None)
    memory = [each["late_mb"] for each in found]
    run.report.budget(f"mirror: memory after {rows:,} rows", memory, "MB", _MOST_MB, at_most=True)
    growth = [max(0.01, each["late_mb"] - each["early_mb"]) for each in found]
    run.report.add("mirror: memory, from a tenth on", growth, "MB", "at a tenth", [e["early_mb"] for e in found], None)
    _archived(run, found)


def _archived(run: Run, found: list[dict[str, float]]) -> None:
    rates = [each["archived"] / each["archive_seconds"] for each in found]
    run.report.budget("mirror: rows archived", rates, "rows/s", _LEAST_ARCHIVED)
    again = [each["archived"] / each["again_seconds"] for each in found]
    run.report.budget("mirror: rows archived again, unchanged", again, "rows/s", _LEAST_ARCHIVED)
    copies = [each["archived"] / each["out_seconds"] for each in found]
    run.report.add("mirror: rows archived beside COPY", rates, "rows/s", "bare COPY of the table", copies, None)
    memory = [each["archive_mb"] for each in found]
    run.report.budget(f"mirror: memory, {found[0]['archived']:,} rows archived", memory, "MB", _MOST_MB, at_most=True)
