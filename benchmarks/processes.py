"""Votes: how fast stored ones are counted, how fast they are taken, and what processes cost that only wait."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import psutil

from benchmarks import requests, rows
from benchmarks.copies import copy_vote
from benchmarks.ingest import B16, bare_insert
from benchmarks.report import CONNECTIONS, Comparison, Load, Run
from benchmarks.stack import Stack
from benchmarks.tally import Result

_VOTES = 10_000
_PROCESSES = 100
_FOLD_SECONDS = 20.0
_BARE_SECONDS = 0.5
_CAST_SECONDS = 1.0
_MANY = 64
_PENDING = 100_000
_FAR = timedelta(days=30)
_IDLE_SECONDS = 10.0
_MOST_PERCENT = 2.0
_AT_REST_SECONDS = 20.0

# In the shape in which webhooks' signals are stored.
_STORE = """
INSERT INTO signals (position, instance_id, process, key, kind, data, at)
SELECT nextval('positions'), p.instance_id, p.name, p.key, 'vote',
       json_build_object('voter', 'voter ' || n, 'choice', (ARRAY['apple', 'pear', 'plum'])[1 + n % 3]),
       clock_timestamp()
FROM generate_series(1, $2::int) n CROSS JOIN processes p WHERE p.id = ANY($1::text[]) ORDER BY n
"""
_MAKE_DUE = "UPDATE processes SET next_at = now() WHERE id = ANY($1::text[])"
_NOT_AT_REST = "SELECT FROM processes WHERE next_at <= clock_timestamp() OR lease_until IS NOT NULL"
_UNCOUNTED = "SELECT FROM signals WHERE applied_at IS NULL"
_COUNTED = "SELECT coalesce(sum((outcome->>'total_voters')::int), 0) FROM processes"

COMPARISONS = (
    Comparison("votes cast over 16 connections", "cast", "bare insert route", 0.3),
    Comparison("votes cast over 64 connections", "cast, 64 connections", "bare insert route, 64 connections", 0.3),
    Comparison("votes cast while the worker is paused", "cast, worker paused", "bare insert route", None),
)


def measure(run: Run) -> None:
    """Counting, casting, waiting."""
    _measure_counting(run)
    _measure_casting(run)
    _measure_waiting(run)


def _measure_counting(run: Run) -> None:
    insert = bare_insert(run)
    bare: list[Result] = []
    alone: list[float] = []
    spread: list[float] = []
    for number in range(-1, run.rounds):
        run.say("counting votes, " + ("warming up" if number < 0 else f"round {number + 1} of {run.rounds}"))
        yardstick = insert(_BARE_SECONDS * run.scale)
        rates = _count(run, 1), _count(run, _PROCESSES)
        if number >= 0:
            bare.append(yardstick)
            alone.append(rates[0])
            spread.append(rates[1])
    run.report.note(B16, bare)
    theirs = [each.rate for each in bare]
    run.report.add("stored votes counted, one process", alone, "votes/s", B16, theirs, 0.25)
    run.report.add(f"stored votes counted, {_PROCESSES} processes", spread, "votes/s", B16, theirs, 0.5)


def _count(run: Run, processes: int) -> float:
    """Votes per second of a backlog, from when the worker goes on until the last of them is in its process's state.

    One more vote is cast over HTTP, which says to the worker that there is work.
    """
    stack = run.stack
    started: float
    each = max(1, round(_VOTES * run.scale / processes))
    ids = _open_votes(stack, processes)
    with stack.paused_worker():
        stack.execute(_STORE, ids, each)
        stack.execute(_MAKE_DUE, ids)
        cast = {"parameters": {"process_id": ids[0], "voter": "the last", "choice": "plum"}}
        stack.call("POST", "/api/action/ballot.cast", cast, community=requests.COMMUNITY)
        started = stack.fetch("SELECT extract(epoch FROM clock_timestamp())::float8")[0][0]
    ended = stack.wait_until_none(_UNCOUNTED, _FOLD_SECONDS)
    votes = each * processes + 1
    counted = stack.fetch(_COUNTED)[0][0]
    if counted != votes:
        run.report.fail("counting", abs(votes - counted), f"{counted} of {votes} votes within {_FOLD_SECONDS:g} s")
    _drop_votes(stack)
    return votes / ((ended or started + _FOLD_SECONDS) - started)


def _measure_casting(run: Run) -> None:
    bare = [run.http(run.stack.bare_port, requests.bare_insert(), 200, many) for many in (CONNECTIONS, _MANY)]
    loads: dict[str, Load] = {
        "bare insert route": bare[0],
        "cast": partial(_cast, run, CONNECTIONS),
        "cast, worker paused": partial(_cast_alone, run, CONNECTIONS),
        "bare insert route, 64 connections": bare[1],
        "cast, 64 connections": partial(_cast, run, _MANY),
    }
    # The rounds before have warmed everything but the routes, and the first of several rounds is no median.
    rounds = run.take_turns(loads, _CAST_SECONDS, warm_up=False)
    for comparison in COMPARISONS:
        run.report.compare(comparison, rounds)


def _cast(run: Run, connections: int, seconds: float) -> Result:
    """Votes of distinct voters in one process, counted meanwhile. All that were accepted have to be counted."""
    (vote,) = _open_votes(run.stack, 1)
    result = _send_votes(run, vote, connections, seconds)
    _check_counted(run, result)
    return result


def _cast_alone(run: Run, connections: int, seconds: float) -> Result:
    (vote,) = _open_votes(run.stack, 1)
    with run.stack.paused_worker():
        result = _send_votes(run, vote, connections, seconds)
    _check_counted(run, result)
    return result


def _send_votes(run: Run, vote: str, connections: int, seconds: float) -> Result:
    request = requests.cast(run.stack.api_key, vote)
    return run.http(run.stack.api_port, request, 200, connections)(seconds)


def _check_counted(run: Run, result: Result) -> None:
    run.stack.wait_until_none(_UNCOUNTED, _FOLD_SECONDS)
    counted = run.stack.fetch(_COUNTED)[0][0]
    accepted = result.requests - result.failed
    if counted != accepted:
        run.report.fail("casting", abs(accepted - counted), f"{accepted} votes accepted, {counted} counted")
    _drop_votes(run.stack)


def _measure_waiting(run: Run) -> None:
    """Processes whose deadlines are far off should cost nothing but their rows."""
    stack, pending = run.stack, max(10, round(_PENDING * run.scale))
    run.say(f"{pending:,} processes that wait")
    _open_votes(stack, pending, datetime.now(UTC) + _FAR)
    percent = []
    for number in range(run.rounds):
        run.say(f"an idle worker, round {number + 1} of {run.rounds}")
        percent.append(_cpu_percent(stack, _IDLE_SECONDS * run.scale))
    name = f"CPU of the worker, {pending:,} processes pending"
    run.report.budget(name, percent, "% of a core", _MOST_PERCENT, at_most=True)
    _drop_votes(stack)


def _cpu_percent(stack: Stack, seconds: float) -> float:
    process = psutil.Process(stack.worker.pid)
    before, started = process.cpu_times(), time.monotonic()
    time.sleep(seconds)
    after, took = process.cpu_times(), time.monotonic() - started
    # Never 0: a figure that is not there could not be told from one that was not measured.
    return max(0.01, 100 * (after.user + after.system - before.user - before.system) / took)


def _open_votes(stack: Stack, count: int, closing_at: datetime | None = None) -> Sequence[str]:
    """So many open votes, the first of them over HTTP, and nothing to be done about any. Returns their ids."""
    wanted = {
        "title": "Which tree?",
        "options": ["apple", "pear", "plum"],
        "closing_at": None if closing_at is None else closing_at.isoformat(),
    }
    path = "/api/internal/process/ballot.vote"
    first: str = stack.call("POST", path, wanted, community=requests.COMMUNITY)["id"]
    _rest(stack)
    copies = stack.connected(lambda connection: copy_vote(connection, first, [closing_at] * (count - 1)))
    stack.execute("ANALYZE processes, process_transitions, signals")
    _rest(stack)
    return [first, *copies]


def _rest(stack: Stack) -> None:
    if stack.wait_until_none(_NOT_AT_REST, _AT_REST_SECONDS) is None:
        raise RuntimeError(f"the processes did not come to rest within {_AT_REST_SECONDS:g} s")


def _drop_votes(stack: Stack) -> None:
    """Remove all processes, once the worker is through with them."""
    _rest(stack)
    stack.execute("TRUNCATE processes, process_transitions, effects, signals")
    rows.drop_work(stack)
