"""The hook as Discord and strangers meet it: over the app's URL and the community's own, with no worker in the way."""

from __future__ import annotations

import asyncio
import base64

import httpx
import pytest

from app.worker import Drains
from tests.conftest import Driver
from tests.fakes.discord import FakeDiscord
from tests.fakes.discord_world import Channel, Guild
from tests.plugins.discord.conftest import SHARED, VOTE, counted, counts, own_app


async def test_nobody_sees_an_interactions_token(
    driver: Driver, drains: Drains, anonymous: httpx.AsyncClient, discord: FakeDiscord, town: Guild, square: Channel
) -> None:
    command = discord.interactions.command(town, square, discord.add_member(town, "ada"), "hello")
    await discord.interactions.send(anonymous, SHARED, command)
    await drains.until_idle()
    (receipt,) = (await driver.get("receipts")).json()["receipts"]
    assert command.token.encode() not in base64.b64decode(receipt["body_base64"])


async def test_a_click_that_is_forged_for_a_community_changes_nothing(
    driver: Driver, drains: Drains, anonymous: httpx.AsyncClient, discord: FakeDiscord, town: Guild, square: Channel
) -> None:
    started = await driver.post(VOTE, {"title": "Forged?", "options": ["a", "b"], "channel": str(square.id)})
    (message,) = discord.messages(town)
    ada = discord.add_member(town, "ada")
    for url in (SHARED, "/api/hooks/town/discord"):
        for spoilt in ("signature", "timestamp", "body", "missing", "other-key"):
            click = discord.interactions.click(town, message, message.custom_ids[0], ada)
            refused = await discord.interactions.send(anonymous, url, click, spoilt)
            assert refused.status_code == 401, (url, spoilt)
    elsewhere = discord.add_guild("Elsewhere")
    foreign = discord.interactions.click(town, message, message.custom_ids[0], ada)
    foreign.payload["guild_id"] = str(elsewhere.id)
    refused = await discord.interactions.send(anonymous, "/api/hooks/town/discord", foreign)
    assert refused.status_code == 401, "signed, and another server's"
    await drains.until_idle()
    assert (await driver.get("receipts")).json()["receipts"] == []
    genuine = discord.interactions.click(town, message, message.custom_ids[0], ada)
    assert (await discord.interactions.send(anonymous, "/api/hooks/town/discord", genuine)).status_code == 200
    assert counts(await counted(driver, drains, started, 1)) == {"a": 1, "b": 0}


async def test_a_click_counts_in_its_own_server_alone(
    driver: Driver,
    other_driver: Driver,
    drains: Drains,
    anonymous: httpx.AsyncClient,
    discord: FakeDiscord,
    town: Guild,
    square: Channel,
) -> None:
    """A button in one server that names another server's vote, under one bot."""
    village = discord.add_guild("Village")
    plugins = [{"name": "discord", "config": own_app(discord, village)}]
    assert (await other_driver.put("village", plugins=plugins)).status_code == 201
    green = next(iter(village.channels.values()))
    asked = {"title": "Ours?", "options": ["a", "b"], "channel": str(green.id)}
    started = await other_driver.post(VOTE, asked, slug="village")
    (message,) = discord.messages(village)
    copy = discord.say(square, discord.bot, "a copy")
    eve, ada = discord.add_member(town, "eve"), discord.add_member(village, "ada")
    for click in (
        discord.interactions.click(town, copy, message.custom_ids[0], eve),
        discord.interactions.click(village, message, message.custom_ids[1], ada),
    ):
        assert (await discord.interactions.send(anonymous, SHARED, click)).status_code == 200
    async with asyncio.timeout(20):
        while True:
            await drains.until_idle()
            where = {"X-Metagov-Community": "village"}
            process = (await other_driver.http.get(started.headers["location"], headers=where)).json()
            if process["outcome"]["total_voters"]:
                break
            await asyncio.sleep(0.1)
    assert counts(process) == {"a": 0, "b": 1}


@pytest.mark.parametrize("url", [SHARED, "/api/hooks/town/discord"])
async def test_discord_checks_an_endpoint_when_it_is_saved(
    anonymous: httpx.AsyncClient, discord: FakeDiscord, square: Channel, url: str
) -> None:
    answer = await discord.interactions.send(anonymous, url, discord.interactions.ping())
    assert (answer.status_code, answer.json()) == (200, {"type": 1})
    probe = await discord.interactions.send(anonymous, url, discord.interactions.ping(), "signature")
    assert probe.status_code == 401


async def test_the_deployments_bot_is_for_servers_that_are_bound(
    driver: Driver, other_driver: Driver, discord: FakeDiscord, town: Guild
) -> None:
    key = discord.interactions.public_key
    for config in (
        {"guild_id": str(town.id)},
        {"guild_id": str(town.id), "public_key": key},
        {"guild_id": str(town.id), "bot_token": discord.bot_token},
    ):
        refused = await driver.put(plugins=[{"name": "discord", "config": config}])
        assert refused.status_code == 422, "one borrowed credential is enough to ask for proof"
        assert "bound" in refused.text
    assert discord.requests == []


async def test_answers_leave_while_the_worker_hangs(
    driver: Driver, anonymous: httpx.AsyncClient, discord: FakeDiscord, town: Guild, square: Channel
) -> None:
    """No worker runs at all, and Discord's API takes a minute: a click is answered all the same."""
    discord.latency = 60
    message = discord.say(square, discord.bot, "a vote")
    ada = discord.add_member(town, "ada")
    async with asyncio.timeout(10):
        for _ in range(20):
            click = discord.interactions.click(town, message, "mg:prc_1:0", ada)
            answer = await discord.interactions.send(anonymous, SHARED, click)
            assert answer.json() == {"type": 6}
        command = discord.interactions.command(town, square, ada, "propose")
        assert (await discord.interactions.send(anonymous, SHARED, command)).json()["type"] == 5
    assert discord.requests == []
    assert len((await driver.get("receipts")).json()["receipts"]) == 21


async def test_members_who_act_are_linked_as_accounts(
    driver: Driver, drains: Drains, anonymous: httpx.AsyncClient, discord: FakeDiscord, town: Guild, square: Channel
) -> None:
    ada = discord.add_member(town, "ada")
    await discord.interactions.send(anonymous, SHARED, discord.interactions.command(town, square, ada, "hello"))
    await drains.until_idle()
    (event,) = (await driver.get("events", type="slash_command")).json()["events"]
    person = event["initiator"]["external_id"]
    query = {"platform_type": "discord", "community_slug": "town", "external_id": person}
    account = (await driver.http.get("/api/internal/identity/get_linked_account", params=query)).json()
    assert account["platform_identifier"] == str(ada.id)
    assert account["custom_data"] == {"username": "ada", "global_name": "Ada"}
