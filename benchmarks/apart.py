"""What is measured in a process of its own, and both ends of the pipes to it.

It gets a job, a line of JSON, and answers with lines of JSON: `{"say": …}` while it works, `{"found": …}` at its end.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any


def measure_apart(
    module: str, job: Mapping[str, Any], environment: Mapping[str, str], show: Callable[[str], None]
) -> dict[str, Any]:
    """Run a module on a job, and show what it says of its progress. Raises RuntimeError when it ends without result."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", module]
    with subprocess.Popen(command, env=dict(environment), stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.close()
        for line in process.stdout:
            said: dict[str, Any] = json.loads(line)
            if "found" in said:
                found: dict[str, Any] = said["found"]
                return found
            show(said["say"])
    raise RuntimeError("the probe ended; its reason is on stderr")


def read_job() -> dict[str, Any]:
    """In that process: what to do."""
    job: dict[str, Any] = json.loads(sys.stdin.readline())
    return job


def say(what: str) -> None:
    """In that process: how far it is."""
    print(json.dumps({"say": what}), flush=True)


def answer(found: Mapping[str, Any]) -> None:
    """In that process: what came out; the last line."""
    print(json.dumps({"found": found}), flush=True)
