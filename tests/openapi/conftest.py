"""The document, with and without plugins from outside, and clients generated from it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography.fernet import Fernet

from app.core.settings import Settings
from app.host.discovery import Plugins
from app.main import create_app
from tests.openapi.samples import town, with_plugins
from tests.openapi.twin import twin

Document = dict[str, Any]
Generate = Callable[[Document, str], ModuleType]


def describe(plugins: Plugins) -> Document:
    """The document of an API with these plugins, as a client reads it."""
    api = create_app(Settings(secret_keys=Fernet.generate_key().decode(), log_level="error"), plugins)
    document: Document = json.loads(json.dumps(api.openapi()))
    return document


@pytest.fixture(scope="session")
def document() -> Document:
    """With the first-party plugins."""
    return describe(with_plugins())


@pytest.fixture(scope="session")
def wide_document() -> Document:
    """With two plugins from outside whose names collide wherever they can."""
    return describe(with_plugins(town, twin))


@pytest.fixture
def generate_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Generate]:
    """Generates a Python client as a package of the given name, and imports it. Any warning fails."""

    def generate(document: Document, package: str) -> ModuleType:
        (tmp_path / "openapi.json").write_text(json.dumps(document))
        (tmp_path / "config.json").write_text(json.dumps({"package_name_override": package}))
        command = [sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning"]
        files = ["--path", "openapi.json", "--config", "config.json", "--output-path", "client"]
        # The generator formats what it writes with the ruff that it finds on the path.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        run = subprocess.run(
            [*command, *files],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        assert "arning" not in run.stdout + run.stderr
        monkeypatch.syspath_prepend(str(tmp_path / "client"))
        return importlib.import_module(package)

    yield generate
    for name in [name for name in sys.modules if name.startswith("generated_")]:
        del sys.modules[name]
