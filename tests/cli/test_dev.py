"""`metagov dev` as a user runs it: real processes, real signals, real kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.servers import free_port

pytestmark = pytest.mark.slow

KEY = "mgk_test_key"
AUTH = {"Authorization": f"Bearer {KEY}", "X-Metagov-Community": "demo"}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data of mine 'ü'"


@contextmanager
def running(data_dir: Path, port: int, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`metagov dev`, ready; whatever is left of it afterwards is killed."""
    command = [sys.executable, "-m", "app.cli", "dev", "--port", str(port), "--data-dir", str(data_dir)]
    process = subprocess.Popen(
        [*command, "--api-key", KEY, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    family: set[psutil.Process] = set()
    try:
        wait_until_ready(process, port)
        family = {psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)}
        yield process
    finally:
        members: list[Any] = [process, *family]
        for member in members:
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                member.kill()
        process.wait(10)
        if process.stdout:
            process.stdout.close()


def wait_until_ready(process: subprocess.Popen[str], port: int, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise TimeoutError("metagov dev did not become ready")


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def put_demo(port: int) -> int:
    body = {
        "readable_name": "Demo",
        "plugins": [{"name": "randomness", "config": {"default_low": 4, "default_high": 4}}],
    }
    url = f"http://127.0.0.1:{port}/api/internal/community/demo"
    return httpx.put(url, json=body, headers=AUTH, trust_env=False).status_code


def roll(port: int) -> object:
    url = f"http://127.0.0.1:{port}/api/action/randomness.random-int"
    return httpx.post(url, json={}, headers=AUTH, trust_env=False).json()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_stops_without_a_trace_and_finds_its_data_again(data_dir: Path, number: signal.Signals) -> None:
    port = free_port()
    with running(data_dir, port) as process:
        assert put_demo(port) == 201
        family = descendants(process)
        assert len(family) >= 4, "API, worker, Postgres, Valkey"
        assert process.stdout
        output = ""
        while "Ctrl-C stops everything" not in output:
            output += process.stdout.readline()
        process.send_signal(number)
        started = time.monotonic()
        assert process.wait(15) == 0
        assert time.monotonic() - started < 10
        _, alive = psutil.wait_procs(family, timeout=2)
        assert alive == []
    assert KEY in output
    assert "whsec_" in output
    assert output.count("curl ") == 3
    with running(data_dir, port):
        assert roll(port) == {"value": 4}


def test_killing_everything_loses_nothing(data_dir: Path) -> None:
    port = free_port()
    with running(data_dir, port) as process:
        assert put_demo(port) == 201
        for member in [*descendants(process), psutil.Process(process.pid)]:
            member.kill()
        process.wait(10)
    with running(data_dir, port):
        assert roll(port) == {"value": 4}


def test_killing_only_the_parent_takes_the_children_along(data_dir: Path) -> None:
    port = free_port()
    with running(data_dir, port) as process:
        assert put_demo(port) == 201
        family = descendants(process)
        process.kill()
        process.wait(10)
        _, alive = psutil.wait_procs(family, timeout=10)
        assert alive == []
    with running(data_dir, port):
        assert roll(port) == {"value": 4}


def test_a_killed_child_is_started_again(data_dir: Path) -> None:
    port = free_port()
    with running(data_dir, port) as process:
        assert put_demo(port) == 201
        for word in ("serve", "worker"):
            for member in descendants(process):
                # One that ends between being listed and being looked at is no longer of interest.
                with suppress(psutil.NoSuchProcess):
                    if word in member.cmdline():
                        member.kill()
        time.sleep(1)
        wait_until_ready(process, port)
        assert roll(port) == {"value": 4}


def test_a_second_one_on_the_same_data_says_so(data_dir: Path) -> None:
    port = free_port()
    with running(data_dir, port):
        second = subprocess.run(
            [sys.executable, "-m", "app.cli", "dev", "--port", str(free_port()), "--data-dir", str(data_dir)],
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert second.returncode == 1
        assert "in use" in second.stderr
        assert "Traceback" not in second.stderr
        assert put_demo(port) == 201


def test_reset_starts_afresh_and_secrets_are_the_owners_alone(data_dir: Path) -> None:
    port = free_port()
    with running(data_dir, port) as process:
        assert put_demo(port) == 201
        process.send_signal(signal.SIGINT)
        process.wait(15)
    assert os.stat(data_dir / "dev.json").st_mode & 0o077 == 0
    with running(data_dir, port, "--reset"):
        assert roll(port) == {
            "type": "about:blank",
            "title": "Bad Request",
            "status": 400,
            "detail": "the header X-Metagov-Community names no community of yours",
        }


def test_seed_and_doctor_on_a_running_server(data_dir: Path) -> None:
    port = free_port()
    with running(data_dir, port):
        seeded = subprocess.run(
            [sys.executable, "-m", "app.cli", "seed", "--url", f"http://127.0.0.1:{port}", "--data-dir", str(data_dir)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert seeded.returncode == 0, seeded.stderr
        assert "rolled" in seeded.stdout
