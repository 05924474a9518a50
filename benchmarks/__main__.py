"""`python -m benchmarks`: JSON on stdout, progress and a table on stderr. Ends with 1 only if a request failed."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.stack import open_stack
from benchmarks.suite import GROUPS, measure


@click.command()
@click.option("--scale", default=1.0, show_default=True, type=click.FloatRange(0.001, 10), help="Share of the load.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 99), help="Rounds; medians are shown.")
@click.option("--only", multiple=True, type=click.Choice(list(GROUPS)), help="A group of figures; all if not given.")
def main(scale: float, rounds: int, only: tuple[str, ...]) -> None:
    """Measure the gateway beside its yardsticks."""
    console = Console(stderr=True, highlight=False)
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="metagov-bench-", ignore_cleanup_errors=True) as folder,
        console.status("starting Postgres, Valkey, API and worker") as status,
        open_stack(Path(folder)) as stack,
    ):

        def say(what: str) -> None:
            line = f"{time.monotonic() - started:4.0f} s  {what}"
            if console.is_terminal:
                status.update(line)
            else:
                console.print(line)

        document = measure(stack, scale, rounds, say, only or list(GROUPS))
        document["seconds"] = round(time.monotonic() - started, 1)
    console.print(_table(document["figures"]))
    for name, samples in document["series"].items():
        console.print(_series(name, samples))
    for name, failure in document["failures"].items():
        console.print(f"[red]{failure['count']} failed[/]: {name}: {escape(failure['first'])}")
    json.dump(document, sys.stdout, indent=2)
    print()
    sys.exit(1 if document["failures"] else 0)


def _table(figures: list[dict[str, Any]]) -> Table:
    table = Table("figure", "value", "yardstick", "ratio", "target", "ok")
    for figure in figures:
        yardstick = figure["yardstick"]
        table.add_row(
            figure["name"],
            f"{figure['value']:g} {figure['unit']}",
            f"{yardstick['value']:g} ({yardstick['name']})",
            f"{figure['ratio']:.2f}",
            "" if figure["target"] is None else f"{'≤' if figure['at_most'] else '≥'} {figure['target']:g}",
            {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[figure["ok"]],
        )
    return table


def _series(name: str, samples: list[dict[str, float]]) -> Table:
    table = Table(*samples[0], title=name)
    for sample in samples:
        table.add_row(*(f"{value:g}" for value in sample.values()))
    return table


if __name__ == "__main__":
    main()
