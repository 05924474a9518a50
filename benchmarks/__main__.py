"""`python -m benchmarks`: JSON on stdout, progress and a table on stderr. Ends with 1 only if a request failed."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.stack import open_stack
from benchmarks.suite import measure


@click.command()
@click.option("--scale", default=1.0, show_default=True, type=click.FloatRange(0.001, 10), help="Share of the load.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 99), help="Rounds; medians are shown.")
def main(scale: float, rounds: int) -> None:
    """Measure the gateway beside its yardsticks."""
    console = Console(stderr=True, highlight=False)
    with (
        tempfile.TemporaryDirectory(prefix="metagov-bench-", ignore_cleanup_errors=True) as folder,
        console.status("starting Postgres, Valkey, API and worker") as status,
        open_stack(Path(folder)) as stack,
    ):
        document = measure(stack, scale, rounds, status.update)
    console.print(_table(document["figures"]))
    for name, failure in document["failures"].items():
        console.print(f"[red]{failure['count']} requests failed[/]: {name}: {failure['first']}", markup=True)
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
            "" if figure["target"] is None else f"{figure['target']:g}",
            {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[figure["ok"]],
        )
    return table


if __name__ == "__main__":
    main()
