"""Installing the deployment's app in a server, from the driver's link to a vote; what strangers make of it."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from app.accounts.service import add_redirect
from app.gateway import Gateway
from app.worker import Drains
from tests.conftest import Driver
from tests.fakes.discord import FakeDiscord
from tests.fakes.discord_world import Guild

REDIRECT = "https://driver.example/done"


@pytest.fixture
async def garden(driver: Driver, gateway: Gateway) -> Driver:
    """A driver with an empty community and a registered redirect URI."""
    async with gateway.db.begin() as session:
        await add_redirect(session, driver.id, REDIRECT)
    assert (await driver.put("town")).status_code == 201
    return driver


async def come_back(anonymous: httpx.AsyncClient, kind: str = "app") -> dict[str, str]:
    """A person's way: the driver's link, Discord's page, the gateway, the driver. The query that the driver gets."""
    query = {"redirect_uri": REDIRECT, "community": "town", "type": kind, "state": "s1"}
    there = await anonymous.get("/auth/discord/authorize", params=query)
    assert there.status_code == 303, there.text
    async with httpx.AsyncClient(trust_env=False) as web:
        consented = await web.get(there.headers["location"])
    back = urlsplit(consented.headers["location"])
    done = await anonymous.get(f"{back.path}?{back.query}")
    assert done.status_code == 303, done.text
    landed = urlsplit(done.headers["location"])
    assert f"{landed.scheme}://{landed.netloc}{landed.path}" == REDIRECT
    return dict(parse_qsl(landed.query))


async def exchange(driver: Driver, code: str) -> httpx.Response:
    return await driver.http.post("/api/internal/oauth/exchange", json={"code": code})


async def test_from_the_link_to_a_vote(
    garden: Driver, anonymous: httpx.AsyncClient, drains: Drains, discord: FakeDiscord
) -> None:
    guild = discord.add_guild("Garden", present=False)
    ada = discord.oauth.user = discord.add_user("ada")
    discord.oauth.guild = guild
    landed = await come_back(anonymous)
    assert (landed["state"], landed["community"]) == ("s1", "town")
    assert (await garden.get("plugin")).json()["plugins"] == [], "nothing is enabled before the exchange"
    answer = await exchange(garden, landed["code"])
    assert answer.status_code == 200, answer.text
    installed: dict[str, Any] = answer.json()
    assert installed["community_platform_id"] == str(guild.id)
    assert installed["user"]["user_id"] == str(ada.id)
    (instance,) = (await garden.get("plugin")).json()["plugins"]
    assert (instance["status"], instance["config"]) == ("enabled", {"guild_id": str(guild.id)})
    channel = next(iter(guild.channels))
    started = await garden.post("process/discord.vote", {"title": "?", "poll_type": "boolean", "channel": str(channel)})
    assert started.status_code == 202, started.text
    (message,) = discord.messages(guild)
    assert discord.sent("POST", "/messages")[0].headers["authorization"] == f"Bot {discord.bot_token}"
    click = discord.interactions.click(guild, message, message.custom_ids[0], ada)
    assert (await discord.interactions.send(anonymous, "/api/hooks/discord", click)).status_code == 200
    await drains.until_idle()
    assert len((await garden.get("receipts")).json()["receipts"]) == 1
    assert discord.oauth.tokens == {}
    rows = await garden.db.pool.fetch("SELECT name FROM credentials")
    assert {row["name"].partition(":")[0] for row in rows} <= {"interaction"}, "no token of a person is kept"


async def test_the_query_cannot_name_another_server(
    garden: Driver, anonymous: httpx.AsyncClient, discord: FakeDiscord
) -> None:
    victim = discord.add_guild("Victim")
    discord.oauth.user, discord.oauth.guild = discord.add_user("eve"), discord.add_guild("Eves", present=False)
    discord.oauth.claimed_guild = str(victim.id)
    answer = await exchange(garden, (await come_back(anonymous))["code"])
    assert answer.json()["community_platform_id"] == str(discord.oauth.guild.id)


async def test_after_an_install_in_one_server_another_one_needs_its_own_proof(
    garden: Driver, anonymous: httpx.AsyncClient, discord: FakeDiscord
) -> None:
    discord.oauth.user, discord.oauth.guild = discord.add_user("ada"), discord.add_guild("Garden", present=False)
    await exchange(garden, (await come_back(anonymous))["code"])
    victim = discord.add_guild("Victim")
    refused = await garden.put("town", plugins=[{"name": "discord", "config": {"guild_id": str(victim.id)}}])
    assert refused.status_code == 422
    assert "bound" in refused.text


async def test_signing_in_links_the_account(garden: Driver, anonymous: httpx.AsyncClient, discord: FakeDiscord) -> None:
    ada = discord.oauth.user = discord.add_user("ada")
    discord.oauth.guild = discord.add_guild("Garden", present=False)
    await exchange(garden, (await come_back(anonymous))["code"])
    answer = await exchange(garden, (await come_back(anonymous, "user"))["code"])
    assert answer.status_code == 200, answer.text
    assert (answer.json()["type"], answer.json()["user"]["user_id"]) == ("user", str(ada.id))


async def test_saying_no_comes_back_as_a_named_error(
    garden: Driver, anonymous: httpx.AsyncClient, discord: FakeDiscord
) -> None:
    discord.oauth.denies = True
    landed = await come_back(anonymous)
    assert landed["error"] == "access_denied"
    assert "code" not in landed


@pytest.mark.parametrize("status", [500, 429, 400])
async def test_a_discord_that_fails_comes_back_as_a_named_error(
    garden: Driver, anonymous: httpx.AsyncClient, discord: FakeDiscord, town: Guild, status: int
) -> None:
    discord.oauth.user, discord.oauth.guild = discord.add_user("ada"), town
    discord.faults.add("POST /oauth2/token", status, times=9)
    landed = await come_back(anonymous)
    assert "error" in landed
    assert "code" not in landed
    assert (await garden.get("plugin")).json()["plugins"] == []
