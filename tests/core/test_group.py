"""Group commit: what waits together is committed together, and one bad item fails nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from app.core.group import Group


class Ledger:
    """Commits numbers, slowly; refuses what it is told to."""

    def __init__(self, *refused: int, error: type[Exception] = ValueError) -> None:
        self.refused = set(refused)
        self.error = error
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.begun = 0

    async def commit(self, batch: Sequence[int]) -> list[str]:
        self.begun += 1
        await self.open.wait()
        if self.refused & set(batch):
            raise self.error
        self.batches.append(list(batch))
        return [str(number) for number in batch]

    def group(self, **options: object) -> Group[int, str]:
        return Group(self.commit, is_ones_fault=lambda error: isinstance(error, ValueError), **options)  # type: ignore[arg-type]


async def test_each_hears_of_its_own() -> None:
    ledger = Ledger()
    group = ledger.group()
    assert await asyncio.gather(*(group.add(number) for number in range(5))) == ["0", "1", "2", "3", "4"]
    assert ledger.batches == [[0, 1, 2, 3, 4]]


async def test_what_comes_meanwhile_makes_up_the_next() -> None:
    ledger = Ledger()
    group = ledger.group()
    ledger.open.clear()
    first = group.add(0)
    await asyncio.sleep(0)
    rest = [group.add(number) for number in (1, 2, 3)]
    await asyncio.sleep(0.01)
    assert ledger.begun == 1
    ledger.open.set()
    await asyncio.gather(first, *rest)
    assert ledger.batches == [[0], [1, 2, 3]]


async def test_bounds_by_number_and_weight_but_one_at_least() -> None:
    by_number, by_weight = Ledger(), Ledger()
    group = by_number.group(most_items=2)
    await asyncio.gather(*(group.add(number) for number in range(5)))
    assert by_number.batches == [[0, 1], [2, 3], [4]]
    group = by_weight.group(weigh=lambda number: number, most_weight=10)
    await asyncio.gather(*(group.add(number) for number in (6, 4, 1, 99, 1)))
    assert by_weight.batches == [[6, 4], [1], [99], [1]]


@pytest.mark.parametrize("refused", [{0}, {3, 4}, {0, 7, 9}])
async def test_one_bad_item_fails_only_itself(refused: set[int]) -> None:
    ledger = Ledger(*refused)
    group = ledger.group()
    answers = await asyncio.gather(*(group.add(number) for number in range(10)), return_exceptions=True)
    for number, answer in enumerate(answers):
        assert isinstance(answer, ValueError) if number in refused else answer == str(number)
    assert sorted(number for batch in ledger.batches for number in batch) == sorted(set(range(10)) - refused)


async def test_what_is_nobodys_fault_fails_the_batch_once() -> None:
    ledger = Ledger(3, error=ConnectionError)
    group = ledger.group()
    answers = await asyncio.gather(*(group.add(number) for number in range(10)), return_exceptions=True)
    assert all(isinstance(answer, ConnectionError) for answer in answers)
    assert ledger.begun == 1
    assert await group.add(11) == "11", "the next batch is tried"


async def test_one_who_stops_waiting_changes_nothing_for_the_others() -> None:
    ledger = Ledger()
    group = ledger.group()
    ledger.open.clear()
    futures = [group.add(number) for number in range(3)]
    await asyncio.sleep(0)
    futures[1].cancel()
    ledger.open.set()
    assert (await futures[0], await futures[2]) == ("0", "2")
    assert ledger.batches == [[0, 1, 2]]
