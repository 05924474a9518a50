"""What is measured, in which order."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from benchmarks import api, archive, delivery, graph, ingest, limits, log, memory, mirror, processes, requests
from benchmarks.report import CONNECTIONS, Report, Run, Say
from benchmarks.stack import Stack

GROUPS: dict[str, Callable[[Run], None]] = {
    # Memory first, while the processes are fresh; the log last, for it leaves a million rows behind.
    "memory": memory.measure,
    "ingest": ingest.measure,
    "delivery": delivery.measure,
    "api": api.measure,
    "processes": processes.measure,
    "limits": limits.measure,
    "archive": archive.measure,
    "mirror": mirror.measure,
    "graph": graph.measure,
    "log": log.measure,
}


def measure(stack: Stack, scale: float, rounds: int, say: Say, groups: Collection[str]) -> dict[str, Any]:
    """Run these groups with `scale` times the usual load, `rounds` rounds of it. Returns the document to print."""
    report = Report()
    run = Run(stack, scale, rounds, say, report)
    if "memory" in groups:
        report.group = "memory"
        memory.measure_idle(run)
    requests.prepare_community(stack.api_port, stack.api_key)
    for name, measure_group in GROUPS.items():
        if name in groups:
            report.group = name
            measure_group(run)
    return {
        "figures": report.figures,
        "met": [figure["name"] for figure in report.figures if figure["ok"] is True],
        "missed": [figure["name"] for figure in report.figures if figure["ok"] is False],
        "loads": report.loads,
        "series": report.series,
        "failures": report.failures,
        "conditions": {
            "connections": CONNECTIONS,
            "rounds": rounds,
            "scale": scale,
            "statistic": "median of the rounds, which take turns with their yardsticks'",
            "generator": "a process of its own; `cpu` is its CPU seconds per second: below 1 it was waiting, "
            "not limiting; `generator ceiling` is what it reaches against a server that does nothing",
            "accepted to handler start": "from the database's clock in the statement that stores the webhook to the "
            "handler's first line; `sent` is from the sender's clock when the request leaves; open loop",
            "posts": "a backlog that appears at once, from the first post to the last by the sink's clock",
            "votes counted": "a backlog stored past the gateway, from when the worker goes on until all are counted; "
            "`cast` is one process with a voter per request, counted on the same machine meanwhile",
            "fan-out": "rows written while the worker handles waiting webhooks; the endpoints are paused",
        },
    }
