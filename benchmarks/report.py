"""What came out: figures, each beside its yardstick and its target, and the loads they come from."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.stack import Stack
from benchmarks.tally import Result

CONNECTIONS = 16
_WARM_UP_SECONDS = 1.0

Say = Callable[[str], None]
Rounds = Mapping[str, Sequence[Result]]
Load = Callable[[float], Result]
"""Makes load for so many seconds."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A figure and the yardstick it is divided by. `metric` is a field of Result; with `at_most`, less is better."""

    name: str
    load: str
    yardstick: str
    target: float | None
    metric: str = "rate"
    at_most: bool = False


@dataclass(slots=True)
class Report:
    """The document that is printed, as it grows. `group` is the one that is being measured."""

    group: str = ""
    figures: list[dict[str, Any]] = field(default_factory=list)
    loads: dict[str, dict[str, float]] = field(default_factory=dict)
    series: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    failures: dict[str, dict[str, Any]] = field(default_factory=dict)

    def fail(self, name: str, count: int, first: str) -> None:
        """Something went wrong that many times; `first` is how."""
        if count:
            known = self.failures.setdefault(name, {"count": 0, "first": first})
            known["count"] += count

    def add(
        self,
        name: str,
        mine: Sequence[float],
        unit: str,
        yardstick: str,
        theirs: Sequence[float],
        target: float | None,
        *,
        at_most: bool = False,
    ) -> None:
        """A figure and its yardstick, each the median of the rounds. The target is for the first over the second."""
        value, other = statistics.median(mine), statistics.median(theirs)
        ratio = value / other if other else 0.0
        met = None if target is None else (ratio <= target if at_most else ratio >= target)
        self.figures.append(
            {
                "group": self.group,
                "name": name,
                "value": round(value, 2),
                "unit": unit,
                "yardstick": {"name": yardstick, "value": round(other, 2), "unit": unit},
                "ratio": round(ratio, 3),
                "target": target,
                "at_most": at_most,
                "ok": met,
            }
        )

    def budget(self, name: str, mine: Sequence[float], unit: str, budget: float, *, at_most: bool = False) -> None:
        """A figure whose yardstick is a number from the list of promises."""
        self.add(name, mine, unit, "budget", [budget], 1.0, at_most=at_most)

    def compare(self, comparison: Comparison, rounds: Rounds) -> None:
        """A figure from two loads that took turns."""
        self.add(
            comparison.name,
            [float(getattr(each, comparison.metric)) for each in rounds[comparison.load]],
            "requests/s" if comparison.metric == "rate" else "ms",
            comparison.yardstick,
            [float(getattr(each, comparison.metric)) for each in rounds[comparison.yardstick]],
            comparison.target,
            at_most=comparison.at_most,
        )

    def note(self, name: str, results: Sequence[Result]) -> None:
        """The medians of a load's rounds, and its failures."""
        self.loads[name] = {
            metric: round(statistics.median(getattr(each, metric) for each in results), 3)
            for metric in ("rate", "p50_ms", "p99_ms", "cpu", "late_p99_ms")
        }
        first = next((each.first_failure for each in results if each.failed), "")
        self.fail(name, sum(each.failed for each in results), first)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the suite: on what, how much, and where the results go."""

    stack: Stack
    scale: float
    rounds: int
    say: Say
    report: Report

    def take_turns(self, loads: Mapping[str, Load], seconds: float, *, warm_up: bool = True) -> dict[str, list[Result]]:
        """Warm up, then run the loads one after the other, round after round."""
        for name, load in loads.items() if warm_up else ():
            self.say(f"warming up: {name}")
            load(_WARM_UP_SECONDS * self.scale)
        rounds: dict[str, list[Result]] = {name: [] for name in loads}
        for number in range(self.rounds):
            for name, load in loads.items():
                self.say(f"{name}, round {number + 1} of {self.rounds}")
                rounds[name].append(load(seconds * self.scale))
        for name, results in rounds.items():
            self.report.note(name, results)
        return rounds

    def http(self, port: int, request: bytes, status: int, connections: int = CONNECTIONS) -> Load:
        """Load over HTTP: one request again and again, on each of so many connections."""
        job = {"kind": "http", "port": port, "request": request.decode("latin-1"), "status": status}
        return lambda seconds: self.stack.run({**job, "connections": connections, "seconds": seconds})

    def statement(self, statement: str, argument: str | int, *, binary: bool = False) -> Load:
        """Load of one SQL statement on bare asyncpg."""
        job = {"kind": "sql", "dsn": self.stack.dsn, "statement": statement, "argument": argument, "binary": binary}
        return lambda seconds: self.stack.run({**job, "connections": CONNECTIONS, "seconds": seconds})
