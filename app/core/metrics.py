"""What the service counts, for Prometheus. No community labels: their number has no bound."""

from __future__ import annotations

from functools import cache

from prometheus_client import Counter, Histogram

REQUESTS = Counter("metagov_http_requests_total", "HTTP requests answered", ["method", "route", "status"])
REQUEST_SECONDS = Histogram(
    "metagov_http_request_seconds",
    "Seconds from a request's first byte to its answer's last",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
RECEIPTS = Counter("metagov_receipts_total", "Webhooks received", ["plugin", "result"])
EQUAL_BODIES = Counter("metagov_receipts_equal_bodies_total", "Receipts whose body had come before", ["plugin"])
HANDLED = Counter("metagov_receipts_handled_total", "Receipts handed to plugin handlers", ["plugin", "result"])
DELIVERIES = Counter("metagov_delivery_attempts_total", "Attempts to deliver an event", ["result"])
PROCESSES = Counter("metagov_process_steps_total", "Steps of governance processes", ["plugin", "result"])
PLATFORM_WAITS = Counter("metagov_platform_waits_total", "Waits of requests to platforms", ["plugin", "result"])
PLATFORM_REFUSALS = Counter(
    "metagov_platform_429_total", "Answers of platforms that they are asked too much", ["plugin"]
)
MIRROR_PAGES = Counter("metagov_mirror_pages_total", "Pages read from platforms for mirrors", ["plugin", "result"])
MIRROR_RUNS = Counter("metagov_mirror_runs_total", "Runs of mirrors that are over", ["plugin", "result"])
GRAPH_BUILDS = Counter("metagov_graph_builds_total", "Graphs built from archives, or refused", ["plugin", "result"])

# A series found once is kept at hand: `labels` checks its arguments anew at every call.
requests_of = cache(REQUESTS.labels)
request_seconds_of = cache(REQUEST_SECONDS.labels)
receipts_of = cache(RECEIPTS.labels)
handled_of = cache(HANDLED.labels)
deliveries_of = cache(DELIVERIES.labels)
processes_of = cache(PROCESSES.labels)
platform_waits_of = cache(PLATFORM_WAITS.labels)
platform_refusals_of = cache(PLATFORM_REFUSALS.labels)
mirror_pages_of = cache(MIRROR_PAGES.labels)
mirror_runs_of = cache(MIRROR_RUNS.labels)
graph_builds_of = cache(GRAPH_BUILDS.labels)
