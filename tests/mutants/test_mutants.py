"""The list of mutants keeps up with the code: each can still be applied, and its test is still there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.mutants.mutants import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
ROWS = range(1, 26)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.row)
def test_it_can_be_applied_and_its_test_exists(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    file, _, name = mutant.test.partition("::")
    text = (ROOT / file).read_text()
    if name:
        assert re.search(rf"def {re.escape(name.partition('[')[0])}\(", text)


def test_every_promise_has_one() -> None:
    assert {int(mutant.row.split()[0]) for mutant in MUTANTS} >= set(ROWS)


def test_they_are_told_apart() -> None:
    assert len({mutant.row for mutant in MUTANTS}) == len(MUTANTS)
