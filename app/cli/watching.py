"""Work that is done while somebody watches: beside running workers or alone, with a bar that shows how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

LOOK_SECONDS = 0.25
"""Between two looks at how far it is."""

Show = Callable[[str, int, int | None], None]
"""Shows the line before the bar, how much is done, and of how much (None: nobody knows)."""


@asynccontextmanager
async def working(do_due: Callable[[], Awaitable[int]]) -> AsyncIterator[None]:
    """Meanwhile, do what is due, as a worker does. `do_due` returns how much there was."""
    task = asyncio.create_task(_keep_doing(do_due))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _keep_doing(do_due: Callable[[], Awaitable[int]]) -> None:
    while True:
        if not await do_due():
            await asyncio.sleep(LOOK_SECONDS)


@contextmanager
def progress_bar(line: str) -> Iterator[Show]:
    """A bar on stderr, which is gone at the end. Until the first call of what it yields it only moves."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(line, total=None)
        yield lambda line, done, total: bar.update(task, completed=done, total=total, description=line)
