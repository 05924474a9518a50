"""Supervision seen from outside: a process that supervises, and what becomes of its children."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

SUPERVISOR = r"""
import asyncio, json, os, signal, sys
from app.cli.supervise import Command, run
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it, as nohup does
commands, options = json.loads(sys.argv[1])
tell = lambda word: os.write(1, f"{word}\n".encode())
async def ready():
    return True
options = {"ready": ready, "on_ready": lambda: tell("ready"), "say": tell, **options}
if options.pop("upkeep", False):
    options["upkeep"] = lambda: tell("upkeep")
commands = [Command(name, [sys.executable, "-c", code]) for name, code in commands.items()]
sys.exit(asyncio.run(run(commands, **options)))
"""

POLITE = r"""
import os, signal, sys, time
def leave(number, frame):
    os.write(1, f"{NAME} {signal.Signals(number).name}\n".encode())
    sys.exit(0)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, leave)
os.write(1, f"{NAME} up {os.getpid()}\n".encode())  # one write: children share the pipe
time.sleep(60)
"""
STUBBORN = POLITE.replace("    sys.exit(0)\n", "").replace("time.sleep(60)", "while True: time.sleep(60)")
CRASHING = "import os, sys; os.write(1, b'api up\\n'); sys.exit(3)"


class Supervisor:
    """A running supervisor and the lines that it and its children wrote."""

    def __init__(self, children: dict[str, str], options: dict[str, Any]) -> None:
        commands = {name: f"NAME = {name!r}\n{code}" for name, code in children.items()}
        argv = [sys.executable, "-c", SUPERVISOR, json.dumps([commands, options])]
        self.process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._queue.put(line.strip())
        self._queue.put(None)

    def line(self, start: str) -> str:
        """The next line that begins with `start`."""
        while True:
            line = self._queue.get(timeout=10)
            assert line is not None, f"ended without {start!r}: {self.lines}"
            self.lines.append(line)
            if line.startswith(start):
                return line

    def child(self, name: str) -> int:
        """Process id of the child that says next that it is up."""
        return int(self.line(f"{name} up").split()[-1])

    def finish(self) -> int:
        code = self.process.wait(30)
        while (line := self._queue.get(timeout=30)) is not None:
            self.lines.append(line)
        return code


@pytest.fixture
def supervise() -> Iterator[Callable[..., Supervisor]]:
    started: list[Supervisor] = []

    def start(children: dict[str, str], **options: Any) -> Supervisor:
        started.append(Supervisor(children, {"pause": 0.05, **options}))
        return started[-1]

    yield start
    for supervisor in started:
        supervisor.process.kill()
        supervisor.process.wait()


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_killed_child_is_started_again_and_said_so(supervise: Callable[..., Supervisor]) -> None:
    supervisor = supervise({"api": POLITE})
    first = supervisor.child("api")
    os.kill(first, signal.SIGKILL)
    assert supervisor.line("api was") == "api was killed by SIGKILL; starting it again in 0.05 s."
    assert supervisor.child("api") != first


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_every_child_may_finish_when_told_to_stop(supervise: Callable[..., Supervisor], number: signal.Signals) -> None:
    supervisor = supervise({"api": POLITE, "worker": POLITE})
    up = {line.split()[0]: line.split()[-1] for line in (supervisor.line("") for _ in range(3))}
    assert up.keys() == {"api", "worker", "ready"}
    supervisor.process.send_signal(number)
    assert supervisor.finish() == 0
    assert {"api SIGTERM", "worker SIGTERM"} <= set(supervisor.lines)
    assert gone(int(up["api"]))
    assert gone(int(up["worker"]))


def test_a_terminals_ctrl_c_does_not_reach_the_children(supervise: Callable[..., Supervisor]) -> None:
    supervisor = supervise({"api": POLITE})
    supervisor.child("api")
    os.killpg(supervisor.process.pid, signal.SIGINT)
    assert supervisor.finish() == 0
    assert "api SIGTERM" in supervisor.lines
    assert "api SIGINT" not in supervisor.lines


def test_a_child_that_will_not_stop_is_killed_after_the_grace(supervise: Callable[..., Supervisor]) -> None:
    supervisor = supervise({"api": STUBBORN}, grace=0.3)
    pid = supervisor.child("api")
    supervisor.process.terminate()
    assert supervisor.line("api did not") == "api did not stop within 0.3 s; killing it."
    assert supervisor.finish() == 0
    assert gone(pid)


def test_a_second_ctrl_c_kills_at_once(supervise: Callable[..., Supervisor]) -> None:
    supervisor = supervise({"api": STUBBORN}, grace=60)
    pid = supervisor.child("api")
    supervisor.process.send_signal(signal.SIGINT)
    supervisor.line("api SIGTERM")
    time.sleep(0.4)  # two keystrokes, not one that was passed on twice
    supervisor.process.send_signal(signal.SIGINT)
    assert supervisor.finish() == 0
    assert gone(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="death signals are Linux's")
def test_children_do_not_outlive_a_killed_supervisor(supervise: Callable[..., Supervisor]) -> None:
    supervisor = supervise({"api": STUBBORN})
    pid = supervisor.child("api")
    supervisor.process.kill()
    assert gone(pid)


def test_what_a_dead_child_started_is_ended_with_it(supervise: Callable[..., Supervisor]) -> None:
    code = (
        "import subprocess, sys, time\n"
        "grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(NAME, 'up', grandchild.pid, flush=True)\n"
        "time.sleep(0.2)\nsys.exit(1)"
    )
    supervisor = supervise({"api": code})
    assert gone(supervisor.child("api"))


def test_a_child_that_never_stays_up_ends_everything(supervise: Callable[..., Supervisor]) -> None:
    supervisor = supervise({"api": CRASHING, "worker": POLITE}, patience=3)
    assert supervisor.finish() == 1
    assert supervisor.lines.count("api up") == 3
    assert any(line.startswith("api ended with exit code 3, 3 times in a row") for line in supervisor.lines)
    assert "worker SIGTERM" in supervisor.lines


def test_upkeep_goes_on_while_children_run(supervise: Callable[..., Supervisor]) -> None:
    supervisor = supervise({"api": POLITE}, upkeep=True)
    supervisor.line("upkeep")
    supervisor.line("upkeep")
    supervisor.process.terminate()
    assert supervisor.finish() == 0
