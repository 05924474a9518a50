"""Starts a program that cannot outlive the process that started it.

The file is both a module and a script. `command()` returns an argument list that runs this very file with
the same Python; the script then asks the kernel for a death signal, drops root's rights where it was told to,
and becomes the program by `exec`, so process id, standard streams and exit code are the program's own.
A script, and not `preexec_fn`: Python code between fork and exec can deadlock in a process with threads.

The death signal is Linux's `PR_SET_PDEATHSIG` (prctl(2)). It belongs to the *thread* that started the child,
hence the rule that the main thread must. Elsewhere there is none, and the next start clears what was left.

Root with a home nobody else may enter: some servers refuse to run as root, and the user they run as cannot
reach a data directory or a virtual environment under, say, a 0700 home folder. Opening those folders to
everybody would be a cure worse than the disease; instead the program keeps one capability, and only when it
does not get through without: CAP_DAC_READ_SEARCH, or where that is withheld (Docker's default)
CAP_DAC_OVERRIDE, handed over `exec` as an ambient capability (capabilities(7)).
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

UNREACHABLE = 77
"""Exit code of the script when it may not become the user or reach the files; 77 is sysexits' EX_NOPERM."""
PARENT_GONE = 75
"""Exit code of the script when its parent ended before the death signal was set."""

_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_OVERRIDE = 1
_CAP_DAC_READ_SEARCH = 2


def command(
    argv: Sequence[str],
    *,
    death_signal: signal.Signals,
    uid: int | None = None,
    gid: int | None = None,
    cwd: Path | None = None,
) -> list[str]:
    """Argument list that runs `argv` and sends it `death_signal` when the calling process ends.

    With `uid` and `gid` (caller must be root) the program runs as that user. `cwd` is entered as that user.
    Raises RuntimeError off the main thread: the child would get its death signal when that thread ends.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("start servers and child processes from the main thread: they end with their thread")
    spec = {
        "parent": os.getpid(),
        "death_signal": int(death_signal),
        "uid": uid,
        "gid": gid,
        "cwd": None if cwd is None else str(cwd),
    }
    return [sys.executable, "-I", "-S", __file__, json.dumps(spec), *argv]


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapSets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def _prctl(*args: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(*(ctypes.c_ulong(arg) for arg in (*args, 0, 0, 0, 0)[:5])) == 0)


def _keep_capability(capability: int) -> bool:
    """Make one retained capability effective here and ambient for the program; False where it is withheld."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    sets = (_CapSets * 2)()
    if libc.capget(ctypes.byref(header), sets) != 0:
        return False
    sets[0].effective = sets[0].inheritable = 1 << capability
    sets[1].effective = sets[1].inheritable = 0
    if libc.capset(ctypes.byref(header), sets) != 0:
        return False
    return _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)


def _become(uid: int, gid: int) -> None:
    if sys.platform == "linux":
        _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([gid])
    os.setgid(gid)
    os.setuid(uid)


def _execute(spec: dict[str, Any], argv: list[str]) -> None:
    """Become the program, or raise. The death signal is set last: a change of user clears it."""
    if spec["cwd"] is not None:
        os.chdir(spec["cwd"])
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, spec["death_signal"])
    if os.getppid() != spec["parent"]:
        sys.exit(PARENT_GONE)
    os.execvp(argv[0], argv)  # noqa: S606 - argument list made by the gateway, no shell


def _main() -> None:
    spec: dict[str, Any] = json.loads(sys.argv[1])
    argv = sys.argv[2:]
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored_by_python, signal.SIG_DFL)
    try:
        if spec["uid"] is not None:
            _become(spec["uid"], spec["gid"])
        try:
            _execute(spec, argv)
        except PermissionError:
            if spec["uid"] is None or sys.platform != "linux":
                raise
        for capability in (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE):
            if _keep_capability(capability):
                try:
                    _execute(spec, argv)
                except PermissionError:
                    continue
        raise PermissionError(f"user id {spec['uid']} may not reach it, or {spec['cwd']}")
    except OSError as error:
        print(f"cannot start {argv[0]}: {error}", file=sys.stderr)
        sys.exit(UNREACHABLE)


if __name__ == "__main__":
    _main()
