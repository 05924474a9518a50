"""Fixtures and words for the tests of processes."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import httpx
import pytest

from app.gateway import Gateway
from tests.conftest import Driver
from tests.support import probe

SECRET = "s"
VOTE = "process/probe.vote"
HEADER = {"X-Metagov-Community": "town"}


@pytest.fixture
async def town(driver: Driver) -> Driver:
    """A driver whose community has the probe and the ballot."""
    plugins = [{"name": "probe", "config": {"label": "a", "webhook_secret": SECRET}}, {"name": "ballot", "config": {}}]
    await driver.put(plugins=plugins)
    probe.LOG.clear()
    return driver


async def cast(platform: httpx.AsyncClient, title: str, voter: str, choice: str, kind: str = "ballot") -> None:
    """A vote by webhook."""
    body = json.dumps({"vote": title, "voter": voter, "choice": choice, "kind": kind}).encode()
    signature = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    answer = await platform.post("/api/hooks/town/probe", content=body, headers={"X-Signature": signature})
    assert answer.status_code == 202


async def state_of(driver: Driver, answer: httpx.Response) -> dict[str, Any]:
    """The process as it is now, by the answer to its start."""
    shown = await driver.http.get(answer.headers["location"], headers=HEADER)
    assert shown.status_code == 200
    process: dict[str, Any] = shown.json()
    return process


async def open_ballot(driver: Driver, **params: Any) -> httpx.Response:
    """A vote that lives in the gateway."""
    started = await driver.post("process/ballot.vote", {"title": "Lunch?", "options": ["yes", "no"], **params})
    assert started.status_code == 202, started.text
    return started


async def vote(driver: Driver, process: str, voter: str, choice: str) -> httpx.Response:
    """A vote by action."""
    return await driver.act("ballot.cast", {"process_id": process, "voter": voter, "choice": choice})


async def make_due(gateway: Gateway) -> None:
    """Have whatever processes wait for come now."""
    await gateway.db.pool.execute("UPDATE processes SET next_at = now(), lease_until = NULL, render_at = NULL")


def counts(outcome: dict[str, Any]) -> dict[str, int]:
    """Votes by option."""
    return {option["option"]: option["count"] for option in outcome["options"]}
