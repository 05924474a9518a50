"""Group commit: what is handed in while one commit is under way makes up the next.

Under load many items share a commit, and one that comes alone waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
_Waiting: TypeAlias = "tuple[ItemT, asyncio.Future[ResultT]]"


class Group(Generic[ItemT, ResultT]):
    """Hands items in batches to `commit`, which answers with one result each, in order, once they are committed.

    At most `at_once` batches are under way: while one waits for the disk, the next is on its way. A batch has at most
    `most_items` and, unless it is one item alone, a weight of at most `most_weight`. When `commit` raises what
    `is_ones_fault` says comes of a single item, the halves of the batch are tried by themselves, and so on: such an
    item fails nobody but itself. Everything else that is raised, all items of the batch raise.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[ItemT]], Awaitable[Sequence[ResultT]]],
        *,
        is_ones_fault: Callable[[Exception], bool],
        at_once: int = 1,
        most_items: int = 256,
        weigh: Callable[[ItemT], int] = lambda _: 0,
        most_weight: int = 0,
    ) -> None:
        self._commit = commit
        self._is_ones_fault = is_ones_fault
        self._at_once = at_once
        self._most_items = most_items
        self._weigh = weigh
        self._most_weight = most_weight
        self._waiting: deque[_Waiting[ItemT, ResultT]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, item: ItemT) -> asyncio.Future[ResultT]:
        """Hand in an item; the future has its result after the commit, or what kept it from being committed."""
        # Kept, because asking for the running loop is a system call each time.
        loop = self._loop = self._loop or asyncio.get_running_loop()
        answer: asyncio.Future[ResultT] = loop.create_future()
        self._waiting.append((item, answer))
        # Counted by the tasks themselves: one that has found nothing left to take is a task for a little longer, but
        # nothing is to be expected of it.
        if self._under_way < self._at_once:
            self._under_way += 1
            task = loop.create_task(self._work_off())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return answer

    async def _work_off(self) -> None:
        try:
            while batch := self._take():
                try:
                    await self._settle(batch)
                except BaseException as error:
                    # Everyone who waits has to hear of it, whatever it is, or would wait for ever.
                    if not isinstance(error, Exception):
                        _fail(batch, ConnectionError("stopped before the commit"))
                        raise
                    _fail(batch, error)
        finally:
            self._under_way -= 1

    def _take(self) -> list[_Waiting[ItemT, ResultT]]:
        """The items that have waited longest: as many as one commit should hold, and at least one."""
        batch: list[_Waiting[ItemT, ResultT]] = []
        weight = 0
        while self._waiting and len(batch) < self._most_items:
            weight += self._weigh(self._waiting[0][0])
            if batch and weight > self._most_weight:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _settle(self, batch: Sequence[_Waiting[ItemT, ResultT]]) -> None:
        try:
            results = await self._commit([item for item, _ in batch])
        except Exception as error:
            if len(batch) == 1 or not self._is_ones_fault(error):
                raise
            middle = len(batch) // 2
            for half in (batch[:middle], batch[middle:]):
                try:
                    await self._settle(half)
                except Exception as failure:
                    _fail(half, failure)
        else:
            for (_, answer), result in zip(batch, results, strict=True):
                if not answer.done():
                    answer.set_result(result)


def _fail(batch: Sequence[_Waiting[ItemT, ResultT]], error: Exception) -> None:
    for _, answer in batch:
        if not answer.done():
            answer.set_exception(error)
