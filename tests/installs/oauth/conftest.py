"""An app that has a plugin with OAuth, and the platform it is for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from fastapi import FastAPI

from app.accounts.service import add_redirect
from app.core.settings import Settings
from app.gateway import Gateway
from app.host.discovery import Loaded, Plugins, discover
from app.main import create_app
from tests.conftest import Driver
from tests.fakes.oauth_provider import CLIENT_ID, CLIENT_SECRET, OAuthProvider
from tests.support import oauth_probe, probe

REDIRECT = "https://driver.example/done?from=metagov"
SIGNING_SECRET = "the app's signing secret"


@pytest.fixture(scope="session")
async def _platform() -> AsyncIterator[OAuthProvider]:
    async with OAuthProvider() as provider:
        yield provider


@pytest.fixture(scope="session")
def plugins(_platform: OAuthProvider) -> Plugins:
    """The crew, the crew as an operator leaves it who set nothing, and the probe, which has no OAuth."""
    found = discover({})
    crew = {
        "api_url": _platform.url,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "signing_secret": SIGNING_SECRET,
    }

    def loaded(manifest: Any, **settings: str) -> Loaded:
        return Loaded(manifest, "tests", "0", manifest.settings.model_validate(settings))

    extra = {
        "crew": loaded(oauth_probe.manifest, **crew),
        "probe": loaded(probe.manifest),
    }
    return replace(found, loaded=MappingProxyType({**found.loaded, **extra}))


@pytest.fixture(scope="session")
async def app(settings: Settings, plugins: Plugins) -> AsyncIterator[FastAPI]:
    """The API with these plugins, its lifespan running."""
    api = create_app(settings, plugins)
    async with api.router.lifespan_context(api):
        yield api


@pytest.fixture
def provider(gateway: Gateway, _platform: OAuthProvider) -> OAuthProvider:
    """The platform, well-behaved."""
    _platform.reset()
    oauth_probe.LOG.clear()
    oauth_probe.BEHAVIOUR.clear()
    return _platform


@dataclass(frozen=True, slots=True)
class Browser:
    """A person's browser: what it visits is in `urls`."""

    gateway: httpx.AsyncClient
    urls: list[str]

    async def authorize(self, plugin: str = "crew", **query: str) -> httpx.Response:
        """Follow a driver's link."""
        answer = await self.gateway.get(f"/auth/{plugin}/authorize", params=query)
        self.urls.append(str(answer.request.url))
        return answer

    async def consent(self, answer: httpx.Response) -> str:
        """Go to the platform and say yes, or what its knobs say; returns where that leads."""
        assert answer.status_code == 303, answer.text
        self.urls.append(answer.headers["location"])
        async with httpx.AsyncClient(trust_env=False) as web:
            consented = await web.get(answer.headers["location"])
        assert consented.status_code == 302
        location: str = consented.headers["location"]
        return location

    async def come_back(self, url: str) -> httpx.Response:
        """Follow the platform's redirect."""
        self.urls.append(url)
        parts = urlsplit(url)
        answer = await self.gateway.get(f"{parts.path}?{parts.query}")
        self.urls.append(answer.headers.get("location", ""))
        return answer

    async def install(self, **query: str) -> dict[str, str]:
        """The whole way; returns the query that the driver's redirect URI gets."""
        wanted = {"redirect_uri": REDIRECT, "community": "town", "state": "s 1", **query}
        there = await self.authorize(**{name: value for name, value in wanted.items() if value})
        back = await self.come_back(await self.consent(there))
        assert back.status_code == 303, back.text
        assert back.headers["location"].startswith(REDIRECT)
        return dict(parse_qsl(urlsplit(back.headers["location"]).query))


@pytest.fixture
def browser(anonymous: httpx.AsyncClient, provider: OAuthProvider) -> Browser:
    """A browser without a key."""
    return Browser(anonymous, [])


@pytest.fixture
async def town(driver: Driver, gateway: Gateway) -> Driver:
    """A driver with a community and a registered redirect URI."""
    await register(gateway, driver, REDIRECT)
    assert (await driver.put("town")).status_code == 201
    return driver


async def register(gateway: Gateway, driver: Driver, uri: str) -> None:
    """As `metagov driver redirect add`."""
    async with gateway.db.begin() as session:
        await add_redirect(session, driver.id, uri)


async def exchange(driver: Driver, code: str, **headers: str) -> httpx.Response:
    """The driver's exchange of a code."""
    return await driver.http.post("/api/internal/oauth/exchange", json={"code": code}, headers=headers)


async def installed(driver: Driver, browser: Browser, **query: str) -> dict[str, Any]:
    """Install and exchange."""
    answer = await exchange(driver, (await browser.install(**query))["code"])
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found
