"""The operator's commands, run as processes against a real database."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from app.core.db import Database
from tests.conftest import make_settings
from tests.support.databases import create_database, create_empty, drop_database
from tests.support.servers import Server

Run = Callable[..., subprocess.CompletedProcess[str]]


def metagov(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, "-m", "app.cli", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "200", **environment},
    )
    assert "Traceback" not in result.stderr, result.stderr
    return result


@pytest.fixture(scope="module")
async def environment(worker_name: str) -> AsyncIterator[dict[str, str]]:
    """A migrated database for these commands alone."""
    name = f"{worker_name}_commands"
    settings = make_settings(await create_database(name))
    yield {
        "METAGOV_DATABASE_URL": settings.database_url,
        "METAGOV_REDIS_URL": settings.redis_url,
        "METAGOV_SECRET_KEYS": settings.secret_keys.get_secret_value(),
    }
    await drop_database(name)


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    return lambda *words, **more: metagov({**environment, **more}, *words)


def test_a_driver_from_its_creation_to_a_revoked_key(run: Run) -> None:
    made = run("driver", "create", "alice")
    assert made.returncode == 0
    assert re.search(r"mgk_[\w-]{43}", made.stdout)
    assert re.search(r"whsec_[\w+/]{43}=", made.stdout)
    again = run("driver", "create", "alice")
    assert (again.returncode, again.stdout) == (1, "")
    assert "already" in again.stderr
    key = run("driver", "key", "add", "alice").stdout.strip()
    listed = run("driver", "key", "list", "alice").stdout
    assert key not in listed
    assert listed.count("in force") == 2
    key_id = re.findall(r"key_\w+", listed)[1]
    assert run("driver", "key", "revoke", "alice", key_id).returncode == 0
    assert "revoked" in run("driver", "key", "list", "alice").stdout
    assert run("driver", "key", "revoke", "alice", key_id).returncode == 1
    assert re.search(r"alice.*drv_\w+.*1", run("driver", "list").stdout)


def test_redirect_uris(run: Run) -> None:
    run("driver", "create", "bob")
    uri = "https://driver.example/back"
    assert run("driver", "redirect", "add", "bob", uri).returncode == 0
    assert run("driver", "redirect", "list", "bob").stdout.strip() == uri
    assert "http" in run("driver", "redirect", "add", "bob", "javascript:alert(1)").stderr
    assert run("driver", "redirect", "remove", "bob", uri).returncode == 0
    assert run("driver", "redirect", "list", "bob").stdout == ""
    assert run("driver", "redirect", "list", "nobody").returncode == 1


def test_migrate_twice_changes_nothing(run: Run) -> None:
    assert run("migrate").returncode == 0
    assert run("migrate").returncode == 0


async def test_bind_lets_a_community_name_a_platform_id(server: Server) -> None:
    github = {"name": "github", "config": {"installation_id": 424242}}
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=20) as http:
        http.headers["Authorization"] = f"Bearer {server.api_key}"
        refused = await http.put("/api/internal/community/bound", json={"plugins": [github]})
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["pointer"] == "/plugins/0/config"
        await http.put("/api/internal/community/bound", json={})
        bound = metagov(dict(server.environment), "instance", "bind", "bound", "github", "424242")
        assert bound.returncode == 0, bound.stderr
        accepted = await http.put("/api/internal/community/bound", json={"plugins": [github]})
        assert accepted.status_code == 200
        assert accepted.json()["plugins"][0]["community_platform_id"] == "424242"
    assert metagov(dict(server.environment), "instance", "bind", "nowhere", "github", "1").returncode == 1


def test_doctor_is_content_with_a_running_deployment(server: Server) -> None:
    result = metagov(dict(server.environment), "doctor")
    assert result.returncode == 0, result.stdout
    for word in ("settings", "database", "redis", "keys", "clock", "egress", "plugins", "workers", "secrets", "schema"):
        assert word in result.stdout


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"METAGOV_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}, "check METAGOV_DATABASE_URL"),
        ({"METAGOV_DATABASE_URL": ""}, "METAGOV_DATABASE_URL is not set"),
        ({"METAGOV_REDIS_URL": "redis://127.0.0.1:1"}, "check METAGOV_REDIS_URL"),
        ({"METAGOV_SECRET_KEYS": ""}, "METAGOV_SECRET_KEYS is empty"),
        ({"METAGOV_SECRET_KEYS": "nonsense"}, "not a Fernet key"),
        ({"METAGOV_RETENTION_DAYS": "0"}, "METAGOV_RETENTION_DAYS"),
        ({"METAGOV_EGRESS_ALLOW": "10.0.0.0/99"}, "METAGOV_EGRESS_ALLOW"),
    ],
)
def test_doctor_names_what_is_wrong_and_the_mend(run: Run, change: dict[str, str], says: str) -> None:
    result = run("doctor", **change)
    assert result.returncode == 1
    assert says in result.stdout
    assert "nonsense" not in result.stdout, "a wrong key is still a secret"


async def test_doctor_on_a_database_without_tables(worker_name: str, environment: dict[str, str]) -> None:
    url = await create_empty(f"{worker_name}_bare")
    result = metagov({**environment, "METAGOV_DATABASE_URL": url}, "doctor")
    assert result.returncode == 1
    assert "metagov migrate" in result.stdout
    await drop_database(f"{worker_name}_bare")


@pytest.mark.parametrize("command", ["serve", "worker", "migrate"])
def test_missing_settings_are_named(command: str) -> None:
    result = metagov({"METAGOV_DATABASE_URL": ""}, command)
    assert result.returncode == 1
    assert "METAGOV_DATABASE_URL" in result.stderr
    assert "metagov dev" in result.stderr


def test_an_unusable_setting_is_named(run: Run) -> None:
    result = run("migrate", METAGOV_DATABASE_POOL="none")
    assert result.returncode == 2
    assert "METAGOV_DATABASE_POOL" in result.stderr


def test_plugin_new_writes_a_package(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "mine"
    made = run("plugin", "new", "lottery", "--directory", str(target))
    assert made.returncode == 0, made.stderr
    assert (target / "pyproject.toml").exists()
    assert run("plugin", "new", "lottery", "--directory", str(target)).returncode == 1
    assert run("plugin", "new", "Not A Name", "--directory", str(tmp_path / "x")).returncode == 1


async def test_a_revoked_key_is_useless_at_once(server: Server) -> None:
    environment = dict(server.environment)
    metagov(environment, "driver", "create", "carol")
    key = metagov(environment, "driver", "key", "add", "carol").stdout.strip()
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=20) as http:
        headers = {"Authorization": f"Bearer {key}"}
        assert (await http.get("/api/internal/community", headers=headers)).status_code == 200
        listed = metagov(environment, "driver", "key", "list", "carol").stdout
        metagov(environment, "driver", "key", "revoke", "carol", re.findall(r"key_\w+", listed)[1])
        assert (await http.get("/api/internal/community", headers=headers)).status_code == 401


async def test_secrets_are_readable_only_with_their_key(environment: dict[str, str]) -> None:
    metagov(environment, "driver", "create", "dave")
    other = make_settings(environment["METAGOV_DATABASE_URL"]).secret_keys.get_secret_value()
    result = metagov({**environment, "METAGOV_SECRET_KEYS": other}, "doctor")
    assert "METAGOV_SECRET_KEYS" in result.stdout
    assert result.returncode == 1
    both = {**environment, "METAGOV_SECRET_KEYS": f"{other},{environment['METAGOV_SECRET_KEYS']}"}
    assert "can be read" in metagov(both, "doctor").stdout
    async with Database(make_settings(environment["METAGOV_DATABASE_URL"])) as db:
        sealed = await db.pool.fetchval("SELECT signing_secret FROM drivers WHERE name = 'dave'")
        assert "whsec_" not in sealed
