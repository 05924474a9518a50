"""A driver with a community, and the calls of the identity service as it makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.conftest import Driver

BASE = "/api/internal/identity"
SECRET = "the probe's own secret"


@dataclass(frozen=True, slots=True)
class People:
    """The identity service of one community."""

    driver: Driver
    slug: str = "town"

    async def post(self, call: str, **body: Any) -> httpx.Response:
        """POST without the community added."""
        return await self.driver.http.post(f"{BASE}/{call}", json=body)

    async def get(self, call: str, **query: Any) -> httpx.Response:
        """GET without the community added."""
        return await self.driver.http.get(f"{BASE}/{call}", params=query)

    async def create(self, count: int = 1) -> list[str]:
        """New MetagovIDs."""
        answer = await self.post("create_id", community_slug=self.slug, count=count)
        assert answer.status_code == 201, answer.text
        ids: list[str] = answer.json()
        return ids

    async def try_link(self, external_id: str, identifier: str, **more: Any) -> httpx.Response:
        """Link a probe account."""
        body = {"community_slug": self.slug, "platform_type": "probe", "platform_identifier": identifier, **more}
        return await self.post("link_account", external_id=external_id, **body)

    async def link(self, external_id: str, identifier: str, **more: Any) -> dict[str, Any]:
        """Link a probe account, which has to succeed."""
        answer = await self.try_link(external_id, identifier, **more)
        assert answer.status_code == 200, answer.text
        account: dict[str, Any] = answer.json()
        return account

    async def try_unlink(self, identifier: str, **more: Any) -> httpx.Response:
        """Unlink a probe account."""
        body = {"community_slug": self.slug, "platform_type": "probe", "platform_identifier": identifier, **more}
        return await self.post("unlink_account", **body)

    async def merge(self, primary: str, secondary: str) -> httpx.Response:
        """Merge two."""
        return await self.post("merge_ids", primary_instance_id=primary, secondary_instance_id=secondary)

    async def user(self, external_id: str) -> dict[str, Any]:
        """A user, who has to be there."""
        answer = await self.get("get_user", external_id=external_id)
        assert answer.status_code == 200, answer.text
        user: dict[str, Any] = answer.json()
        return user

    async def users(self, **query: Any) -> list[dict[str, Any]]:
        """The community's users."""
        answer = await self.get("get_users", community=self.slug, **query)
        assert answer.status_code == 200, answer.text
        users: list[dict[str, Any]] = answer.json()
        return users

    async def rows(self, table: str) -> int:
        """How many rows a table has."""
        count: int = await self.driver.db.pool.fetchval(f"SELECT count(*) FROM {table}")
        return count


@pytest.fixture
async def people(driver: Driver) -> People:
    """Of the community "town", which has the probe."""
    made = await driver.put(plugins=[{"name": "probe", "config": {"label": "a", "webhook_secret": SECRET}}])
    assert made.status_code == 201
    return People(driver)
