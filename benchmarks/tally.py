"""What the load generator has seen, and what it says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Result:
    """A job's outcome. `cpu` is the generator's CPU time per second of the job; latencies are in milliseconds.

    `late_p99_ms` is how late a paced request left, compared with its schedule.
    """

    requests: int
    seconds: float
    rate: float
    p50_ms: float
    p99_ms: float
    cpu: float
    failed: int
    first_failure: str
    late_p99_ms: float = 0.0


@dataclass(slots=True)
class Tally:
    """What a job has seen so far; times in seconds."""

    latencies: list[float] = field(default_factory=list)
    lateness: list[float] = field(default_factory=list)
    failed: int = 0
    first_failure: str = ""

    def fail(self, what: str) -> None:
        """Count a failure, and keep the first one's words."""
        self.failed += 1
        self.first_failure = self.first_failure or what[:500]


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values are below; 0 when there are none."""
    ordered = sorted(values) or [0.0]
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
