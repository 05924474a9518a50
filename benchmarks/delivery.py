"""Events on their way out: how fast they are fanned out and posted, and what a slow endpoint costs those who send."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from benchmarks import requests, rows
from benchmarks.ingest import B16, accept, bare_insert
from benchmarks.report import Comparison, Load, Run
from benchmarks.tally import Result

_POSTS_PER_SECOND = 2000.0
_BACKLOG = 20_000
_POST_SECONDS = 4.0
"""How long the worker is given for a backlog; the rest is dropped."""
_BARE_SECONDS = 1.0
_FAN = 10
_FANNED_WEBHOOKS = 600
_FAN_SECONDS = 30.0
_ACCEPT_SECONDS = 1.5

INSTANT = "webhook, instant endpoint"
COMPARISONS = (
    Comparison("accept with an endpoint that takes 500 ms", "webhook, slow endpoint", INSTANT, 0.95),
    # Nothing is what it may cost: 2 % is what rounds of this length differ by.
    Comparison("accept with an endpoint that is down", "webhook, endpoint down", INSTANT, 0.98),
    Comparison("accept with an instant endpoint", INSTANT, "webhook, no endpoint", None),
    Comparison(
        "accept with an endpoint that takes 500 ms, over none", "webhook, slow endpoint", "webhook, no endpoint", None
    ),
)


def measure(run: Run) -> None:
    """Posting, fan-out, and accepting beside endpoints of every kind."""
    _measure_posts(run)
    _measure_fan_out(run)
    _measure_cost(run)


def _measure_posts(run: Run) -> None:
    ports = run.stack.sink_ports
    body = requests.issues_opened().decode()
    job = {"kind": "posts", "port": ports[0], "body": body, "seconds": _BARE_SECONDS * run.scale}
    bare: list[Result] = []
    posted: dict[int, list[float]] = {1: [], len(ports): []}
    for number in range(run.rounds):
        run.say(f"bare aiohttp posts, round {number + 1} of {run.rounds}")
        bare.append(run.stack.run(job))
        for endpoints, rates in posted.items():
            run.say(f"deliveries to {endpoints} endpoints, round {number + 1} of {run.rounds}")
            rates.append(_post(run, ports[:endpoints]))
    run.report.note("bare aiohttp posts", bare)
    for endpoints, rates in posted.items():
        name = f"signed posts of one worker to {endpoints} endpoint" + ("s" if endpoints > 1 else "")
        run.report.budget(name, rates, "posts/s", _POSTS_PER_SECOND)
        run.report.add(f"{name}, over bare", rates, "posts/s", "aiohttp POSTs", [each.rate for each in bare], None)


def _post(run: Run, ports: Sequence[int]) -> float:
    """Posts per second of a backlog that appears at once, by the sink's clock from the first to the last in time."""
    stack, count = run.stack, max(len(ports), round(_BACKLOG * run.scale))
    with stack.endpoints(*ports) as made:
        secrets = {port: endpoint["secret"] for port, endpoint in made.items()}
        stack.count_posts(secrets)
        rows.add_deliveries(stack, [endpoint["id"] for endpoint in made.values()], count)
        waiting = "SELECT FROM deliveries WHERE next_at IS NOT NULL"
        stack.wait_until_none(waiting, max(1.5, _POST_SECONDS * run.scale))
        in_time = stack.count_posts(secrets)
        rows.stop_work(stack)
        rest = stack.count_posts({})
        delivered = stack.fetch("SELECT count(*) FROM deliveries WHERE status = 'delivered'")[0][0]
        rows.empty_tables(stack)
    posts, checked = in_time.posts + rest.posts, in_time.checked + rest.checked
    run.report.fail("signatures", in_time.wrong + rest.wrong, f"of {checked} posts that were checked")
    run.report.fail("deliveries", abs(posts - delivered), f"{posts} posts, {delivered} delivered")
    return in_time.rate


def _measure_fan_out(run: Run) -> None:
    insert = bare_insert(run)
    written: list[tuple[float, float]] = []
    bare: list[Result] = []
    for number in range(run.rounds):
        run.say(f"fan-out, round {number + 1} of {run.rounds}")
        bare.append(insert(_BARE_SECONDS * run.scale))
        written.append(_fan_out(run))
    run.report.note(B16, bare)
    rates = [each.rate for each in bare]
    run.report.add(f"deliveries written, {_FAN} per event", [each[0] for each in written], "rows/s", B16, rates, 1.0)
    run.report.add("the same and their events", [each[1] for each in written], "rows/s", B16, rates, None)


def _fan_out(run: Run) -> tuple[float, float]:
    """Delivery rows, and those with event rows, per second while the worker handles webhooks that wait already.

    The endpoints' circuits are open, so that nothing is posted meanwhile.
    """
    stack, count = run.stack, max(10, round(_FANNED_WEBHOOKS * run.scale))
    with stack.endpoints(*stack.sink_ports[:_FAN]):
        stack.execute("UPDATE endpoints SET not_before = now() + interval '1 hour'")
        with stack.paused_worker():
            accept_some(run, count)
            started = stack.fetch("SELECT extract(epoch FROM clock_timestamp())::float8")[0][0]
        ended = stack.wait_until_none("SELECT FROM receipts WHERE next_at IS NOT NULL", _FAN_SECONDS)
        deliveries, events = stack.fetch("SELECT (SELECT count(*) FROM deliveries), (SELECT count(*) FROM events)")[0]
        stored = stack.fetch("SELECT count(*) FROM receipts")[0][0]
        if ended is None or events != stored or deliveries != _FAN * events:
            first = f"{stored} webhooks became {events} events and {deliveries} deliveries"
            run.report.fail("fan-out", 1, first)
        seconds = (ended or started + _FAN_SECONDS) - started
        rows.drop_work(stack)
    return deliveries / seconds, (deliveries + events) / seconds


def accept_some(run: Run, count: int) -> Result:
    """So many webhooks, as fast as they are taken; at most as many more as there are connections."""
    request = requests.webhook().decode("latin-1")
    job = {"kind": "http", "port": run.stack.api_port, "request": request, "status": 202, "connections": 16}
    return run.stack.run({**job, "seconds": _FAN_SECONDS, "most": count})


def _measure_cost(run: Run) -> None:
    stack = run.stack
    ports: dict[str, int | None] = {
        INSTANT: stack.sink_ports[0],
        "webhook, slow endpoint": stack.slow_port,
        "webhook, endpoint down": stack.closed_port,
        "webhook, no endpoint": None,
    }
    load = accept(run)
    loads = {name: partial(_accept, run, load, port) for name, port in ports.items()}
    rounds = run.take_turns(loads, _ACCEPT_SECONDS, warm_up=False)  # the fan-out has
    for comparison in COMPARISONS:
        run.report.compare(comparison, rounds)


def _accept(run: Run, load: Load, port: int | None, seconds: float) -> Result:
    with run.stack.endpoints(*([] if port is None else [port])):
        result = load(seconds)
        rows.drop_work(run.stack)
    return result
