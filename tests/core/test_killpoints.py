"""Kill points: every one is somewhere in the code, and nothing dies unless a test asks for it by a right name."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

import app
from app.core.killpoints import KillPoint, parse
from app.core.settings import Settings, load_settings

APP = Path(app.__file__).parent
_REACH = """
from app.core import killpoints
from app.core.settings import load_settings
killpoints.arm(load_settings().test_kill_at)
for time in range(3):
    print(time, flush=True)
    for point in killpoints.KillPoint:
        killpoints.reached(point)
"""


def reach_all(setting: str | None) -> tuple[int, int, str]:
    """A process that reaches every point three times: its exit code, the rounds it began, and what it logged."""
    environment = {name: value for name, value in os.environ.items() if name != "METAGOV_TEST_KILL_AT"}
    if setting is not None:
        environment["METAGOV_TEST_KILL_AT"] = setting
    command = [sys.executable, "-c", _REACH]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, cwd=APP.parent)
    rounds = [line for line in ended.stdout.splitlines() if line.isdigit()]
    return ended.returncode, len(rounds), ended.stdout + ended.stderr


def test_every_point_is_reached_at_one_place_in_the_code() -> None:
    called: Counter[str] = Counter()
    for file in APP.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "reached":
                (point,) = node.args
                assert isinstance(point, ast.Attribute), f"{file.name}: a point by its name, so that it can be found"
                called[point.attr] += 1
    assert called == dict.fromkeys(KillPoint.__members__, 1)


def test_every_point_says_what_is_committed_there() -> None:
    assert all(point.value and "\n" not in point.value for point in KillPoint)


def test_nothing_dies_unless_it_is_asked_to() -> None:
    assert Settings.model_fields["test_kill_at"].default == ""
    code, rounds, said = reach_all(None)
    assert (code, rounds) == (0, 3)
    assert "TEST ONLY" not in said


@pytest.mark.parametrize(("setting", "rounds"), [("RECEIPT_HANDLED", 1), ("RECEIPT_HANDLED:3", 3)])
def test_the_process_kills_itself_at_the_point_and_has_said_that_it_will(setting: str, rounds: int) -> None:
    code, begun, said = reach_all(setting)
    assert (code, begun) == (-signal.SIGKILL, rounds)
    assert "TEST ONLY" in said
    assert "METAGOV_TEST_KILL_AT" in said
    assert "kill point reached" in said


def test_a_point_that_is_reached_too_seldom_kills_nothing() -> None:
    assert reach_all("RECEIPT_HANDLED:4")[:2] == (0, 3)


@pytest.mark.parametrize(
    "wanted", ["NONESUCH", "receipt_handled", "RECEIPT_HANDLED:", "RECEIPT_HANDLED:0", "RECEIPT_HANDLED:x", ":1", " "]
)
def test_what_names_no_point_stops_the_start(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    with pytest.raises(ValueError, match="RECEIPT_CLAIMED"):
        parse(wanted)
    monkeypatch.setenv("METAGOV_TEST_KILL_AT", wanted)
    with pytest.raises(ValidationError, match="tests only") as caught:
        load_settings()
    assert [error["loc"] for error in caught.value.errors()] == [("test_kill_at",)]
