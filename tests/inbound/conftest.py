"""An app that has the plugin of tests/support/signers.py besides the others."""

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
from metagov_sdk.testing import sign_hmac_sha256
from tests.conftest import Driver, new_driver
from tests.support import signers
from tests.support.databases import empty

SECRET = "s3cret"
WHSEC = "whsec_c2VjcmV0IG9mIHRoZSB3ZWJob29rcw=="


@dataclass(frozen=True, slots=True)
class Platform:
    """A platform that posts to communities of one driver."""

    gateway: Gateway
    driver: Driver
    http: httpx.AsyncClient

    async def join(self, slug: str, **config: Any) -> None:
        """Enable the plugin for a community; its label is the community's slug."""
        whole = {"label": slug, "secret": SECRET, "whsec": WHSEC, **config}
        answer = await self.driver.put(slug, plugins=[{"name": "signers", "config": whole}])
        assert answer.is_success, answer.text

    async def post(self, hook: str, body: bytes, headers: dict[str, str], slug: str = "town") -> int:
        """Post to a hook. Returns the status."""
        answer = await self.http.post(f"/api/hooks/{slug}/signers/{hook}", content=body, headers=headers)
        return answer.status_code

    async def tell(self, hook: str, number: int, slug: str = "town", **told: Any) -> None:
        """A webhook by HMAC that is stored."""
        body = httpx.Request("POST", "http://x", json={"number": number, **told}).content
        assert await self.post(hook, body, sign_hmac_sha256(SECRET, body), slug) == 202


@pytest.fixture(scope="session")
async def signers_app(settings: Settings, plugins: Plugins) -> AsyncIterator[FastAPI]:
    loaded = Loaded(signers.manifest, "tests", "0", signers.manifest.settings.model_validate({}))
    api = create_app(settings, replace(plugins, loaded=MappingProxyType({**plugins.loaded, "signers": loaded})))
    async with api.router.lifespan_context(api):
        yield api


@pytest.fixture
async def platform(signers_app: FastAPI) -> AsyncIterator[Platform]:
    """Posts webhooks to an empty gateway; `join` a community first."""
    gateway: Gateway = signers_app.state.gateway
    signers.LOG.clear()
    signers.FAILURES.clear()
    gateway.targets.clear()
    driver = await new_driver(gateway, signers_app, "one")
    transport = httpx.ASGITransport(signers_app, raise_app_exceptions=False)
    async with driver.http, httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as http:
        yield Platform(gateway, driver, http)
    await empty(gateway.db.pool)
