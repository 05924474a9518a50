"""Secrets come back masked, and stand in clear neither in the database nor in a log nor in an error."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from pydantic import Field, SecretStr, ValidationError

from app.accounts.service import NewDriver, create_driver
from app.core.crypto import MASK, Vault
from app.core.db import Database, Pool
from app.core.errors import Invalid
from app.gateway import Gateway
from app.host.binding import InstanceData
from app.host.config import check_config, masked, secret_fields
from app.installs.plan import Wanted
from metagov_sdk import Config, Model
from tests.conftest import Driver, make_settings
from tests.support.databases import create_database, drop_database
from tests.support.probe import ProbeConfig
from tests.support.problems import pointers, problem
from tests.support.servers import free_port, stop, wait_ready
from tests.support.sink import Sink

SECRETS = ["first-hidden-0001", "second-hidden-0002", "third-hidden-0003"]
CONFIG = {"label": "a", "token": SECRETS[0], "secrets": SECRETS[1:], "webhook_secret": "hook-hidden-0004"}
SHOWN = {"label": "a", "token": MASK, "secrets": [MASK, MASK], "webhook_secret": MASK}


async def find_in_database(pool: Pool, secrets: list[str]) -> list[str]:
    """`table.column` of every value, of whatever type, that holds one of the secrets."""
    tables = await pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert len(tables) > 10
    found = []
    for (table,) in tables:
        for row in await pool.fetch(f'SELECT * FROM "{table}"'):
            for column, value in row.items():
                stored = value if isinstance(value, bytes) else str(value).encode()
                found += [f"{table}.{column}: {secret}" for secret in secrets if secret.encode() in stored]
    return found


async def stored_secrets(gateway: Gateway) -> Any:
    return gateway.vault.open(await gateway.db.pool.fetchval("SELECT secrets FROM instances"))


async def test_masked_in_every_answer(driver: Driver) -> None:
    put = await driver.put(plugins=[{"name": "probe", "config": CONFIG}])
    (instance,) = put.json()["plugins"]
    answers = [
        put,
        await driver.http.get("/api/internal/community"),
        await driver.http.get("/api/internal/community/town"),
        await driver.get("plugin"),
        await driver.get(f"plugin/probe/{instance['id']}"),
        await driver.post("plugin/probe", CONFIG),
        await driver.http.patch(
            f"/api/internal/plugin/probe/{instance['id']}",
            json={"config": {"token": SECRETS[0]}},
            headers={"X-Metagov-Community": "town"},
        ),
    ]
    for answer in answers:
        assert answer.status_code in (200, 201)
        assert "hidden" not in answer.text
        assert MASK in answer.text
    assert instance["config"] == SHOWN


async def test_sending_the_mask_back_keeps_the_secret(driver: Driver, gateway: Gateway) -> None:
    await driver.put(plugins=[{"name": "probe", "config": CONFIG}])
    before = await stored_secrets(gateway)
    shown = (await driver.get("plugin")).json()["plugins"][0]["config"]
    await driver.put(plugins=[{"name": "probe", "config": {**shown, "label": "b"}}])
    assert await stored_secrets(gateway) == before
    await driver.post("plugin/probe", {**shown, "secrets": [MASK, "new", MASK][:2]})
    assert await stored_secrets(gateway) == {**before, "secrets": [SECRETS[1], "new"]}
    await driver.post("plugin/probe", {**shown, "token": "changed"})
    assert (await stored_secrets(gateway))["token"] == "changed"
    del shown["webhook_secret"]
    await driver.post("plugin/probe", shown)
    assert "webhook_secret" not in await stored_secrets(gateway), "what a PUT leaves out is gone"


async def test_a_mask_of_nothing_is_refused(driver: Driver) -> None:
    answer = await driver.put(plugins=[{"name": "probe", "config": {"label": "a", "token": MASK}}])
    assert pointers(answer) == ["/plugins/0/config/token"]
    await driver.put(plugins=[{"name": "probe", "config": CONFIG}])
    answer = await driver.post("plugin/probe", {"label": "a", "secrets": [MASK, MASK, MASK]})
    assert pointers(answer) == ["/secrets/2"]


@pytest.mark.parametrize(
    "config",
    [
        {"label": "a", "token": {"hidden": "hidden"}},
        {"label": "a", "token": ["hidden"]},
        {"label": "a", "secrets": "hidden"},
        {"label": "a", "secrets": [["hidden"]]},
        {"label": {"hidden": 1}, "token": "hidden"},
        {"token": "hidden"},
    ],
)
async def test_errors_do_not_repeat_what_was_sent(driver: Driver, config: dict[str, Any]) -> None:
    for answer in (
        await driver.put(plugins=[{"name": "probe", "config": config}]),
        await driver.http.post("/api/internal/community", json={"plugins": [{"name": "probe", "config": config}]}),
    ):
        problem(answer, 422)
        assert "hidden" not in answer.text
    await driver.put()
    answer = await driver.post("plugin/probe", config)
    problem(answer, 422)
    assert "hidden" not in answer.text


async def test_nothing_in_clear_in_the_database(driver: Driver, gateway: Gateway, sink: Sink) -> None:
    await driver.put(plugins=[{"name": "probe", "config": CONFIG}])
    endpoint = await driver.http.post(
        "/api/internal/driver/endpoints", json={"url": sink.url}, headers={"Idempotency-Key": "k"}
    )
    await driver.act("probe.echo", {"text": "hello"})
    secrets = [*SECRETS, "hook-hidden-0004", driver.api_key, driver.signing_secret, endpoint.json()["secret"]]
    assert await find_in_database(gateway.db.pool, secrets) == []
    assert await find_in_database(gateway.db.pool, ["hello"]) != [], "the search finds what is there"


class Nested(Model):
    user: str
    password: SecretStr


class NestedConfig(Config):
    open: str
    login: Nested | None = None
    logins: list[Nested] = Field(default_factory=list)
    by_name: dict[str, SecretStr] | None = None


def test_secrets_inside_other_values() -> None:
    assert secret_fields(NestedConfig) == {"login", "logins", "by_name"}
    sent = {
        "open": "o",
        "login": {"user": "u", "password": "p1"},
        "logins": [{"user": "v", "password": "p2"}],
        "by_name": {"x": "p3"},
    }
    checked = check_config(NestedConfig, sent, {}, ())
    assert checked.plain == {"open": "o"}
    shown = masked(checked.plain, checked.secrets)
    assert shown == {
        "open": "o",
        "login": {"user": MASK, "password": MASK},
        "logins": [{"user": MASK, "password": MASK}],
        "by_name": {"x": MASK},
    }
    again = check_config(NestedConfig, shown, checked.secrets, ())
    assert again.secrets == checked.secrets
    changed = check_config(NestedConfig, {**shown, "login": {"user": "w", "password": MASK}}, checked.secrets, ())
    assert changed.secrets["login"] == {"user": "w", "password": "p1"}
    with pytest.raises(Invalid) as caught:
        check_config(NestedConfig, {**shown, "by_name": {"y": MASK}}, checked.secrets, ("config",))
    assert [error.pointer for error in caught.value.errors] == ["/config/by_name/y"]
    for value in (checked, again):
        assert "p1" not in repr(value)


def test_what_holds_secrets_does_not_show_them() -> None:
    """Exceptions carry such values, and a traceback prints what an exception carries."""
    data = InstanceData("i", "probe", "c", "town", "d", "", 1, "enabled", {}, {"token": "hidden"}, 1, None, 0)
    wanted = Wanted("probe", {"token": "hidden"}, None)
    made = NewDriver("d", "one", "mgk_hidden", "whsec_hidden")
    assert "hidden" not in repr([data, wanted, made])
    with pytest.raises(ValidationError) as caught:
        ProbeConfig.model_validate({"token": ["hidden"], "secrets": "hidden"})
    assert "hidden" not in str(caught.value)


def test_tracebacks_show_no_local_variables() -> None:
    code = (
        "import structlog\n"
        "from app.core.log import configure_logging\n"
        "from app.core.settings import Settings\n"
        "configure_logging(Settings(log_format='console'))\n"
        "def crash():\n"
        "    local = 'hid' + 'den'\n"
        "    raise RuntimeError('boom')\n"
        "try:\n"
        "    crash()\n"
        "except RuntimeError:\n"
        "    structlog.get_logger('x').exception('failed')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert "boom" in done.stderr
    assert "hidden" not in done.stderr + done.stdout


@dataclass
class Processes:
    """`metagov serve` and `metagov worker` with the probe installed, their output in a file."""

    url: str
    api_key: str
    output: Path
    secrets: list[str]
    database_url: str


@pytest.fixture(params=["json", "console"])
async def processes(request: pytest.FixtureRequest, worker_name: str, tmp_path: Path) -> AsyncIterator[Processes]:
    name = f"{worker_name}_secrets"
    settings = make_settings(await create_database(name))
    async with Database(settings) as db, db.begin() as session:
        made = await create_driver(session, Vault(settings.fernet_keys), "server")
    # A plugin from outside is found by its distribution's entry points.
    info = tmp_path / "site" / "probe-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: probe\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[metagov.plugins]\nprobe = tests.support.probe:manifest\n")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{info.parent}{os.pathsep}{Path(__file__).parents[1]}",
        "METAGOV_DATABASE_URL": settings.database_url,
        "METAGOV_REDIS_URL": settings.redis_url,
        "METAGOV_SECRET_KEYS": settings.secret_keys.get_secret_value(),
        "METAGOV_ALLOW_PRIVATE_NETWORKS": "true",
        "METAGOV_LOG_LEVEL": "debug",
        "METAGOV_LOG_FORMAT": request.param,
        "METAGOV_PROBE_WEBHOOK_SECRET": "deployment-hidden-0005",
        "METAGOV_METRICS_TOKEN": "metrics-hidden-0006",
    }
    port = free_port()
    output = tmp_path / "output"
    command = [sys.executable, "-m", "app.cli"]
    with output.open("wb") as file:
        children = [
            subprocess.Popen([*command, *arguments], env=environment, stdout=file, stderr=file)
            for arguments in (["serve", "--port", str(port)], ["worker"])
        ]
        try:
            await wait_ready(f"http://127.0.0.1:{port}")
            known = [made.api_key, made.signing_secret, settings.secret_keys.get_secret_value()]
            known += ["deployment-hidden-0005", "metrics-hidden-0006"]
            yield Processes(f"http://127.0.0.1:{port}", made.api_key, output, known, settings.database_url)
        finally:
            for child in children:
                stop(child)
    await drop_database(name)


async def test_no_secret_in_the_logs_of_real_processes(processes: Processes, sink: Sink) -> None:
    """Through success, refusal and crash, in API and worker."""
    secrets = [*processes.secrets, *SECRETS, "hook-hidden-0004", "wrong-hidden-0007"]
    headers = {"Authorization": f"Bearer {processes.api_key}", "X-Metagov-Community": "town"}
    async with httpx.AsyncClient(base_url=processes.url, headers=headers, trust_env=False, timeout=20) as http:
        town = "/api/internal/community/town"
        made = await http.put(town, json={"readable_name": "t", "plugins": [{"name": "probe", "config": CONFIG}]})
        assert made.status_code == 201, made.text
        wrong = {"plugins": [{"name": "probe", "config": {"token": ["wrong-hidden-0007"]}}]}
        problem(await http.put(town, json=wrong), 422)
        for key in ("wrong-hidden-0007", "mgk_wrong-hidden-0007"):
            problem(await http.get(town, headers={"Authorization": f"Bearer {key}"}), 401)
        problem(await http.get("/metrics", headers={"Authorization": "Bearer wrong-hidden-0007"}), 401)
        assert (await http.get("/metrics", headers={"Authorization": "Bearer metrics-hidden-0006"})).status_code == 200
        endpoint = await http.post("/api/internal/driver/endpoints", json={"url": sink.url})
        secrets.append(endpoint.json()["secret"])
        started = await http.post("/api/internal/process/probe.vote", json={"title": "q", "callback_url": sink.url})
        assert started.status_code == 202
        # A vote without a voter makes the plugin's code crash, in the worker.
        body = json.dumps({"text": "news", "vote": "q"}).encode()
        signed = {"X-Signature": "sha256=" + hmac.new(b"hook-hidden-0004", body, hashlib.sha256).hexdigest()}
        assert (await http.post("/api/hooks/town/probe", content=body, headers=signed)).status_code == 202
        forged = {"X-Signature": "sha256=" + hmac.new(b"x", body, hashlib.sha256).hexdigest()}
        problem(await http.post("/api/hooks/town/probe", content=body, headers=forged), 401)
        async with asyncio.timeout(15):
            while b"ZeroDivision" not in (text := processes.output.read_bytes()) and b"KeyError" not in text:
                await asyncio.sleep(0.05)
        # Statements that fail, with configs among their parameters; and a config that its schema no longer takes.
        connection = await asyncpg.connect(processes.database_url)
        try:
            await connection.execute("UPDATE instances SET config = '{}'")
            problem(await http.post("/api/action/probe.count", json={}), 409, "parked")
            await http.post("/api/hooks/town/probe", content=b"{}", headers=signed)
            await connection.execute("ALTER TABLE instances DROP COLUMN config_version")
            crash = await http.put(town, json={"plugins": [{"name": "probe", "config": {**CONFIG, "label": "b"}}]})
            problem(crash, 500)
        finally:
            await connection.close()
    written = processes.output.read_text()
    assert "request failed unexpectedly" in written
    assert [secret for secret in secrets if secret in written] == []
    async with Database(make_settings(processes.database_url)) as db:
        assert await find_in_database(db.pool, secrets) == []
