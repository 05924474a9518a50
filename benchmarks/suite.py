"""What is measured, in which order, against what, and what came out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks import requests
from benchmarks.load import Result
from benchmarks.stack import Stack

CONNECTIONS = 16
_SECONDS = 3.0
_WARM_UP_SECONDS = 1.0
_IDLE_SECONDS = 5.0
_DRAIN_SECONDS = 60.0
_MOST_MB = 150.0

Say = Callable[[str], None]
Rounds = Mapping[str, Sequence[Result]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A figure and the yardstick it is divided by. `metric` is a field of Result; with `at_most`, less is better."""

    name: str
    load: str
    yardstick: str
    target: float | None
    metric: str = "rate"
    at_most: bool = False


COMPARISONS = (
    Comparison("webhook accept", "webhook", "insert", 0.8),
    Comparison("webhook accept p50", "webhook", "insert", None, "p50_ms", at_most=True),
    Comparison("webhook accept p99", "webhook", "insert", 5.0, "p99_ms", at_most=True),
    Comparison("webhook accept, worker paused", "webhook, worker paused", "insert", None),
    Comparison("webhook accept, worker paused p99", "webhook, worker paused", "insert", None, "p99_ms", at_most=True),
    Comparison("webhook accept over verify alone", "webhook, worker paused", "webhook verified, not stored", 0.5),
    Comparison("action", "action", "bare route", 0.25),
    Comparison("community read", "community read", "bare route", 0.25),
    Comparison("bare route over bare SELECT", "bare route", "select", None),
)


def measure(stack: Stack, scale: float, count: int, say: Say) -> dict[str, Any]:
    """Run the suite with `scale` times the usual load, `count` rounds of it. Returns the document that is printed."""
    say("waiting until the processes are idle")
    time.sleep(_IDLE_SECONDS * scale)
    figures = [_memory(stack, "API", stack.api), _memory(stack, "worker", stack.worker)]
    requests.prepare_community(stack.api_port, stack.api_key)
    loads = _loads(stack)
    say("warming up")
    for load in loads.values():
        load(_WARM_UP_SECONDS * scale)
    rounds: dict[str, list[Result]] = {name: [] for name in loads}
    for number in range(count):
        for name, load in loads.items():
            say(f"round {number + 1} of {count}: {name}")
            rounds[name].append(load(_SECONDS * scale))
    figures += [_compare(comparison, rounds) for comparison in COMPARISONS]
    return {
        "figures": figures,
        "met": [figure["name"] for figure in figures if figure["ok"] is True],
        "missed": [figure["name"] for figure in figures if figure["ok"] is False],
        "loads": {name: _median(results) for name, results in rounds.items()},
        "failures": {
            name: {"count": sum(each.failed for each in results), "first": _first_failure(results)}
            for name, results in rounds.items()
            if any(each.failed for each in results)
        },
        "conditions": {
            "connections": CONNECTIONS,
            "rounds": count,
            "seconds_per_round": _SECONDS * scale,
            "statistic": "median of the rounds, which take turns with their yardsticks'",
            "generator": "a process of its own; `cpu` is its CPU seconds per second: below 1 it was waiting, "
            "not limiting; `generator ceiling` is what it reaches against a server that does nothing",
        },
    }


def _loads(stack: Stack) -> dict[str, Callable[[float], Result]]:
    read_row = {
        "kind": "sql",
        "dsn": stack.dsn,
        "statement": "SELECT id, title FROM benchmark_rows WHERE id = $1",
        "argument": 7,
        "binary": False,
    }
    insert = {
        "kind": "sql",
        "dsn": stack.dsn,
        "statement": "INSERT INTO benchmark_bodies (body) VALUES ($1)",
        "argument": requests.issues_opened().decode(),
        "binary": True,
    }

    def http(port: int, request: bytes, status: int) -> Callable[[float], Result]:
        return partial(
            _run, stack, {"kind": "http", "port": port, "request": request.decode("latin-1"), "status": status}
        )

    hook = http(stack.api_port, requests.webhook(), 202)

    def hook_without_worker(seconds: float) -> Result:
        with stack.paused_worker():
            result = hook(seconds)
            stack.execute("DELETE FROM receipts")
        return result

    def hook_with_worker(seconds: float) -> Result:
        result = hook(seconds)
        _drain(stack)
        return result

    return {
        "insert": partial(_run, stack, insert),
        "webhook": hook_with_worker,
        "webhook, worker paused": hook_without_worker,
        "webhook verified, not stored": http(stack.api_port, requests.webhook("ping"), 200),
        "select": partial(_run, stack, read_row),
        "bare route": http(stack.bare_port, requests.bare_read(), 200),
        "action": http(stack.api_port, requests.random_int(stack.api_key), 200),
        "community read": http(stack.api_port, requests.community_read(stack.api_key), 200),
        "generator ceiling": http(stack.echo_port, requests.bare_read(), 200),
    }


def _run(stack: Stack, job: dict[str, Any], seconds: float) -> Result:
    return stack.run({**job, "connections": CONNECTIONS, "seconds": seconds})


def _drain(stack: Stack) -> None:
    """Drop what the worker has not handled, so that it disturbs no other load, and wait for its last batch."""
    stack.execute("UPDATE receipts SET next_at = NULL WHERE next_at IS NOT NULL AND lease_until IS NULL")
    end = time.monotonic() + _DRAIN_SECONDS
    while stack.execute("SELECT FROM receipts WHERE next_at IS NOT NULL") != "SELECT 0":
        if time.monotonic() > end:
            raise RuntimeError("the worker did not finish the receipts it had in hand")
        time.sleep(0.05)
    stack.execute("DELETE FROM receipts")


def _memory(stack: Stack, what: str, process: Any) -> dict[str, Any]:
    megabytes = stack.resident_mb(process)
    return {
        "name": f"memory of the idle {what}",
        "value": round(megabytes, 1),
        "unit": "MB",
        "yardstick": {"name": "budget", "value": _MOST_MB, "unit": "MB"},
        "ratio": round(megabytes / _MOST_MB, 3),
        "target": 1.0,
        "ok": megabytes < _MOST_MB,
    }


def _compare(comparison: Comparison, rounds: Rounds) -> dict[str, Any]:
    """Figure, yardstick and ratio, each the median of the rounds."""
    mine = [float(getattr(each, comparison.metric)) for each in rounds[comparison.load]]
    theirs = [float(getattr(each, comparison.metric)) for each in rounds[comparison.yardstick]]
    ratio = statistics.median(mine) / statistics.median(theirs)
    unit = "requests/s" if comparison.metric == "rate" else "ms"
    met = ratio <= (comparison.target or 0) if comparison.at_most else ratio >= (comparison.target or 0)
    return {
        "name": comparison.name,
        "value": round(statistics.median(mine), 2),
        "unit": unit,
        "yardstick": {"name": comparison.yardstick, "value": round(statistics.median(theirs), 2), "unit": unit},
        "ratio": round(ratio, 3),
        "target": comparison.target,
        "ok": None if comparison.target is None else met,
    }


def _median(results: Sequence[Result]) -> dict[str, float]:
    return {
        name: round(statistics.median(getattr(each, name) for each in results), 3)
        for name in ("rate", "p50_ms", "p99_ms", "cpu")
    }


def _first_failure(results: Sequence[Result]) -> str:
    return next(each.first_failure for each in results if each.failed)
