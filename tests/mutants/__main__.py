"""`python -m tests.mutants [row …]`: apply each mutant to a copy of the tree, and see its test turn red there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from rich.console import Console
from rich.progress import track

from tests.mutants.mutants import MUTANTS, Mutant

_ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 600
_PARTS = ("app", "metagov_sdk", "plugins", "migrations", "tests", "benchmarks", "pyproject.toml", "alembic.ini")


@click.command()
@click.argument("rows", nargs=-1)
def main(rows: tuple[str, ...]) -> None:
    """Break what keeps the promises with these numbers (all, if none is given), and see the tests notice."""
    chosen = [mutant for mutant in MUTANTS if not rows or mutant.row.split()[0] in rows or mutant.row in rows]
    if not chosen:
        raise click.UsageError(f"no mutant of {', '.join(rows)}; there are {', '.join(each.row for each in MUTANTS)}")
    console = Console(highlight=False)
    survived = []
    for mutant in track(chosen, description="breaking", console=console):
        started = time.monotonic()
        red = turns_red(mutant)
        verdict = "[green]red[/]" if red else "[bold red]STILL GREEN[/]"
        console.print(
            f"{mutant.row:14} {verdict} {time.monotonic() - started:4.0f} s  {mutant.mechanism}", soft_wrap=True
        )
        if not red:
            survived.append(mutant)
    console.print(f"{len(chosen) - len(survived)} of {len(chosen)} noticed")
    sys.exit(bool(survived))


def turns_red(mutant: Mutant) -> bool:
    """Whether the mutant's test fails on a copy with the change. A test that cannot run counts as green."""
    with tempfile.TemporaryDirectory(prefix="metagov-mutant-") as folder:
        copy = Path(folder)
        for part in _PARTS:
            source = _ROOT / part
            if source.is_dir():
                shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
            else:
                shutil.copy(source, copy / part)
        place = copy / mutant.file
        place.write_text(place.read_text().replace(mutant.old, mutant.new))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", mutant.test]
        environment = {**os.environ, "PYTHONPATH": folder}
        try:
            ended = subprocess.run(
                command,
                cwd=copy,
                env=environment,
                timeout=_SECONDS,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            return True
    # 1: tests failed. Anything else says that none was found, or that collecting them failed.
    return ended.returncode == 1


if __name__ == "__main__":
    main()
