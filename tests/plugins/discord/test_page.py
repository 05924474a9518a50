"""docs/discord.md: its commands, run against a gateway with a fake Discord behind it, in the order they stand in."""

from __future__ import annotations

import json

import httpx
from fastapi import FastAPI

from plugins.discord.models import DiscordConfig
from plugins.discord.oauth import PERMISSIONS, PERMISSIONS_INTEGER
from plugins.discord.poll import DiscordPollParams
from plugins.discord.vote import DiscordVoteParams
from tests.conftest import Driver
from tests.docs.curl import follow
from tests.docs.pages import DOCS, ROOT, blocks
from tests.fakes.discord import FakeDiscord
from tests.fakes.discord_world import Guild

PAGE = DOCS / "discord.md"


async def test_its_commands_lead_to_a_vote(driver: Driver, app: FastAPI, discord: FakeDiscord, town: Guild) -> None:
    square = next(iter(town.channels.values()))
    names = {
        "URL": "http://gateway.test",
        "KEY": driver.api_key,
        "SERVER": str(town.id),
        "BOT_TOKEN": discord.bot_token,
        "PUBLIC_KEY": discord.interactions.public_key,
        "CHANNEL": str(square.id),
        "LOCATION": "$LOCATION",
    }
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False)) as client:
        answers = await follow(PAGE, client, names)
        saved = await discord.interactions.send(
            client, "http://gateway.test/api/hooks/garden/discord", discord.interactions.ping()
        )
    assert [answer.status_code for answer in answers] == [201, 200, 202, 200, 200, 202, 200], [
        one.text for one in answers
    ]
    said, vote, poll = discord.messages(town)
    assert said.content == "The gate is open."
    assert vote.embeds[0]["title"] == "Which tree?"
    assert poll.poll is not None
    assert poll.poll.question == "When do we plant?"
    assert answers[3].json()["status"] == "pending"
    assert answers[4].json()["status"] == "completed"
    assert [command["name"] for command in town.commands.values()] == ["propose"]
    assert saved.json() == {"type": 1}, "the endpoint that the page has in the portal answers Discord's check"


def test_its_permissions_are_the_ones_that_are_asked_for() -> None:
    table = {
        name.strip(): int(value)
        for line in PAGE.read_text().splitlines()
        if (cells := line.split("|"))[0] == "" and len(cells) == 5
        for name, value in [cells[1:3]]
        if value.strip().isdigit()
    }
    assert table == PERMISSIONS
    assert f"permissions={PERMISSIONS_INTEGER}\n" in PAGE.read_text()


def test_the_readmes_examples_fit_the_schemas() -> None:
    config, vote, poll = (json.loads(block.text) for block in blocks(ROOT / "plugins/discord/README.md", "json"))
    DiscordConfig.model_validate({**config["config"], "public_key": "0" * 64})
    DiscordVoteParams.model_validate(vote)
    DiscordPollParams.model_validate(poll)
