"""What the processes hold: idle, and while webhooks come in as fast as they are taken."""

from __future__ import annotations

import time

from benchmarks import requests, rows
from benchmarks.report import CONNECTIONS, Run

_IDLE_SECONDS = 5.0
_MOST_MB = 150.0
_WEBHOOKS = 100_000
_STEPS = 10
_GROWTH_MB = 20.0
_STEP_SECONDS = 20.0
_CATCH_UP_SECONDS = 15.0


def measure_idle(run: Run) -> None:
    """Right after the start: before a community exists, and before anything else is measured."""
    run.say("waiting until the processes are idle")
    time.sleep(_IDLE_SECONDS * run.scale)
    for what, process in (("API", run.stack.api), ("worker", run.stack.worker)):
        megabytes = run.stack.resident_mb(process)
        run.report.budget(f"memory of the idle {what}", [megabytes], "MB", _MOST_MB, at_most=True)


def measure(run: Run) -> None:
    """Webhooks are sent, handled, and their events posted to an endpoint that answers at once.

    The growth counts from a tenth of them on: until then caches and pools fill.
    """
    stack, series = run.stack, run.report.series.setdefault("memory over webhooks", [])
    request = requests.webhook().decode("latin-1")
    step = max(1, round(_WEBHOOKS * run.scale / _STEPS))
    accepted = posted = 0
    job = {"kind": "http", "port": stack.api_port, "request": request, "status": 202, "connections": CONNECTIONS}
    with stack.endpoints(stack.sink_ports[0]):
        stack.count_posts({})
        for number in range(_STEPS):
            run.say(f"memory, {number * step} of {_STEPS * step} webhooks")
            result = stack.run({**job, "seconds": _STEP_SECONDS, "most": step})
            accepted += result.requests
            run.report.fail("webhooks for memory", result.failed, result.first_failure)
            posted += stack.count_posts({}).posts
            series.append(_sample(run, accepted, posted))
        run.say("memory, waiting for the worker")
        stack.wait_until_none("SELECT FROM receipts WHERE next_at IS NOT NULL", _CATCH_UP_SECONDS * run.scale)
        posted += stack.count_posts({}).posts
        series.append(_sample(run, accepted, posted))
        rows.drop_work(stack)
        stack.count_posts({})
    first, last = series[0], series[-1]
    for what in ("API", "worker"):
        before, after = first[f"{what} MB"], last[f"{what} MB"]
        name = f"growth of the {what}, {first['accepted']:g} to {accepted:g} webhooks"
        # Never below 0, and never 0: a figure that is not there could not be told from one that was not measured.
        run.report.budget(name, [max(0.01, after - before)], "MB", _GROWTH_MB, at_most=True)


def _sample(run: Run, accepted: int, posted: int) -> dict[str, float]:
    counts = "SELECT count(*) FILTER (WHERE next_at IS NULL) FROM receipts"
    return {
        "accepted": accepted,
        "handled": run.stack.fetch(counts)[0][0],
        "posted": posted,
        "API MB": round(run.stack.resident_mb(run.stack.api), 1),
        "worker MB": round(run.stack.resident_mb(run.stack.worker), 1),
    }
