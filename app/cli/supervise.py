"""Keeps child processes running until told to stop: what `metagov dev` does with the API and the worker.

```python
code = asyncio.run(run(
    [Command("api", argv, env), Command("worker", argv, env)],
    ready=answers_readyz, on_ready=print_welcome, upkeep=revive_servers,
))
```
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import click

from app.core.embedded import launch

_LONGEST_PAUSE = 10.0
_STEADY_AFTER = 10.0
"""A child that lived this many seconds starts with a clean slate."""
_SAME_KEYPRESS = 0.3
"""`make` and the like can pass on the Ctrl-C the terminal already sent; within these seconds it is one."""


@dataclass(frozen=True, slots=True)
class Command:
    """One child to keep running. `env` is its whole environment; None is ours."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None = None


@dataclass(slots=True)
class _Orders:
    """What the person at the keyboard, or a failure, has decided."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    kill: asyncio.Event = field(default_factory=asyncio.Event)
    failed: bool = False
    _stopped_at: float = 0.0

    def terminate(self) -> None:
        self.stop.set()

    def interrupt(self) -> None:
        now = time.monotonic()
        if not self.stop.is_set():
            self._stopped_at = now
            self.stop.set()
        elif now - self._stopped_at > _SAME_KEYPRESS:
            self.kill.set()


async def run(
    commands: Sequence[Command],
    *,
    grace: float = 8.0,
    ready: Callable[[], Awaitable[bool]] | None = None,
    on_ready: Callable[[], None] | None = None,
    upkeep: Callable[[], None] | None = None,
    say: Callable[[str], None] | None = None,
    pause: float = 0.5,
    patience: int = 5,
) -> int:
    """Run `commands` until SIGINT, SIGTERM or SIGHUP; returns 0 then, 1 when a child would not stay up.

    Children write to our own standard output and error. One that ends is started again after `pause` seconds,
    doubling up to 10 s while it keeps ending early; after `patience` early ends in a row everything is
    stopped. Stopping is SIGTERM, then SIGKILL to those still there after `grace` seconds; a second Ctrl-C is
    SIGKILL at once. Each child leads a session of its own, so a terminal's Ctrl-C reaches us alone and we
    decide the order; on Linux it gets SIGKILL when we die without a word.

    `ready` is asked every 0.2 s until it is true, then `on_ready` is called once. `upkeep` is called about
    every 0.5 s while nothing is being stopped. `say` prints one line for the operator (default: standard
    error). Call it under `asyncio.run` in the main thread. An exception out of a callback kills the children
    and is raised in an exception group.
    """
    say = say or _say
    orders = _Orders()
    helpers: list[asyncio.Task[None]] = []
    async with _signals(orders), asyncio.TaskGroup() as group:
        if ready is not None:
            helpers.append(group.create_task(_announce(ready, on_ready)))
        if upkeep is not None:
            helpers.append(group.create_task(_keep_up(upkeep, orders)))
        for command in commands:
            group.create_task(_Child(command, grace, say, orders).keep_running(pause, patience))
        await orders.stop.wait()
        for helper in helpers:
            helper.cancel()
    return 1 if orders.failed else 0


class _Child:
    """One command, its living process, and the rules it is restarted and stopped by."""

    def __init__(
        self,
        command: Command,
        grace: float,
        say: Callable[[str], None],
        orders: _Orders,
    ) -> None:
        self._command = command
        self._grace = grace
        self._say = say
        self._orders = orders

    async def keep_running(self, pause: float, patience: int) -> None:
        early_ends = 0
        while not self._orders.stop.is_set():
            started = time.monotonic()
            code = await self._run_once()
            if self._orders.stop.is_set():
                return
            early_ends = early_ends + 1 if time.monotonic() - started < _STEADY_AFTER else 1
            ended = f"{self._command.name} {_describe_end(code)}"
            if early_ends >= patience:
                self._say(f"{ended}, {early_ends} times in a row; giving up. Its own lines above say why.")
                self._orders.failed = True
                self._orders.terminate()
                return
            wait = min(_LONGEST_PAUSE, pause * 2 ** (early_ends - 1))
            self._say(f"{ended}; starting it again in {wait:g} s.")
            await _wait(self._orders.stop, wait)

    async def _run_once(self) -> int:
        """Start the process, wait until it ends or is to be stopped, and return its exit code."""
        argv = launch.command(self._command.argv, death_signal=signal.SIGKILL)
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            env=self._command.env,
            start_new_session=True,
        )
        ending = asyncio.create_task(process.wait())
        try:
            await _first(ending, self._orders.stop)
            if not ending.done():
                process.terminate()
                await _first(ending, self._orders.kill, timeout=self._grace)
                if not ending.done() and not self._orders.kill.is_set():
                    self._say(f"{self._command.name} did not stop within {self._grace:g} s; killing it.")
        finally:
            # The whole session goes: what the child started must not hold its port when it is started again.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await ending
        return ending.result()


@asynccontextmanager
async def _signals(orders: _Orders) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    actions = {
        signal.SIGINT: orders.interrupt,
        signal.SIGTERM: orders.terminate,
        signal.SIGHUP: orders.terminate,
    }
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        del actions[signal.SIGHUP]  # under nohup the terminal may go
    for number, action in actions.items():
        loop.add_signal_handler(number, action)
    try:
        yield
    finally:
        for number in actions:
            loop.remove_signal_handler(number)


async def _announce(ready: Callable[[], Awaitable[bool]], on_ready: Callable[[], None] | None) -> None:
    while not await ready():  # noqa: ASYNC110 - it asks another process, which can set no event
        await asyncio.sleep(0.2)
    if on_ready is not None:
        on_ready()


async def _keep_up(upkeep: Callable[[], None], orders: _Orders) -> None:
    while not orders.stop.is_set():
        upkeep()
        await _wait(orders.stop, 0.5)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


async def _first(task: asyncio.Task[int], event: asyncio.Event, timeout: float | None = None) -> None:  # noqa: ASYNC109
    """Return once the task is done, the event is set, or the time is over; cancels no task."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, waiting}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _describe_end(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return "ended by itself" if code == 0 else f"ended with exit code {code}"


def _say(line: str) -> None:
    click.secho(line, fg="yellow", err=True)
