"""Dockerfile, compose file and hooks fit the project, as far as can be told without a container engine."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import click
import pytest
from ruamel.yaml import YAML

from app.core.settings import Settings
from tests.docs.commands import find_command
from tests.docs.pages import ROOT

COMPOSE: dict[str, Any] = YAML(typ="safe", pure=True).load(ROOT / "compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
INSTRUCTIONS = [
    (line.split()[0], line.split(maxsplit=1)[1])
    for line in DOCKERFILE.splitlines()
    if line.strip() and not line.startswith("#")
]
OURS = ("api", "worker", "migrate")


def instructions(kind: str) -> list[str]:
    return [rest for found, rest in INSTRUCTIONS if found == kind]


def copied() -> list[str]:
    """What the build takes from the project."""
    lines = [rest for rest in instructions("COPY") if not rest.startswith("--from")]
    return [source for line in lines for source in line.split()[:-1]]


def parse(arguments: list[str]) -> None:
    """Let the command line read the arguments without running anything. Raises click.UsageError."""
    name, *rest = arguments
    command = find_command(name)
    if command is None:
        raise click.UsageError(f"there is no metagov {name}")
    command.make_context(name, rest)


def test_what_the_image_is_built_from_is_there() -> None:
    assert [source for source in copied() if not (ROOT / source).exists()] == []


def test_what_the_image_is_built_from_is_sent_to_the_builder() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    assert let_in == set(copied())
    assert not any(fnmatch(".env", name) for name in let_in)


def test_the_packages_of_the_project_are_all_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = [*packages, project["project"]["readme"], *project["project"]["license-files"]]
    assert set(needed) <= set(copied())


def test_everything_that_is_downloaded_is_pinned_by_hash() -> None:
    installs = [line for line in instructions("RUN") for line in line.split("&&") if "pip install" in line]
    for line in installs:
        assert "--require-hashes" in line or "--no-index" in line, line


def test_the_build_backend_is_cut_out_of_the_lock_whole(tmp_path: Path) -> None:
    command = next(line for line in instructions("RUN") if line.startswith("awk")).split("&&")[0].split(">")[0]
    cut = subprocess.run(shlex.split(command), cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = re.findall(r"^([a-z-]+)==", cut, re.MULTILINE)
    # hatchling's own requirements; everything of the cut has its hashes with it.
    assert names == ["hatchling", "packaging", "pathspec", "pluggy", "trove-classifiers"]
    assert all(part.count("--hash=sha256:") >= 2 for part in re.split(r"^(?=[a-z])", cut, flags=re.MULTILINE)[1:])


def test_the_image_runs_the_metagov_command_as_nobody_special() -> None:
    assert instructions("ENTRYPOINT") == ['["metagov"]']
    assert instructions("USER") == ["metagov"]
    parse([word.strip(' "') for word in instructions("CMD")[-1].strip("[]").split(",")])
    assert "/healthz" in instructions("HEALTHCHECK")[0]


def test_the_command_starts_with_nothing_but_the_locked_packages(tmp_path: Path) -> None:
    """The image has no embedded servers and no test tools; nothing it runs may import them."""
    script = """
import re, sys
from importlib.metadata import packages_distributions
locked = set(re.findall(r"^([a-z0-9._-]+)==", open("requirements.lock").read(), re.MULTILINE)) | {"metagov-gateway"}
def is_locked(names):
    return any(re.sub(r"[-_.]+", "-", name).lower() in locked for name in names)
absent = {module for module, names in packages_distributions().items() if not is_locked(names)}
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"{name} is not in requirements.lock", name=name)
sys.meta_path.insert(0, Absent())
import click, app.cli, app.main, app.worker
group = app.cli.cli
for name in group.list_commands(click.Context(group)):
    if name != "dev":  # the one that brings servers of its own
        group.get_command(click.Context(group), name)
from app.host.discovery import discover
print(len(absent), [broken.reason for broken in discover({}).broken])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    absent, broken = done.stdout.split(maxsplit=1)
    assert int(absent) > 20
    assert broken.strip() == "[]"


def test_one_image_serves_them_all() -> None:
    assert {SERVICES[name]["image"] for name in OURS} == {"metagov-gateway"}
    assert {SERVICES[name]["build"] for name in OURS} == {"."}


@pytest.mark.parametrize("name", OURS)
def test_its_command_is_one(name: str) -> None:
    parse(SERVICES[name]["command"])


def test_nothing_starts_before_what_it_needs() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            other = SERVICES[needed]
            if how["condition"] == "service_healthy":
                assert "test" in other["healthcheck"], f"{name} waits for {needed}, which has no health check"
            else:
                assert how["condition"] == "service_completed_successfully"
                assert other["restart"] == "no", f"{name} waits for {needed} to end, and it is started for ever"
    for name in ("api", "worker"):
        assert SERVICES[name]["depends_on"].keys() == {"migrate", "postgres", "valkey"}


def test_the_services_find_each_other() -> None:
    for name in OURS:
        environment = SERVICES[name]["environment"]
        assert "@postgres/metagov" in environment["METAGOV_DATABASE_URL"]
        assert environment["METAGOV_REDIS_URL"] == "redis://valkey:6379"
        assert {f"METAGOV_{field.upper()}" for field in Settings.model_fields} >= environment.keys()
    (port,) = SERVICES["api"]["ports"]
    assert port.endswith(":8000")
    assert str(SERVICES["api"]["command"][-1]) == "8000"
    assert "http://api:8000/readyz?verbose" in SERVICES["worker"]["healthcheck"]["test"][-1]
    used = [volume for service in SERVICES.values() for volume in service.get("volumes", ())]
    assert COMPOSE["volumes"].keys() == {volume.split(":")[0] for volume in used}


def test_archives_and_graphs_lie_where_all_processes_see_them() -> None:
    """On a volume, in a folder that the image has made for the user that it runs as."""
    assert any("install --directory --owner metagov /data" in line for line in instructions("RUN"))
    for name in OURS:
        assert SERVICES[name]["volumes"] == ["data:/data"]
        environment = SERVICES[name]["environment"]
        assert environment["METAGOV_ARCHIVE_URL"] == "${METAGOV_ARCHIVE_URL:-file:///data/archives}"
        assert environment["METAGOV_GRAPH_DIR"].startswith("/data/")


def test_a_missing_secret_stops_the_start_with_the_mend() -> None:
    text = (ROOT / "compose.yaml").read_text()
    asked_for = dict(re.findall(r"\$\{(\w+):\?([^}]*)\}", text))
    assert asked_for.keys() == {"METAGOV_SECRET_KEYS", "METAGOV_PUBLIC_URL", "POSTGRES_PASSWORD"}
    assert all(".env.example" in mend for mend in asked_for.values())
    # No value is filled in for them anywhere, and the example has a line for each.
    assert set(re.findall(r"\$\{(\w+)(?!\w|:-)", text)) == asked_for.keys()
    example = (ROOT / ".env.example").read_text().splitlines()
    assert {line.removesuffix("=") for line in example if re.fullmatch(r"\w+=", line)} == asked_for.keys()


def test_the_key_that_the_example_makes_is_one() -> None:
    recipe = re.search(r"openssl rand -base64 32.*", (ROOT / ".env.example").read_text())
    assert recipe
    made = subprocess.run(["bash", "-c", recipe[0]], capture_output=True, text=True, check=True).stdout.strip()
    assert Settings(secret_keys=made).fernet_keys == (made,)


def test_the_worker_is_healthy_when_a_worker_is_heard_of(tmp_path: Path) -> None:
    check = SERVICES["worker"]["healthcheck"]["test"]
    assert check[:3] == ["CMD", "python", "-c"]
    fake = "import io, urllib.request\nurllib.request.urlopen = lambda *_, **__: io.StringIO('{\"workers\": %d}')\n"
    for workers, code in ((1, 0), (0, 1)):
        assert subprocess.run([sys.executable, "-c", fake % workers + check[3]], timeout=20).returncode == code


def test_the_hooks_before_a_commit_download_nothing() -> None:
    config = YAML(typ="safe", pure=True).load(ROOT / ".pre-commit-config.yaml")
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    for hook in config["repos"][0]["hooks"]:
        assert hook["language"] == "system"
        assert (ROOT / shlex.split(hook["entry"])[0]).exists()
