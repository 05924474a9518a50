"""Having a graph built by another process (`app.graphs.child`), and hearing from it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from app.graphs.child import Built, Job

Heard = Callable[[dict[str, Any]], Awaitable[None]]

_LONGEST_LINE = 2**20


class BuildRefused(Exception):
    """It cannot be built as things are: the archive, an input or the configuration has to change."""


class BuildFailed(Exception):
    """It could not be built this time: an archive away, a process that was ended."""


async def build_apart(job: Job, heard: Heard) -> Built:
    """Build in another process; `heard` is told how far it is. Raises BuildRefused, BuildFailed.

    Cut off, it takes that process with it; so does the end of this one.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "app.graphs.child",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
    )
    assert child.stdin is not None  # noqa: S101 -- it is a pipe
    assert child.stdout is not None  # noqa: S101 -- it is a pipe
    try:
        child.stdin.write(json.dumps(job).encode() + b"\n")
        await child.stdin.drain()
        async for line in child.stdout:
            said = json.loads(line)
            if "built" in said:
                built: Built = said["built"]
                return built
            if "wrong" in said:
                raise BuildRefused(said["wrong"])
            if "away" in said:
                raise BuildFailed(said["away"])
            await heard(said["progress"])
    except (ConnectionError, ValueError) as error:
        raise BuildFailed("the process that builds graphs ended before its time") from error
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
    raise BuildFailed("the process that builds graphs ended before its time; was there too little memory?")
