"""A plugin that hears that its app was uninstalled takes its instance out of use."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.gateway import Gateway
from app.worker import Drains, open_drains
from metagov_sdk.testing import sign_hmac_sha256
from tests.conftest import Driver, PatientDrains
from tests.runtime.platform import post_hook

HEADER = {"X-Metagov-Community": "town"}


@pytest.fixture
async def paced_drains(paced_gateway: Gateway) -> AsyncIterator[Drains]:
    """The worker's queues."""
    async with open_drains(paced_gateway) as opened:
        yield PatientDrains(**dict(opened.items()), db=paced_gateway.db)


async def uninstall(app: FastAPI, reason: str) -> None:
    """What the platform posts."""
    await post_hook(app, {"reason": reason})


async def state_of(gateway: Gateway) -> tuple[str, int]:
    """The instance's status and generation."""
    row = await gateway.db.pool.fetchrow("SELECT status, generation FROM instances WHERE plugin = 'paced'")
    return row["status"], row["generation"]


async def reasons(driver: Driver) -> list[str]:
    """Why instances were taken out of use, as the log says it."""
    events = (await driver.get("events")).json()["events"]
    return [event["data"]["reason"] for event in events if event["event_type"] == "instance.disabled"]


async def test_the_instance_is_disabled_once_and_can_be_revived(
    town: Driver, paced_app: FastAPI, paced_drains: Drains, paced_gateway: Gateway
) -> None:
    await uninstall(paced_app, "the app was uninstalled")
    await uninstall(paced_app, "its tokens were revoked")
    await paced_drains.until_idle()
    assert await state_of(paced_gateway) == ("disabled", 2)
    assert await reasons(town) == ["the app was uninstalled"]
    assert (await town.act("paced.ask")).status_code == 404, "it is out of use"
    instance_id = await paced_gateway.db.pool.fetchval("SELECT id FROM instances WHERE plugin = 'paced'")
    path = f"/api/internal/plugin/paced/{instance_id}"
    revived = await town.http.patch(path, json={"enabled": True}, headers=HEADER)
    assert revived.status_code == 200, revived.text
    assert (await town.act("paced.ask")).status_code == 200


@contextlib.contextmanager
def before_the_commit(gateway: Gateway, statement: str) -> Iterator[None]:
    """Have an SQL statement run between the end of a handler and the commit of what it asked for."""
    bind = gateway.host.bind

    def bind_late(*args: Any, **named: Any) -> Any:
        plugin = bind(*args, **named)
        receive = plugin.receive  # type: ignore[attr-defined]  # the plugin of these tests

        async def receive_late(request: Any) -> None:
            await receive(request)
            await gateway.db.pool.execute(statement)

        plugin.receive = receive_late  # type: ignore[attr-defined]  # as above
        return plugin

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gateway.host, "bind", bind_late)
        yield


async def test_a_late_word_about_the_install_before_changes_nothing(
    town: Driver, paced_app: FastAPI, paced_drains: Drains, paced_gateway: Gateway
) -> None:
    with before_the_commit(paced_gateway, "UPDATE instances SET generation = generation + 1"):
        await uninstall(paced_app, "the app was uninstalled")
        await paced_drains.until_idle()
    assert await paced_gateway.db.pool.fetchval("SELECT status FROM receipts") == "done"
    assert await state_of(paced_gateway) == ("enabled", 2)
    assert await reasons(town) == []


async def test_an_instance_whose_credentials_were_refused_meanwhile_is_disabled_all_the_same(
    town: Driver, paced_app: FastAPI, paced_drains: Drains, paced_gateway: Gateway
) -> None:
    refused = "UPDATE instances SET status = 'needs_auth', generation = generation + 1"
    with before_the_commit(paced_gateway, refused):
        await uninstall(paced_app, "the app was uninstalled")
        await paced_drains.until_idle()
    assert await state_of(paced_gateway) == ("disabled", 3)
    assert await reasons(town) == ["the app was uninstalled"]


async def test_processes_are_paused_and_go_on_as_after_any_disabling(
    driver: Driver, anonymous: httpx.AsyncClient, drains: Drains
) -> None:
    await driver.put(plugins=[{"name": "probe", "config": {"label": "a", "webhook_secret": "s"}}])
    started = await driver.post("process/probe.vote", {"title": "V1", "seconds": 0.5})
    await drains.until_idle()
    for body in ({"vote": "V1", "voter": "ann", "choice": "yes"}, {"disable": "the app was uninstalled"}):
        raw = json.dumps(body).encode()
        headers = sign_hmac_sha256("s", raw, header="X-Signature")
        await anonymous.post("/api/hooks/town/probe", content=raw, headers=headers)
    await drains.receipts()
    await asyncio.sleep(0.6)
    await drains.until_idle()
    location = started.headers["location"]
    paused = (await driver.http.get(location, headers=HEADER)).json()
    assert (paused["status"], paused["outcome"]["votes"]) == ("pending", {}), "signals and timers wait"
    instance_id = await driver.db.pool.fetchval("SELECT id FROM instances WHERE plugin = 'probe'")
    await driver.http.patch(f"/api/internal/plugin/probe/{instance_id}", json={"enabled": True}, headers=HEADER)
    await drains.until_idle()
    revived = (await driver.http.get(location, headers=HEADER)).json()
    assert (revived["status"], revived["outcome"]["votes"]) == ("completed", {"ann": "yes"})
