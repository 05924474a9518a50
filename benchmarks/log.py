"""The log and the queues over a million rows, beside ten thousand."""

from __future__ import annotations

from benchmarks import rows
from benchmarks.apart import measure_apart
from benchmarks.probe import AT_A_TIME, FILTERS, PAGE, RARE, WARM_UP
from benchmarks.report import Run

_FEW = 10_000
_MANY = 1_000_000
_PAGES = 40
_CLAIMS = 200
_PAGE_RATIO = 3.0
_CLAIM_RATIO = 2.0


def measure(run: Run) -> None:
    """Has the worker ended for good, for it would take the work that is to be timed: the last of all groups."""
    stack = run.stack
    pages, claims = max(3, round(_PAGES * run.scale)), max(10, round(_CLAIMS * run.scale))
    due = (claims + WARM_UP) * AT_A_TIME  # the work that is taken is among these rows
    few, many = max(due, round(_FEW * run.scale)), max(2 * due, round(_MANY * run.scale))
    with stack.endpoints(*stack.sink_ports) as made:
        endpoints = [endpoint["id"] for endpoint in made.values()]
        driver = stack.fetch("SELECT driver_id FROM endpoints LIMIT 1")[0][0]
        stack.end_worker()
        job = {"driver": driver, "endpoints": endpoints, "rows": [few, many], "pages": pages, "claims": claims}
        found = measure_apart("benchmarks.probe", job, stack.environment, run.say)
        rows.empty_tables(stack)  # an endpoint takes its deliveries with it, one by one
    small, large = found[str(few)], found[str(many)]
    beside = f"beside {few:,}"
    for name in FILTERS:
        for place in ("middle", "end"):
            kind = f"{name}, {place}"
            run.report.add(
                f"page of {PAGE} at {many:,} events: {kind}",
                [large["pages"][kind]],
                "ms",
                beside,
                [small["pages"][kind]],
                _PAGE_RATIO,
                at_most=True,
            )
    # So few of ten thousand are the rare community's that its page is no page there.
    for place in ("middle", "end"):
        run.report.add(
            f"page of {PAGE} at {many:,} events: {RARE}, {place}",
            [large["pages"][f"{RARE}, {place}"]],
            "ms",
            "any event there",
            [large["pages"][f"any event, {place}"]],
            _PAGE_RATIO,
            at_most=True,
        )
    for queue in ("receipts", "deliveries"):
        name = f"claim of {queue} p99, {many:,} done"
        times = [large["claims"][queue]], [small["claims"][queue]]
        run.report.add(name, times[0], "ms", beside, times[1], _CLAIM_RATIO, at_most=True)
