"""Discord as a driver and a server's members see it: the gateway in process, Discord over real sockets."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import httpx

from app.gateway import Gateway
from app.inbound.polls import schedule_polls
from app.worker import Drains
from tests.conftest import Driver
from tests.fakes.discord import FakeDiscord
from tests.fakes.discord_interactions import Interaction
from tests.fakes.discord_world import Channel, Guild
from tests.plugins.discord.conftest import SHARED, TOWN, VOTE, completed, counted, counts, drawn, own_app, shown
from tests.support.sink import Sink

POLL = "process/discord.poll"


async def test_a_vote_from_its_start_to_its_outcome(
    driver: Driver,
    drains: Drains,
    anonymous: httpx.AsyncClient,
    discord: FakeDiscord,
    town: Guild,
    square: Channel,
    sink: Sink,
) -> None:
    members = [discord.add_member(town, f"member{number}") for number in range(6)]
    asked = {
        "title": "Which tree? @everyone **now**",
        "options": ["apple", "pear"],
        "channel": str(square.id),
        "ineligible_voters": [str(members[5].id)],
        "ineligible_voter_message": "Only gardeners vote here.",
        "callback_url": sink.url,
    }
    started = await driver.post(VOTE, asked)
    assert started.status_code == 202, started.text
    (message,) = discord.messages(town)
    assert started.json()["url"] == f"https://discord.com/channels/{town.id}/{square.id}/{message.id}"
    assert message.allowed_mentions == {"parse": []}
    assert message.embeds[0]["title"] == r"Which tree? \@everyone \*\*now\*\*"

    clicks = []
    for number, member in enumerate(members):
        click = discord.interactions.click(town, message, message.custom_ids[number % 2], member)
        answer = await discord.interactions.send(anonymous, SHARED, click)
        assert (answer.status_code, answer.json()) == (200, {"type": 6})
        clicks.append(click)
    again = await discord.interactions.send(anonymous, SHARED, clicks[0])
    assert again.json() == {"type": 6}, "a duplicate is answered like the first"
    change = discord.interactions.click(town, message, message.custom_ids[1], members[0])
    await discord.interactions.send(anonymous, SHARED, change)
    process = await counted(driver, drains, started, 5)
    assert counts(process) == {"apple": 2, "pear": 3}
    await drains.until_idle()
    assert clicks[5].whispers == ["Only gardeners vote here."]
    assert [click.whispers for click in clicks[:5]] == [[]] * 5
    await drawn(drains, message, "5 votes so far")

    closed = await driver.http.delete(started.headers["location"], headers=TOWN)
    assert closed.json()["outcome"]["winners"] == ["pear"]
    outcome = closed.json()["outcome"]
    assert outcome["options"][0]["voters"] == sorted(str(members[each].id) for each in (2, 4))
    assert (outcome["message_id"], outcome["channel"]) == (str(message.id), str(square.id))
    await drawn(drains, message, "Closed with 5 votes")
    assert message.components == []
    final = [posted.json for posted in sink.posts if posted.json["status"] == "completed"]
    assert [process["outcome"]["winners"] for process in final] == [["pear"]]
    assert len(discord.sent("POST", f"/channels/{square.id}/messages")) == 1


async def test_a_vote_closes_at_its_time(
    driver: Driver, drains: Drains, anonymous: httpx.AsyncClient, discord: FakeDiscord, town: Guild, square: Channel
) -> None:
    closing_at = datetime.now(UTC) + timedelta(seconds=1.5)
    asked = {"title": "Now?", "poll_type": "boolean", "channel": str(square.id), "closing_at": closing_at.isoformat()}
    started = await driver.post(VOTE, asked)
    (message,) = discord.messages(town)
    assert [button["label"] for button in message.components[0]["components"]] == ["yes", "no"]
    click = discord.interactions.click(town, message, message.custom_ids[0], discord.add_member(town, "ada"))
    await discord.interactions.send(anonymous, SHARED, click)
    process = await completed(driver, drains, started)
    assert process["outcome"]["winners"] == ["yes"]
    await drawn(drains, message, "Most votes: yes")
    assert message.components == []


async def test_a_start_whose_answer_is_lost_posts_once(
    driver: Driver, drains: Drains, discord: FakeDiscord, town: Guild, square: Channel
) -> None:
    discord.faults.add("POST .*/messages", lose_answer=True)
    discord.say(square, discord.add_member(town, "bob"), "unrelated")
    started = await driver.post(VOTE, {"title": "Once?", "options": ["a", "b"], "channel": str(square.id)})
    assert started.status_code == 202
    async with asyncio.timeout(20):
        while (process := await shown(driver, started))["status"] == "created":
            await drains.until_idle()
            await asyncio.sleep(0.1)
    assert process["status"] == "pending"
    (message,) = discord.messages(town)
    assert process["url"].endswith(f"/{message.id}")


async def test_a_command_reaches_drivers_and_is_answered(
    driver: Driver, drains: Drains, anonymous: httpx.AsyncClient, discord: FakeDiscord, town: Guild, square: Channel
) -> None:
    option = {"name": "amount", "description": "How much", "type": "number", "required": True}
    registered = await driver.act(
        "discord.register-guild-command", {"name": "propose", "description": "Propose", "options": [option]}
    )
    assert registered.status_code == 200, registered.text
    assert [command["name"] for command in town.commands.values()] == ["propose"]
    ada = discord.add_member(town, "ada")
    command = discord.interactions.command(town, square, ada, "propose", [{"name": "amount", "type": 10, "value": 3}])
    answer = await discord.interactions.send(anonymous, SHARED, command)
    assert answer.json() == {"type": 5, "data": {"flags": 64}}
    await discord.interactions.send(anonymous, SHARED, command)
    await drains.until_idle()
    assert command.whispers == ["`/propose` has been passed on. An answer may take the place of this text."]
    (event,) = (await driver.get("events", type="slash_command")).json()["events"]
    assert event["data"]["options"] == {"amount": 3.0}
    assert event["data"]["interaction_id"] == str(command.id)
    assert event["initiator"]["user_id"] == str(ada.id)
    assert event["initiator"]["is_metagov_bot"] is False
    assert command.token not in str((await driver.get("events")).text)
    replied = await driver.act("discord.reply-to-command", {"interaction_id": str(command.id), "text": "Noted, @here"})
    assert replied.json() == {"shown": True}
    assert command.whispers == ["Noted, @here"]
    assert command.original is not None
    assert command.original.allowed_mentions == {"parse": []}


async def test_a_native_poll_from_its_start_to_its_outcome(
    driver: Driver, drains: Drains, discord: FakeDiscord, town: Guild, square: Channel
) -> None:
    voters = [discord.add_member(town, f"voter{number:03}") for number in range(130)]
    closing_at = datetime.now(UTC) + timedelta(seconds=2)
    asked = {
        "title": "Which tree?",
        "options": ["apple", "pear"],
        "channel": str(square.id),
        "ineligible_voters": [str(voters[0].id)],
        "closing_at": closing_at.isoformat(),
    }
    started = await driver.post(POLL, asked)
    assert started.status_code == 202, started.text
    (message,) = discord.messages(town)
    for number, voter in enumerate(voters):
        discord.vote(message, voter, 1 if number < 110 else 2)
    discord.vote(message, voters[1], 2)
    process = await completed(driver, drains, started)
    assert counts(process) == {"apple": 108, "pear": 21}
    assert process["outcome"]["rule"].endswith("as last observed")
    assert process["outcome"]["winners"] == ["apple"]
    assert message.poll is not None
    assert message.poll.finalized


async def test_a_revoked_token_midway_and_the_vote_goes_on_after_it_is_renewed(
    driver: Driver, drains: Drains, anonymous: httpx.AsyncClient, discord: FakeDiscord, town: Guild, square: Channel
) -> None:
    started = await driver.post(VOTE, {"title": "Still?", "options": ["a", "b"], "channel": str(square.id)})
    (message,) = discord.messages(town)
    discord.bot_tokens = {"renewed-token"}
    click = discord.interactions.click(town, message, message.custom_ids[0], discord.add_member(town, "ada"))
    await discord.interactions.send(anonymous, SHARED, click)
    async with asyncio.timeout(20):
        while (await driver.get("plugin")).json()["plugins"][0]["status"] != "needs_auth":
            await drains.until_idle()
            await asyncio.sleep(0.1)
    events = (await driver.get("events", type="instance.needs_auth")).json()["events"]
    assert len(events) == 1
    assert counts(await counted(driver, drains, started, 1)) == {"a": 1, "b": 0}
    config = {**own_app(discord, town), "bot_token": "renewed-token"}
    assert (await driver.put(plugins=[{"name": "discord", "config": config}])).status_code == 200
    closed = await driver.http.delete(started.headers["location"], headers=TOWN)
    assert closed.json()["outcome"]["winners"] == ["a"]
    # What met refused credentials is drawn again within a minute; the test does not wait for it.
    await driver.db.pool.execute("UPDATE processes SET next_at = now(), render_at = now()")
    await drawn(drains, message, "Closed with 1 vote")


async def test_refusals_and_failures_of_discord_are_waited_out(
    driver: Driver, drains: Drains, anonymous: httpx.AsyncClient, discord: FakeDiscord, town: Guild, square: Channel
) -> None:
    discord.faults.refuse_share = 0.2
    discord.faults.add("PATCH .*/messages/", 502, times=2)
    started = await driver.post(VOTE, {"title": "Busy?", "options": ["a", "b"], "channel": str(square.id)})
    (message,) = discord.messages(town)
    for number in range(20):
        click = discord.interactions.click(
            town, message, message.custom_ids[number % 2], discord.add_member(town, f"busy{number}")
        )
        await discord.interactions.send(anonymous, SHARED, click)
    await counted(driver, drains, started, 20)
    closed = await driver.http.delete(started.headers["location"], headers=TOWN)
    assert closed.json()["outcome"]["total_voters"] == 20
    await drawn(drains, message, "Closed with 20 votes")
    assert message.components == []


async def test_three_hundred_members(
    driver: Driver, drains: Drains, anonymous: httpx.AsyncClient, discord: FakeDiscord, town: Guild, square: Channel
) -> None:
    """Some click twice, some change their mind, some may not vote; a fifth of all requests is refused at first."""
    members = [discord.add_member(town, f"member{number:03}") for number in range(300)]
    barred = members[290:]
    asked = {
        "title": "All of us?",
        "options": ["a", "b", "c"],
        "channel": str(square.id),
        "ineligible_voters": [str(member.id) for member in barred],
    }
    started = await driver.post(VOTE, asked)
    (message,) = discord.messages(town)
    discord.limits.pace = 1.0
    discord.faults.refuse_share = 0.2
    clicks = [discord.interactions.click(town, message, message.custom_ids[n % 3], m) for n, m in enumerate(members)]
    changed = [discord.interactions.click(town, message, message.custom_ids[2], member) for member in members[:30]]

    async def deliver(interactions: list[Interaction]) -> None:
        for start in range(0, len(interactions), 20):
            sent = [discord.interactions.send(anonymous, SHARED, each) for each in interactions[start : start + 20]]
            assert {answer.status_code for answer in await asyncio.gather(*sent)} == {200}

    began = time.monotonic()
    await deliver(clicks)
    await deliver(clicks[:50])
    await deliver(changed)
    process = await counted(driver, drains, started, 290)
    while counts(process)["c"] != 116:
        await drains.until_idle()
        process = await shown(driver, started)
        assert time.monotonic() < began + 60
    assert counts(process) == {"a": 87, "b": 87, "c": 116}
    await drawn(drains, message, "290 votes so far")
    closed = await driver.http.delete(started.headers["location"], headers=TOWN)
    assert closed.json()["outcome"]["winners"] == ["c"]
    await drawn(drains, message, "Closed with 290 votes")
    assert message.components == []
    told = {click.payload["member"]["user"]["id"] for click in clicks if click.whispers}
    assert told == {str(member.id) for member in barred}
    edits = [each for each in discord.sent("PATCH", f"/messages/{message.id}") if each.status == 200]
    assert len(edits) <= 5 + (time.monotonic() - began), "no more than the channel's bucket lets through"
    assert not [each for each in discord.limits.refused if each.scope == "user"], "and none was sent too early"


async def test_a_bot_that_is_removed_takes_its_instance_out_of_use(
    driver: Driver, drains: Drains, gateway: Gateway, discord: FakeDiscord, town: Guild, square: Channel
) -> None:
    await schedule_polls(gateway.inbox)
    await drains.until_idle()
    assert len(discord.sent("GET", f"/guilds/{town.id}")) == 1
    town.present = False
    await driver.db.pool.execute("UPDATE polls SET next_at = now()")
    await drains.until_idle()
    (instance,) = (await driver.get("plugin")).json()["plugins"]
    assert instance["status"] == "disabled"
    (event,) = (await driver.get("events", type="instance.disabled")).json()["events"]
    assert "removed from the server" in event["data"]["reason"]
