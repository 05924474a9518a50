"""Webhooks: how many are accepted, and how soon their handlers start."""

from __future__ import annotations

import dataclasses
from functools import partial

from benchmarks import requests, rows
from benchmarks.report import CONNECTIONS, Comparison, Load, Run
from benchmarks.tally import Result, quantile

B16 = "insert"
_SECONDS = 2.0
_RATES = (20, 200)
_PACED_SECONDS = 3.0
_PACED_CONNECTIONS = 8
_MOST_MS = 10.0
_HANDLED_SECONDS = 20.0

_MANY = 64
"""Connections of the platforms: the yardstick has 16, and waits for the disk with each."""

COMPARISONS = (
    Comparison("webhook accept", "webhook, worker paused", B16, 0.8),
    Comparison("webhook accept p50", "webhook, worker paused", B16, None, "p50_ms", at_most=True),
    Comparison("webhook accept p99", "webhook, worker paused", B16, 5.0, "p99_ms", at_most=True),
    Comparison("webhook accept over verify alone", "webhook, worker paused", "webhook verified, not stored", 0.5),
    Comparison("webhook accept while they are handled", "webhook", B16, None),
    Comparison("webhook accept while they are handled, p99", "webhook", B16, None, "p99_ms", at_most=True),
    Comparison("webhook accept at 16 connections", "webhook, 16 connections, worker paused", B16, None),
)

# A receipt's `received_at` is the database's clock in the statement that stores it, before the commit: of all that may
# be called acceptance the earliest after the signature has been checked. All clocks are this machine's.
_STARTS = """
SELECT (e.data->>'started')::float8 - extract(epoch FROM r.received_at)::float8 AS accepted,
       (e.data->>'started')::float8 - (e.data->>'sent')::float8 AS sent
FROM events e JOIN receipts r ON r.id = e.data->>'receipt' WHERE e.source = 'stopwatch'
"""


def measure(run: Run) -> None:
    """Accept rates beside a bare INSERT, then the way from acceptance to the handler at given rates."""
    rounds = run.take_turns(
        {
            B16: bare_insert(run),
            "webhook": partial(_accept, run, accept(run)),
            "webhook, worker paused": partial(_accept_alone, run, accept(run)),
            "webhook, 16 connections, worker paused": partial(_accept_alone, run, accept(run, CONNECTIONS)),
            "webhook verified, not stored": run.http(run.stack.api_port, requests.webhook("ping"), 200, _MANY),
        },
        _SECONDS,
    )
    for comparison in COMPARISONS:
        run.report.compare(comparison, rounds)
    _measure_starts(run)


def bare_insert(run: Run) -> Load:
    """The yardstick: one row with the body of a webhook, in a transaction of its own."""
    statement = "INSERT INTO benchmark_bodies (body) VALUES ($1)"
    return run.statement(statement, requests.issues_opened().decode(), binary=True)


def accept(run: Run, connections: int = _MANY) -> Load:
    """Webhooks, as fast as they are taken."""
    return run.http(run.stack.api_port, requests.webhook(), 202, connections)


def _accept(run: Run, load: Load, seconds: float) -> Result:
    result = load(seconds)
    rows.drop_work(run.stack)
    return result


def _accept_alone(run: Run, load: Load, seconds: float) -> Result:
    with run.stack.paused_worker():
        result = load(seconds)
        run.stack.execute("DELETE FROM receipts")
    rows.drop_work(run.stack)
    return result


def _measure_starts(run: Run) -> None:
    accepted: dict[tuple[int, float], list[float]] = {}
    sent: dict[tuple[int, float], list[float]] = {}
    results: dict[int, list[Result]] = {rate: [] for rate in _RATES}
    for number in range(-1, run.rounds):
        for rate in _RATES:
            run.say(f"webhooks at {rate}/s, " + ("warming up" if number < 0 else f"round {number + 1} of {run.rounds}"))
            result, starts = _start_handlers(run, rate)
            if number < 0:
                continue
            results[rate].append(result)
            for share in (0.5, 0.99):
                accepted.setdefault((rate, share), []).append(1000 * quantile([row[0] for row in starts], share))
                sent.setdefault((rate, share), []).append(1000 * quantile([row[1] for row in starts], share))
    for rate in _RATES:
        run.report.note(f"webhooks at {rate}/s", results[rate])
        for share, what in ((0.5, "p50"), (0.99, "p99")):
            budget = _MOST_MS if (rate, share) == (200, 0.5) else None
            target = None if budget is None else 1.0
            for name, found in (("accepted", accepted), ("sent", sent)):
                run.report.add(
                    f"{name} to handler start at {rate}/s {what}",
                    found[rate, share],
                    "ms",
                    f"budget for {name} p50",
                    [_MOST_MS],
                    target,
                    at_most=True,
                )


def _start_handlers(run: Run, rate: int) -> tuple[Result, list[tuple[float, float]]]:
    """Send webhooks at that rate. Returns seconds from acceptance, and from sending, to the handler's first line."""
    job = {
        "kind": "paced",
        "port": run.stack.api_port,
        "request": requests.timed_webhook().decode("latin-1"),
        "status": 202,
        "rate": rate,
        "connections": _PACED_CONNECTIONS,
        "seconds": _PACED_SECONDS * run.scale,
    }
    result = run.stack.run(job)
    run.stack.wait_until_none("SELECT FROM receipts WHERE next_at IS NOT NULL", _HANDLED_SECONDS)
    starts = [(row["accepted"], row["sent"]) for row in run.stack.fetch(_STARTS)]
    missing = result.requests - len(starts)
    if missing and not result.failed:
        first = f"{missing} of {result.requests} webhooks were not handled within {_HANDLED_SECONDS:g} s"
        result = dataclasses.replace(result, failed=missing, first_failure=first)
    rows.drop_work(run.stack)
    return result, starts
