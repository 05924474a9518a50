"""Finds and ends what a killed process left running. Needs psutil, which comes with the `embedded` extra."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

import psutil


def find(program: str, folders: Collection[Path]) -> list[psutil.Process]:
    """Living processes of the name `program` that work in one of `folders`, whatever a pid file says.

    Folders are compared by inode, so a renamed data directory is still recognised, and a process that merely
    got a dead server's number is not.
    """
    wanted = {(status.st_dev, status.st_ino) for status in map(_status, folders) if status is not None}
    found = []
    for process in psutil.process_iter(["name"]) if wanted else ():
        if process.info["name"] == program:
            with suppress(psutil.Error, OSError):
                status = os.stat(process.cwd())
                if (
                    status.st_dev,
                    status.st_ino,
                ) in wanted and _lives(process):
                    found.append(process)
    return found


def end(
    program: str,
    folders: Collection[Path],
    signals: Sequence[signal.Signals],
    *,
    main_pid: int | None = None,
) -> bool:
    """End them, each signal given some seconds to work, SIGKILL last; False if some still live.

    With `main_pid` the first, politest signal goes to that process alone: Postgres' children take SIGINT for
    something else. Raises nothing for processes that end meanwhile.
    """
    for step, patience in zip((*signals, signal.SIGKILL), (5.0, *[2.0] * len(signals)), strict=True):
        processes = find(program, folders)
        if not processes:
            return True
        polite = step == signals[0] and main_pid is not None
        targets = [process for process in processes if not polite or process.pid == main_pid]
        for process in targets:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(step)
        if targets:
            deadline = time.monotonic() + patience
            while any(map(_lives, processes)) and time.monotonic() < deadline:
                time.sleep(0.02)
    return not find(program, folders)


def _lives(process: psutil.Process) -> bool:
    """Whether it runs. An orphan that ended is a zombie until init looks at it, which can take its time."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
