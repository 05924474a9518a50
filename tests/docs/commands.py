"""Running what the pages show, the way a reader would."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from app.cli import cli
from tests.docs.pages import ROOT
from tests.support.servers import Server


@dataclass(frozen=True, slots=True)
class Finished:
    """What a command left behind; `output` is everything it printed."""

    code: int
    output: str


async def run(
    *command: str, variables: Mapping[str, str] | None = None, cwd: Path = ROOT, stdin: str = "", seconds: float = 90
) -> Finished:
    """Run a command to its end, while this process goes on serving. Raises TimeoutError."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={**_outside(), **(variables or {})},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(stdin.encode()), seconds)
    except TimeoutError:
        # With whatever it left running in the background.
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    return Finished(process.returncode or 0, output.decode())


async def run_shell(script: str, variables: Mapping[str, str] | None = None, cwd: Path = ROOT) -> Finished:
    """Feed a script to bash line by line, stopping at the first that fails."""
    return await run("bash", "-euo", "pipefail", variables=variables, cwd=cwd, stdin=script)


def shell_names(server: Server) -> dict[str, str]:
    """What `examples/env.sh` sets."""
    return {"URL": server.url, "KEY": server.api_key, "SECRET": server.signing_secret}


def program_names(server: Server) -> dict[str, str]:
    """What the example programs read."""
    return {
        "METAGOV_URL": server.url,
        "METAGOV_API_KEY": server.api_key,
        "METAGOV_SIGNING_SECRET": server.signing_secret,
    }


def find_command(*names: str) -> click.Command | None:
    """The `metagov` command of these names; None when there is none."""
    found: click.Command | None = cli
    for name in names:
        found = found.get_command(click.Context(found), name) if isinstance(found, click.Group) else None
    return found


def _outside() -> Mapping[str, str]:
    """The environment without settings of the gateway, and without proxies that would stand between us and loopback."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith("METAGOV_") and not name.upper().endswith("_PROXY")
    }
