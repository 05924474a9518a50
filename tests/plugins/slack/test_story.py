"""Slack in a gateway, as a driver and the members of a workspace see it: over real sockets to a fake Slack."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from app.accounts.service import add_redirect
from app.processes.advance import advance_due
from app.runtime.models import PlatformBinding
from plugins.slack.models import SlackConfig
from tests.fakes.slack import FakeSlack
from tests.fakes.slack_state import Channel, Team
from tests.plugins.slack.conftest import SQUARE, Town
from tests.support.sink import Sink

VOTE = "process/slack.emoji-vote"
ASKED = {"title": "Which tree?", "poll_type": "choice", "options": ["apple", "pear", "plum"], "channel": SQUARE}
HEADERS = {"X-Metagov-Community": "town"}


async def until(gate: Town, holds: Callable[[], Awaitable[bool] | bool], seconds: float = 20) -> None:
    """Let the worker's queues run until something holds. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while True:
            await gate.drains.until_idle()
            found = holds()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.05)


def buttons(message: dict[str, Any]) -> list[str]:
    return [
        element["text"]["text"]
        for block in message["blocks"]
        if block["type"] == "actions"
        for element in block["elements"]
    ]


async def test_a_vote_of_many_from_start_to_callback(
    gate: Town, slack: FakeSlack, town: Team, square: Channel, sink: Sink
) -> None:
    people = [town.add_member(f"U1{number:03d}") for number in range(40)]
    square.members |= set(people)
    started = await gate.driver.post(
        VOTE, {**ASKED, "ineligible_voters": people[:3], "callback_url": f"{sink.url}/done", "correlation_id": "c1"}
    )
    assert started.status_code == 202, started.text
    ts = square.messages[-1]["ts"]
    assert started.json()["url"].endswith(ts.replace(".", ""))

    slack.limit_at_random(0.2, retry_after=0)
    clicks = [slack.hooks.clicked(town, SQUARE, ts, user, "pear") for user in people]
    clicks += [slack.hooks.clicked(town, SQUARE, ts, user, "apple") for user in people[:20]]
    tried = await slack.hooks.deliver_all(clicks[:40], twice=0.3, shuffled=True)
    assert {codes[-1] for codes in tried} == {200}
    await slack.hooks.deliver_all(clicks[40:])
    await until(gate, lambda: "46% (17)" in str(square.messages[-1]["blocks"]))
    outcome = (await gate.process(started))["outcome"]
    assert {tally["option"]: tally["count"] for tally in outcome["options"]} == {"apple": 17, "pear": 20, "plum": 0}
    assert buttons(square.messages[-1]) == [":heart: apple", ":orange_heart: pear", ":yellow_heart: plum"]

    slack.heal()
    closed = await gate.driver.http.delete(started.headers["location"], headers=HEADERS)
    assert closed.status_code == 200, closed.text
    assert (closed.json()["outcome"]["winners"], closed.json()["outcome"]["total_voters"]) == (["pear"], 37)
    await until(gate, lambda: buttons(square.messages[-1]) == [])
    assert len(square.messages) == 1
    assert {call.fields["user"] for call in slack.calls("chat.postEphemeral")} == set(people[:3])
    assert len(slack.calls("chat.update")) < 15, "clicks are gathered into few redraws"
    await until(gate, lambda: any(post.json["status"] == "completed" for post in sink.posts))
    (last,) = (post for post in sink.posts if post.json["status"] == "completed")
    assert (last.json["outcome"], last.json["correlation_id"]) == (closed.json()["outcome"], "c1")
    (event,) = (event for event in await gate.events("slack.process.updated") if event["data"]["status"] == "completed")
    assert event["data"]["outcome"] == closed.json()["outcome"]


async def test_the_deadline_takes_the_buttons_away(gate: Town, slack: FakeSlack, town: Team, square: Channel) -> None:
    closing = datetime.now(UTC) + timedelta(seconds=2)
    started = await gate.driver.post(VOTE, {**ASKED, "closing_at": closing.isoformat()})
    assert started.status_code == 202, started.text
    ts = square.messages[-1]["ts"]
    assert "closes <!date^" in str(square.messages[-1]["blocks"])
    late = slack.hooks.clicked(town, SQUARE, ts, "U0BOB", "apple")
    await slack.hooks.click(town, SQUARE, ts, "U0ADA", "plum")
    await until(gate, lambda: buttons(square.messages[-1]) == [])
    await slack.hooks.deliver(late)
    await gate.drains.until_idle()
    outcome = (await gate.process(started))["outcome"]
    assert (outcome["winners"], outcome["total_voters"]) == (["plum"], 1)
    assert "Closed with 1 vote." in str(square.messages[-1]["blocks"])


async def test_a_slack_that_takes_too_long_is_asked_again(
    gate: Town, slack: FakeSlack, town: Team, square: Channel
) -> None:
    started = await gate.driver.post(VOTE, ASKED)
    assert started.status_code == 202, started.text
    slack.fail("chat.update", delay=1)
    await slack.hooks.click(town, SQUARE, square.messages[-1]["ts"], "U0ADA", "plum")
    await gate.drains.receipts()
    hasty = replace(gate.gateway.runner, timeout=0.2)
    async with asyncio.timeout(10):
        while not slack.calls("chat.update"):
            await advance_due(hasty)
            await asyncio.sleep(0.05)
    assert (await gate.process(started))["outcome"]["total_voters"] == 1, "the count waits for no drawing"
    await until(gate, lambda: len(slack.calls("chat.update")) > 1 and "100% (1)" in str(square.messages[-1]["blocks"]))


async def test_a_vote_by_menus(gate: Town, slack: FakeSlack, town: Team, square: Channel) -> None:
    params = {"title": "Council", "candidates": ["Ines", "Jun"], "options": ["yes", "no"], "channel": SQUARE}
    started = await gate.driver.post("process/slack.advanced-vote", params)
    assert started.status_code == 202, started.text
    for user in ("U0ADA", "U0BOB"):
        await slack.hooks.click(town, SQUARE, square.messages[-1]["ts"], user, "choose=yes")
    await gate.drains.until_idle()
    outcome = (await gate.process(started))["outcome"]
    assert [row["options"][0]["count"] for row in outcome["candidates"]] == [2, 0]
    updates = await gate.events("slack.process.updated")
    assert all("U0ADA" not in str(event["data"]) for event in updates if event["data"]["status"] == "pending")


async def test_a_lost_answer_opens_one_vote(gate: Town, slack: FakeSlack, square: Channel) -> None:
    slack.fail("chat.postMessage", lost=True)
    slack.fail("conversations.history", status=429, retry_after=0)
    slack.fail("conversations.history", status=503)
    started = await gate.driver.post(VOTE, ASKED)
    assert started.status_code == 202, started.text

    async def is_open() -> bool:
        shown = await gate.process(started)
        return bool(shown["status"] == "pending")

    await until(gate, is_open)
    assert len(square.messages) == 1
    assert (await gate.process(started))["outcome"]["message_ts"] == square.messages[0]["ts"]


async def test_a_search_that_has_to_wait_opens_no_second_vote(gate: Town, slack: FakeSlack, square: Channel) -> None:
    slack.fail("chat.postMessage", lost=True)
    slack.fail("conversations.history", error="ratelimited", retry_after=6)
    started = await gate.driver.post(VOTE, ASKED)

    async def is_open() -> bool:
        shown = await gate.process(started)
        return bool(shown["status"] == "pending")

    await until(gate, is_open, 30)
    assert len(square.messages) == 1


async def test_a_revoked_token_stops_nothing_but_slack_and_a_new_one_goes_on(
    gate: Town, slack: FakeSlack, town: Team, square: Channel
) -> None:
    started = await gate.driver.post(VOTE, ASKED)
    ts = square.messages[-1]["ts"]
    slack.world.void(town)
    await slack.hooks.click(town, SQUARE, ts, "U0ADA", "plum")

    async def needs_auth() -> bool:
        return bool(await gate.events("metagov.instance.needs_auth"))

    await until(gate, needs_auth)
    (instance,) = (await gate.driver.get("plugin")).json()["plugins"]
    assert instance["status"] == "needs_auth"
    refused = await gate.driver.act("slack.post-message", {"channel": SQUARE, "text": "hi"})
    assert (refused.status_code, refused.json()["type"].endswith("needs_auth")) == (409, True)
    # Votes go on being counted all the same.
    await slack.hooks.click(town, SQUARE, ts, "U0BOB", "plum")
    await gate.drains.until_idle()
    assert (await gate.process(started))["outcome"]["total_voters"] == 2
    assert "(2)" not in str(square.messages[-1]["blocks"])

    square.members.add(slack.world.install(town).user_id)
    patched = await gate.driver.http.patch(
        f"/api/internal/plugin/slack/{instance['id']}",
        json={"config": {"bot_token": slack.world.bot(town).token}, "enabled": True},
        headers=HEADERS,
    )
    assert patched.status_code == 200, patched.text
    # It is tried again within a minute; not to wait for that:
    await gate.gateway.db.pool.execute("UPDATE processes SET next_at = now(), render_at = now()")
    await until(gate, lambda: "100% (2)" in str(square.messages[-1]["blocks"]))


async def test_whatever_goes_wrong_the_message_is_right_in_the_end(
    gate: Town, slack: FakeSlack, town: Team, square: Channel
) -> None:
    started = await gate.driver.post(VOTE, ASKED)
    slack.fail("chat.update", status=503)
    slack.fail("chat.update", lost=True)
    slack.fail("chat.update", status=429, retry_after=1)
    slack.fail("chat.update", error="internal_error")
    for user in ("U0ADA", "U0BOB", "U0CYD"):
        await slack.hooks.click(town, SQUARE, square.messages[-1]["ts"], user, "plum")
    await gate.drains.until_idle()
    closed = await gate.driver.http.delete(started.headers["location"], headers=HEADERS)
    assert closed.json()["outcome"]["winners"] == ["plum"], "an outcome waits for no drawing"
    await until(gate, lambda: "100% (3)" in str(square.messages[-1]["blocks"]), 60)
    assert buttons(square.messages[-1]) == []
    (instance,) = (await gate.driver.get("plugin")).json()["plugins"]
    assert instance["status"] == "enabled"


async def test_a_removed_app_disables_its_instance_and_says_so(gate: Town, slack: FakeSlack, town: Team) -> None:
    await slack.hooks.uninstall(town)
    await gate.drains.until_idle()
    (told,) = await gate.events("metagov.instance.disabled")
    assert told["data"]["plugin"] == "slack"
    (instance,) = (await gate.driver.get("plugin")).json()["plugins"]
    assert instance["status"] == "disabled"


async def test_events_commands_and_who_caused_them(gate: Town, slack: FakeSlack, town: Team) -> None:
    event = {"type": "reaction_added", "user": "U0BOB", "reaction": "tulip"}
    hook = slack.hooks.event(town, event)
    await slack.hooks.deliver_all([hook, hook, slack.hooks.command(town, "U0ADA", "/metagov", "hello <there>")])
    await gate.drains.until_idle()
    (reaction,) = await gate.events("slack.reaction_added")
    assert reaction["data"] == event
    assert reaction["initiator"]["user_id"] == "U0BOB"
    assert reaction["initiator"]["external_id"]
    (command,) = await gate.events("slack.slash_command")
    assert (command["data"]["command"], command["data"]["text"]) == ("/metagov", "hello <there>")
    people = await gate.driver.get("identity/get_users", community="town")
    linked = [account for person in people.json() for account in person["linked_accounts"]]
    assert {account["platform_identifier"] for account in linked} == {"U0ADA", "U0BOB"}
    assert {account["custom_data"]["team_id"] for account in linked} == {town.id}


async def test_secrets_in_stored_webhooks_are_masked(gate: Town, slack: FakeSlack, town: Team, square: Channel) -> None:
    await gate.driver.post(VOTE, ASKED)
    await slack.hooks.click(town, SQUARE, square.messages[-1]["ts"], "U0ADA", "plum")
    await slack.hooks.deliver(slack.hooks.command(town, "U0ADA", "/metagov", "hello"))
    await slack.hooks.deliver(slack.hooks.event(town, {"type": "emoji_changed"}))
    listed = (await gate.driver.get("receipts")).json()["receipts"]
    bodies = [base64.b64decode(receipt["body_base64"]).decode() for receipt in listed]
    assert len(bodies) == 3
    for body in bodies:
        assert slack.world.app.verification_token not in body
        assert "/actions/" not in body and "%2Factions%2F" not in body
        assert "2141029472.c" not in body
    assert any("metagov%3Aemoji-vote" in body for body in bodies)
    await gate.drains.until_idle()
    history = await gate.driver.get("events", limit="500")
    assert "/actions/" not in history.text


async def test_forged_clicks_change_nothing(gate: Town, slack: FakeSlack, town: Team, square: Channel) -> None:
    started = await gate.driver.post(VOTE, ASKED)
    hook = slack.hooks.clicked(town, SQUARE, square.messages[-1]["ts"], "U0ADA", "plum")
    for path in ("/api/hooks/town/slack", "/api/hooks/slack"):
        assert (await slack.hooks.send(hook, path=path, secret="forged")).status_code == 401
        assert (await slack.hooks.send(hook, path=path, at=time.time() - 301)).status_code == 401
        assert (await slack.hooks.send(hook, path=path, at=time.time() + 310)).status_code == 401
    again = await slack.hooks.send(hook, x_slack_retry_num="3", x_slack_retry_reason="http_timeout")
    assert again.status_code == 200
    await gate.drains.until_idle()
    assert (await gate.process(started))["outcome"]["total_voters"] == 1


async def test_slack_is_answered_at_once_and_with_nothing(gate: Town, slack: FakeSlack, town: Team) -> None:
    for hook in (slack.hooks.command(town, "U0ADA", "/metagov"), slack.hooks.event(town, {"type": "emoji_changed"})):
        answer = await slack.hooks.send(hook)
        assert (answer.status_code, answer.content) == (200, b"")
    challenge = await slack.hooks.send(slack.hooks.verification("c4"))
    assert (challenge.status_code, challenge.text) == (200, "c4")


async def test_parameters_that_slack_cannot_show_are_refused_with_a_pointer(gate: Town, slack: FakeSlack) -> None:
    refused = await gate.driver.post(VOTE, {**ASKED, "options": [f"{number}" for number in range(26)]})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/options")
    nowhere = await gate.driver.post(VOTE, {**ASKED, "channel": "#nowhere"})
    assert (nowhere.status_code, nowhere.json()["errors"][0]["pointer"]) == (422, "/channel")
    token = await gate.driver.act("slack.method", {"method_name": "auth.test", "token": "xoxb-1"})
    assert (token.status_code, token.json()["errors"][0]["pointer"]) == (422, "/parameters/token")
    unknown = await gate.driver.act("slack.post-message", {"channel": "C0NOWHERE", "text": "hi"})
    assert (unknown.status_code, "channel_not_found" in unknown.json()["detail"]) == (502, True)


async def test_the_deployments_app_is_for_whom_a_workspace_is_bound_to(
    gate: Town, slack: FakeSlack, town: Team
) -> None:
    config = {"team_id": town.id}
    refused = await gate.driver.put("village", plugins=[{"name": "slack", "config": config}])
    assert (refused.status_code, "metagov instance bind" in refused.text) == (422, True)
    await gate.driver.put("village")
    async with gate.gateway.db.begin() as session:
        community = (await session.execute(text("SELECT id FROM communities WHERE slug = 'village'"))).scalar_one()
        session.add(PlatformBinding(community_id=community, plugin="slack", community_platform_id=town.id))
    bound = await gate.driver.put("village", plugins=[{"name": "slack", "config": config}])
    assert bound.status_code == 200, bound.text
    hook = slack.hooks.event(town, {"type": "emoji_changed", "subtype": "add"})
    assert (await slack.hooks.send(hook, path="/api/hooks/slack")).status_code == 200
    await gate.drains.until_idle()
    heard = await gate.events("slack.emoji_changed")
    assert {event["community"] for event in heard} == {"town", "village"}, "both know the secret that signed it"


async def test_an_install_by_a_person_opens_the_workspace_to_the_driver(
    gate: Town, slack: FakeSlack, slack_app: FastAPI, square: Channel
) -> None:
    await gate.driver.put("village")
    async with gate.gateway.db.begin() as session:
        await add_redirect(session, gate.driver.id, "http://driver.test/back")
    visitor = httpx.AsyncClient(
        transport=httpx.ASGITransport(slack_app, raise_app_exceptions=False), base_url="http://gateway.test"
    )
    query = {"redirect_uri": "http://driver.test/back", "community": "village", "type": "app", "state": "mine"}
    async with visitor, httpx.AsyncClient() as browser:
        there = await visitor.get("/auth/slack/authorize", params=query)
        assert there.status_code in (302, 303, 307), there.text
        consent = await browser.get(there.headers["location"])
        back = urlsplit(consent.headers["location"])
        assert back.path == "/auth/slack/callback"
        landed = await visitor.get(f"{back.path}?{back.query}")
    returned = urlsplit(landed.headers["location"])
    answer = {name: values[0] for name, values in parse_qs(returned.query).items()}
    assert (returned.netloc, answer["state"]) == ("driver.test", "mine")
    assert "xox" not in landed.headers["location"]
    exchanged = await gate.driver.post("oauth/exchange", {"code": answer["code"]})
    assert exchanged.status_code == 200, exchanged.text
    assert (exchanged.json()["community"], exchanged.json()["community_platform_id"]) == ("village", "T0TOWN")
    assert "xox" not in exchanged.text
    said = await gate.driver.act("slack.post-message", {"channel": SQUARE, "text": "hello"}, slug="village")
    assert said.status_code == 200, said.text
    assert square.messages[-1]["text"] == "hello"


def test_the_config_is_the_contracts() -> None:
    assert {"team_id", "bot_token", "signing_secret"} <= SlackConfig.model_fields.keys()


@pytest.mark.parametrize("path", ["/api/hooks/town/slack", "/api/hooks/slack"])
async def test_a_body_that_is_no_webhook_is_refused(gate: Town, slack: FakeSlack, path: str) -> None:
    for body in (b"", b"{", b"a=1", b"payload=%7B", b"\xff"):
        answer = await slack.hooks.client.post(path, content=body, headers=slack.hooks.sign(body))  # type: ignore[union-attr]
        assert answer.status_code == 400, body
