"""A plugin in a package of its own, installed with pip, is simply there; one that breaks is named and stops nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from metagov_sdk.scaffold import write_plugin
from tests.support.servers import Server, run_server

_BROKEN = {
    "pyproject.toml": """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "metagov-plugin-broken"
version = "1.0"
[project.entry-points."metagov.plugins"]
broken = "metagov_plugin_broken:manifest"
""",
    "metagov_plugin_broken/__init__.py": 'raise RuntimeError("the moon is in the wrong house")\n',
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two outside packages, installed by pip: one that works, one that raises at import."""
    folder = tmp_path_factory.mktemp("outside")
    target = folder / "site"
    write_plugin("weather", folder / "weather")
    for name, text in _BROKEN.items():
        path = folder / "broken" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for package in ("weather", "broken"):
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"),
                *("--target", str(target), str(folder / package)),
            ],
            check=True,
            timeout=120,
            capture_output=True,
        )
    return target


@pytest.fixture(scope="module")
async def with_outside(server: Server, installed: Path) -> AsyncIterator[Server]:
    """The gateway with these packages on its path."""
    path = os.pathsep.join(filter(None, [str(installed), os.environ.get("PYTHONPATH", "")]))
    environment = {**server.environment, "PYTHONPATH": path}
    async with run_server(environment, server.api_key, server.signing_secret) as running:
        yield running


def command(installed: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *words], capture_output=True, text=True, env=environment, timeout=60
    )


async def test_it_appears_with_actions_processes_and_operations(with_outside: Server) -> None:
    async with httpx.AsyncClient(
        base_url=with_outside.url,
        headers={"Authorization": f"Bearer {with_outside.api_key}"},
        trust_env=False,
        timeout=20,
    ) as client:
        metadata: dict[str, Any] = (await client.get("/api/internal/plugin/weather/metadata")).json()
        actions = [action["id"] for action in metadata["schemas"]["actions"]]
        processes = [process["id"] for process in metadata["schemas"]["processes"]]
        assert actions
        assert processes
        document = (await client.get("/openapi.json")).json()
        assert f"/api/action/weather.{actions[0]}" in document["paths"]
        assert f"/api/internal/process/weather.{processes[0]}" in document["paths"]
        operations = {item["operationId"] for path in document["paths"].values() for item in path.values()}
        assert any(name.startswith("weather_") for name in operations)


async def test_a_broken_one_is_named_and_the_rest_runs(with_outside: Server) -> None:
    async with httpx.AsyncClient(base_url=with_outside.url, trust_env=False, timeout=20) as client:
        openly = (await client.get("/readyz?verbose")).json()
        assert openly["status"] == "ready"
        assert openly["plugins"]["broken"] == [{"name": "broken"}], "the reason is not for everybody"
        key = {"Authorization": f"Bearer {with_outside.api_key}"}
        told = (await client.get("/readyz?verbose", headers=key)).json()
        assert "the moon is in the wrong house" in told["plugins"]["broken"][0]["reason"]
        assert {"randomness", "github", "sourcecred", "weather"} <= set(told["plugins"]["loaded"])
        rolled = await client.put(
            "/api/internal/community/outside",
            json={"plugins": [{"name": "randomness", "config": {"default_low": 2, "default_high": 2}}]},
            headers=key,
        )
        assert rolled.status_code in (200, 201)


def test_the_command_names_it_with_its_reason(installed: Path) -> None:
    listed = command(installed, "plugins")
    assert listed.returncode == 1
    assert "weather" in listed.stdout
    assert "broken" in listed.stdout
    assert "the moon is in the wrong house" in listed.stdout
    assert "Traceback" not in listed.stdout + listed.stderr


def test_the_document_has_its_operations(installed: Path) -> None:
    printed = command(installed, "openapi")
    assert printed.returncode == 0, printed.stderr
    assert any(path.startswith("/api/action/weather.") for path in json.loads(printed.stdout)["paths"])
