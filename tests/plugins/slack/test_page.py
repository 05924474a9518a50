"""docs/slack.md: its commands, run against a gateway with a fake Slack behind it, in the order they stand in."""

from __future__ import annotations

import json
import re

import httpx
from fastapi import FastAPI

from app.gateway import Gateway
from plugins.slack.advanced import AdvancedVoteParams
from plugins.slack.models import SlackConfig
from plugins.slack.oauth import SCOPES
from plugins.slack.processes import EmojiVoteParams
from tests.conftest import new_driver
from tests.docs.curl import follow
from tests.docs.pages import DOCS, ROOT, blocks
from tests.fakes.slack import FakeSlack
from tests.fakes.slack_state import Channel, Team
from tests.plugins.slack.conftest import SQUARE
from tests.support.databases import empty

PAGE = DOCS / "slack.md"


async def test_its_commands_lead_to_a_vote(slack: FakeSlack, slack_app: FastAPI, town: Team, square: Channel) -> None:
    gateway: Gateway = slack_app.state.gateway
    driver = await new_driver(gateway, slack_app, "page")
    names = {
        "URL": "http://gateway.test",
        "KEY": driver.api_key,
        "TEAM": town.id,
        "BOT_TOKEN": slack.world.bot(town).token,
        "SIGNING_SECRET": slack.world.app.signing_secret,
        "CHANNEL": SQUARE,
        "LOCATION": "$LOCATION",
    }
    transport = httpx.ASGITransport(slack_app, raise_app_exceptions=False)
    try:
        async with driver.http, httpx.AsyncClient(transport=transport) as client:
            answers = await follow(PAGE, client, names)
            slack.hooks.client = driver.http
            event = slack.hooks.verification("c4")
            checked = await slack.hooks.send(event, path="/api/hooks/garden/slack")
    finally:
        await empty(gateway.db.pool)
    assert [answer.status_code for answer in answers] == [201, 200, 202, 200, 200, 202], [one.text for one in answers]
    assert [message["text"].partition(":")[0] for message in square.messages] == [
        "The gate is open.",
        "Which tree?",
        "The garden council",
    ]
    assert answers[3].json()["status"] == "pending"
    assert answers[4].json()["status"] == "completed"
    assert checked.text == "c4", "the URL that the page has in the manifest answers Slack's challenge"


def test_it_gives_a_reason_for_every_scope() -> None:
    table = {
        cell
        for line in PAGE.read_text().splitlines()
        if line.startswith("| `")
        for cell in re.findall(r"`([^`]+)`", line.split("|")[1])
    }
    assert set(SCOPES) <= table
    assert {name for name in table if re.fullmatch(r"[a-z]+:[a-z]+|commands", name)} <= set(SCOPES)


def test_the_readmes_examples_fit_the_schemas() -> None:
    config, emoji, advanced = (json.loads(block.text) for block in blocks(ROOT / "plugins/slack/README.md", "json"))
    SlackConfig.model_validate(config["config"])
    EmojiVoteParams.model_validate(emoji)
    AdvancedVoteParams.model_validate(advanced)
