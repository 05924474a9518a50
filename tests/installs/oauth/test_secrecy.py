"""No token stands in a URL, in a log or in clear in the database; no code and no state in a log."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx
import pytest

from app.accounts.service import add_redirect, create_driver
from app.core.crypto import Vault
from app.core.db import Database
from app.runtime import calls
from app.runtime.calls import PluginCrashed, ask
from metagov_sdk import Installed, Token
from tests.conftest import make_settings
from tests.fakes.oauth_provider import CLIENT_ID, CLIENT_SECRET, OAuthProvider
from tests.installs.oauth.conftest import REDIRECT, Browser
from tests.support.databases import create_database, drop_database
from tests.support.servers import free_port, stop, wait_ready
from tests.test_secrets import find_in_database

pytestmark = pytest.mark.slow


@dataclass
class Processes:
    """`metagov serve` and `metagov worker` with the crew installed, their output in a file."""

    url: str
    api_key: str
    output: Path
    database_url: str
    platform: OAuthProvider


@pytest.fixture(params=["json", "console"])
async def processes(request: pytest.FixtureRequest, worker_name: str, tmp_path: Path) -> AsyncIterator[Processes]:
    name = f"{worker_name}_oauth_{request.param}"
    settings = make_settings(await create_database(name))
    async with Database(settings) as db, db.begin() as session:
        made = await create_driver(session, Vault(settings.fernet_keys), "server")
        await add_redirect(session, made.id, REDIRECT)
    info = tmp_path / "site" / "crew-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: crew\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[metagov.plugins]\ncrew = tests.support.oauth_probe:manifest\n")
    port = free_port()
    output = tmp_path / "output"
    async with OAuthProvider() as platform:
        environment = {
            **os.environ,
            "PYTHONPATH": f"{info.parent}{os.pathsep}{Path(__file__).parents[3]}",
            "METAGOV_DATABASE_URL": settings.database_url,
            "METAGOV_REDIS_URL": settings.redis_url,
            "METAGOV_SECRET_KEYS": settings.secret_keys.get_secret_value(),
            "METAGOV_PUBLIC_URL": f"http://127.0.0.1:{port}",
            "METAGOV_ALLOW_PRIVATE_NETWORKS": "true",
            "METAGOV_LOG_LEVEL": "debug",
            "METAGOV_LOG_FORMAT": request.param,
            "METAGOV_HANDLER_TIMEOUT": "1",
            "METAGOV_CREW_API_URL": platform.url,
            "METAGOV_CREW_CLIENT_ID": CLIENT_ID,
            "METAGOV_CREW_CLIENT_SECRET": CLIENT_SECRET,
        }
        command = [sys.executable, "-m", "app.cli"]
        with output.open("wb") as file:
            children = [
                subprocess.Popen([*command, *arguments], env=environment, stdout=file, stderr=file)
                for arguments in (["serve", "--port", str(port)], ["worker"])
            ]
            try:
                await wait_ready(f"http://127.0.0.1:{port}")
                yield Processes(f"http://127.0.0.1:{port}", made.api_key, output, settings.database_url, platform)
            finally:
                for child in children:
                    stop(child)
    await drop_database(name)


async def test_no_token_in_a_log_a_url_or_the_database(processes: Processes) -> None:
    """Through installs, logins, refreshes and all that goes wrong on the way."""
    platform = processes.platform
    platform.knobs.lasts = 3600
    headers = {"Authorization": f"Bearer {processes.api_key}", "X-Metagov-Community": "town"}
    fleeting: list[str] = []

    async with (
        httpx.AsyncClient(base_url=processes.url, trust_env=False, timeout=20) as anybody,
        httpx.AsyncClient(base_url=processes.url, headers=headers, trust_env=False, timeout=20) as driver,
    ):
        browser = Browser(anybody, [])

        async def install(**query: str) -> httpx.Response:
            fleeting.append(f"drivers-state-{len(fleeting)}")
            back = await browser.install(state=fleeting[-1], **query)
            fleeting.append(back.get("code", "no code"))
            return await driver.post("/api/internal/oauth/exchange", json={"code": fleeting[-1]})

        assert (await driver.put("/api/internal/community/town", json={})).status_code == 201
        answers = [await install(), await install(type="user"), await install(community="")]
        assert [answer.status_code for answer in answers] == [200] * 3
        answers.append(await driver.post("/api/action/crew.whoami", json={}))
        for knob, value in (("denies", "access_denied"), ("status", 500), ("garbage", True), ("delay", 3.0)):
            setattr(platform.knobs, knob, value)
            assert (await install()).status_code == 404
            setattr(platform.knobs, knob, type(value)())
        platform.knobs.team = "T2"
        assert (await install()).status_code == 404
        platform.knobs.team = "T1"
        await browser.come_back(f"/auth/crew/callback?state={'x' * 90}&code=hidden-code")
        connection = await asyncpg.connect(processes.database_url)
        try:
            await connection.execute("UPDATE credentials SET expires_at = now(), renew_at = now()")
            answers.append(await driver.post("/api/action/crew.whoami", json={}))
            platform.live.clear()
            answers.append(await driver.post("/api/action/crew.whoami", json={}))
            assert [answer.status_code for answer in answers[-2:]] == [200, 200]
            assert platform.refreshes == 2
            platform._refresh.clear()
            platform.live.clear()
            assert (await driver.post("/api/action/crew.whoami", json={})).status_code == 409
            # Statements that fail with tokens among their parameters.
            await connection.execute("ALTER TABLE credentials RENAME COLUMN version TO was_version")
            assert (await install()).status_code == 500
            assert (await driver.post("/api/action/crew.whoami", json={})).status_code in (409, 500, 502)
        finally:
            await connection.close()
    async with asyncio.timeout(10):
        while b"request failed unexpectedly" not in processes.output.read_bytes():
            await asyncio.sleep(0.05)

    urls = [*browser.urls, *(seen.url for seen in platform.requests)]
    verifiers = [parse_qs(seen.body).get("code_verifier", ["none"])[0] for seen in platform.requests]
    states = [value for url in urls for value in parse_qs(urlsplit(url).query).get("state", ()) if len(value) > 80]
    codes = [value for url in urls for value in parse_qs(urlsplit(url).query).get("code", ())]
    tokens = [*platform.issued, CLIENT_SECRET, *(verifier for verifier in verifiers if verifier != "none")]
    assert len(tokens) > 15
    assert len(states) > 5
    assert [secret for secret in tokens if any(secret in url for url in urls)] == []
    assert [secret for secret in tokens if any(secret in answer.text for answer in answers)] == []
    written = processes.output.read_text()
    assert "/auth/crew/callback" in written
    for secret in [*tokens, *states, *codes, *fleeting]:
        assert secret not in written, secret
    async with Database(make_settings(processes.database_url)) as db:
        assert await find_in_database(db.pool, [*tokens, *states, *codes]) == []


async def test_words_of_an_accident_with_tokens_are_not_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[Any] = []

    class Log:
        def error(self, event: str, **fields: object) -> None:
            lines.append((event, fields))

    async def crash() -> None:
        raise ValueError("hidden-token")

    monkeypatch.setattr(calls, "_log", Log())
    with pytest.raises(PluginCrashed) as caught:
        await ask(crash(), seconds=1, what="the exchange", plugin="crew")
    assert "hidden" not in str(caught.value)
    assert caught.value.__suppress_context__
    ((event, fields),) = lines
    assert event == "plugin failed"
    assert fields["error"] == "ValueError"
    assert "hidden" not in str(lines)


def test_what_holds_tokens_does_not_show_them() -> None:
    token = Token("hidden-1", "hidden-2", 60, ("chat",), {"secret": "hidden-3"})
    assert "hidden" not in repr([token, Installed("T1", {}, {"bot": token})])
