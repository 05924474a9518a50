"""A fake Slack, whose every request is held to Slack's published description; the app with the plugin on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.core.settings import Settings
from app.gateway import Gateway
from app.host.discovery import Loaded, Plugins
from app.main import create_app
from app.worker import Drains, open_drains
from metagov_sdk.testing import Ran, RunningProcess, perform, start_process
from plugins.slack import manifest
from tests.conftest import Driver, PatientDrains, new_driver
from tests.fakes.slack import FakeSlack
from tests.fakes.slack_state import Channel, Team
from tests.support.databases import empty
from tests.support.slack_spec import check_requests, is_wanted

SQUARE = "C0SQUARE"


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    """A fake Slack with one workspace, in which the app is installed and is a member of the square."""
    async with FakeSlack() as fake:
        town = fake.world.team()
        town.channels[SQUARE].members.add(fake.world.install(town).user_id)
        yield fake
        if is_wanted():
            check_requests(fake.requests)


@pytest.fixture
def town(slack: FakeSlack) -> Team:
    """The workspace."""
    return slack.world.team()


@pytest.fixture
def square(town: Team) -> Channel:
    """The channel."""
    return town.channels[SQUARE]


def binding(slack: FakeSlack, transport: httpx.AsyncBaseTransport, **more: Any) -> dict[str, Any]:
    """An instance of the deployment's app, for `metagov_sdk.testing`."""
    team = slack.world.team()
    return {
        "config": {"team_id": team.id},
        "settings": slack.settings(),
        "credentials": {"bot": slack.world.bot(team).token},
        "transport": transport,
        **more,
    }


async def act(slack: FakeSlack, slug: str, params: dict[str, Any], **more: Any) -> Ran:
    """Perform an action against the fake."""
    async with httpx.AsyncHTTPTransport() as transport:
        return await perform(manifest, slug, params, **binding(slack, transport, **more))


@pytest.fixture
async def transport() -> AsyncIterator[httpx.AsyncHTTPTransport]:
    """Real sockets."""
    async with httpx.AsyncHTTPTransport() as opened:
        yield opened


async def open_vote(
    slack: FakeSlack, transport: httpx.AsyncBaseTransport, name: str, params: dict[str, Any], **more: Any
) -> RunningProcess:
    """Start a vote against the fake."""
    return await start_process(manifest, name, params, **binding(slack, transport, **more))


@dataclass(frozen=True, slots=True)
class Town:
    """A community with Slack, in a gateway in this process."""

    driver: Driver
    slack: FakeSlack
    gateway: Gateway
    drains: Drains

    async def process(self, started: httpx.Response) -> dict[str, Any]:
        """A process as its driver sees it."""
        answer = await self.driver.http.get(started.headers["location"], headers={"X-Metagov-Community": "town"})
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    async def events(self, kind: str) -> list[dict[str, Any]]:
        """The events of a source and type, `<source>.<type>`."""
        source, _, event_type = kind.partition(".")
        listed = (await self.driver.get("events", source=source, type=event_type, limit="500")).json()["events"]
        assert isinstance(listed, list)
        return listed


@pytest.fixture
async def slack_app(slack: FakeSlack, settings: Settings, plugins: Plugins) -> AsyncIterator[FastAPI]:
    """The API with the Slack plugin, set for the fake's app."""
    loaded = Loaded(manifest, "tests", "0", manifest.settings.model_validate(slack.settings()))
    with_slack = replace(plugins, loaded=MappingProxyType({**plugins.loaded, "slack": loaded}))
    api = create_app(settings, with_slack)
    async with api.router.lifespan_context(api):
        yield api


@pytest.fixture
async def gate(slack: FakeSlack, slack_app: FastAPI) -> AsyncIterator[Town]:
    """A community whose driver brought an app of its own, by token and signing secret."""
    gateway: Gateway = slack_app.state.gateway
    transport = httpx.ASGITransport(slack_app, raise_app_exceptions=False)
    driver = await new_driver(gateway, slack_app, "one")
    platform = httpx.AsyncClient(transport=transport, base_url="http://gateway.test")
    slack.hooks.client = platform
    slack.hooks.path = "/api/hooks/town/slack"
    async with driver.http, platform, open_drains(gateway) as opened:
        config = {
            "team_id": "T0TOWN",
            "bot_token": slack.world.bot(slack.world.team()).token,
            "signing_secret": slack.world.app.signing_secret,
        }
        put = await driver.put(plugins=[{"name": "slack", "config": config}])
        assert put.status_code == 201, put.text
        yield Town(driver, slack, gateway, PatientDrains(**dict(opened.items()), db=gateway.db))
    await empty(gateway.db.pool)
