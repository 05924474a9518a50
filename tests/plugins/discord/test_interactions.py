"""Reading interactions: what is answered at once, what becomes of them, and what strangers may send."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metagov_sdk import PluginError, Rejected
from metagov_sdk.testing import HookResult, hook_request, receive
from plugins.discord import manifest
from plugins.discord.interactions import answer, dedupe, locate, read_interaction
from tests.fakes.discord import FakeDiscord
from tests.fakes.discord_interactions import Interaction
from tests.fakes.discord_world import Channel, Guild, User


@pytest.fixture
def square(town: Guild) -> Channel:
    return next(iter(town.channels.values()))


@pytest.fixture
def ada(discord: FakeDiscord, town: Guild) -> User:
    return discord.add_member(town, "ada")


async def let_in(discord: FakeDiscord, interaction: Interaction, binding: Any, **more: Any) -> HookResult:
    body, headers = discord.interactions.sign(interaction.body)
    return await receive(manifest, hook_request(body, headers), shared=True, **more, **binding)


async def test_a_ping_is_answered_and_not_kept(discord: FakeDiscord, binding: Any) -> None:
    got = await let_in(discord, discord.interactions.ping(), binding)
    assert json.loads(got.reply.body) == {"type": 1}
    assert (got.reply.store, got.handled) == (False, False)


async def test_a_click_becomes_a_vote_and_keeps_its_token_for_fifteen_minutes(
    discord: FakeDiscord, town: Guild, square: Channel, ada: User, binding: Any
) -> None:
    message = discord.say(square, discord.bot, "a vote")
    click = discord.interactions.click(town, message, "mg:prc_01:3", ada)
    got = await let_in(discord, click, binding)
    assert json.loads(got.reply.body) == {"type": 6}
    (signal,) = got.signals
    assert (signal.process, signal.key) == ("vote", "prc_01")
    assert signal.data == {"voter": str(ada.id), "choice": 3, "reply": {"interaction": str(click.id)}}
    (kept,) = got.credentials.items()
    assert kept[0] == f"interaction:{click.id}"
    assert (kept[1].access_token, kept[1].expires_in) == (f"{discord.application_id}/{click.token}", 900)
    assert click.token not in repr(got)
    (link,) = got.links
    assert (link.platform_identifier, link.custom_data) == (str(ada.id), {"username": "ada", "global_name": "Ada"})
    assert discord.requests == [], "a click asks Discord for nothing"


@pytest.mark.parametrize("custom_id", ["", "other", "mg:prc_1", "mg:prc_1:x", "mg::1", "mg:prc_1:1:2", "xmg:prc_1:1"])
async def test_buttons_that_are_no_votes_are_left_alone(
    discord: FakeDiscord, town: Guild, square: Channel, ada: User, binding: Any, custom_id: str
) -> None:
    message = discord.say(square, discord.bot, "a message")
    got = await let_in(discord, discord.interactions.click(town, message, custom_id, ada), binding)
    assert json.loads(got.reply.body) == {"type": 6}
    assert (got.signals, got.events) == ([], [])


async def test_a_duplicate_is_answered_and_dropped(
    discord: FakeDiscord, town: Guild, square: Channel, ada: User, binding: Any
) -> None:
    click = discord.interactions.click(town, discord.say(square, discord.bot, "a vote"), "mg:prc_01:3", ada)
    seen: set[str] = set()
    first = await let_in(discord, click, binding, seen=seen)
    second = await let_in(discord, click, binding, seen=seen)
    assert (first.handled, second.handled) == (True, False)
    assert second.reply == first.reply


async def test_a_command_is_an_event_with_typed_options_and_without_the_token(
    discord: FakeDiscord, town: Guild, square: Channel, ada: User, binding: Any
) -> None:
    values = [
        {"name": "text", "type": 3, "value": "so <@1>"},
        {"name": "whole", "type": 4, "value": 7},
        {"name": "sure", "type": 5, "value": True},
        {"name": "who", "type": 6, "value": "1001"},
        {"name": "share", "type": 10, "value": 2},
    ]
    nested = [{"name": "budget", "type": 2, "options": [{"name": "add", "type": 1, "options": values}]}]
    command = discord.interactions.command(town, square, ada, "propose", nested)
    discord.interactions.apply(command, {"type": 5, "data": {"flags": 64}})
    got = await let_in(discord, command, binding)
    (event,) = got.wire_events
    assert event["event_type"] == "slash_command"
    assert event["initiator"] == {"user_id": str(ada.id), "provider": "discord", "is_metagov_bot": False}
    assert event["data"] == {
        "interaction_id": str(command.id),
        "command": "propose",
        "command_id": command.payload["data"]["id"],
        "subcommand": ["budget", "add"],
        "options": {"text": "so <@1>", "whole": 7, "sure": True, "who": "1001", "share": 2.0},
        "target_id": None,
        "guild_id": str(town.id),
        "channel_id": str(square.id),
        "user": {"id": str(ada.id), "username": "ada", "global_name": "Ada"},
        "locale": "en-US",
    }
    kinds = {name: type(value) for name, value in event["data"]["options"].items()}
    assert kinds == {"text": str, "whole": int, "sure": bool, "who": str, "share": float}
    assert command.token not in json.dumps(event)
    assert command.whispers == ["`/propose` has been passed on. An answer may take the place of this text."]


async def test_a_command_whose_answer_is_on_its_way_is_confirmed_a_moment_later(
    discord: FakeDiscord, town: Guild, square: Channel, ada: User, binding: Any
) -> None:
    discord.faults.add("PATCH /webhooks", 404, code=10015, message="Unknown Webhook", times=2)
    command = discord.interactions.command(town, square, ada, "propose")
    discord.interactions.apply(command, {"type": 5, "data": {"flags": 64}})
    assert len((await let_in(discord, command, binding)).events) == 1
    assert len(command.whispers) == 1


@pytest.mark.parametrize("status", [401, 404, 429, 500])
async def test_an_event_does_not_wait_for_a_discord_that_is_away(
    discord: FakeDiscord, town: Guild, square: Channel, ada: User, binding: Any, status: int
) -> None:
    discord.faults.add("PATCH /webhooks", status, code=1, times=9)
    got = await let_in(discord, discord.interactions.command(town, square, ada, "propose"), binding)
    assert len(got.events) == 1


async def test_another_servers_interaction_is_refused_on_the_communitys_url(
    discord: FakeDiscord, ada: User, binding: Any
) -> None:
    elsewhere = discord.add_guild("Elsewhere")
    command = discord.interactions.command(elsewhere, next(iter(elsewhere.channels.values())), ada, "take")
    body, headers = discord.interactions.sign(command.body)
    got = await receive(manifest, hook_request(body, headers), **binding)
    assert (got.verified, got.reply.status) == (False, 401)


async def test_autocompletion_is_answered_with_nothing_to_choose(discord: FakeDiscord) -> None:
    reply = answer(hook_request({"type": 4}))
    assert reply is not None
    assert (json.loads(reply.body), reply.store) == ({"type": 8, "data": {"choices": []}}, False)


@pytest.mark.parametrize(
    "change",
    [
        {"token": "../../guilds/1"},
        {"token": "a/b" * 10},
        {"token": "%2e%2e%2f" * 10},
        {"token": ""},
        {"token": "x" * 2000},
        {"application_id": "1/../2"},
        {"application_id": 7},
        {"id": "1/2"},
        {"guild_id": {}},
        {"member": {"user": {"id": "../1"}}},
        {"data": []},
        {"data": {"options": [{"name": "x"}]}},
        {"type": None},
    ],
)
async def test_what_could_lead_a_request_astray_is_refused(
    discord: FakeDiscord, town: Guild, square: Channel, ada: User, change: dict[str, Any]
) -> None:
    """Whoever brings a key of their own can sign anything."""
    command = discord.interactions.command(town, square, ada, "propose")
    command.payload |= change
    with pytest.raises(Rejected, match="not one of Discord's interactions"):
        read_interaction(hook_request(command.body))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(
    body=st.binary()
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries(
        {"id": JSON, "type": JSON, "guild_id": JSON, "token": JSON, "data": JSON, "member": JSON}
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_answered_or_refused(body: bytes) -> None:
    request = hook_request(body)
    for function in (answer, locate, dedupe, read_interaction):
        try:
            function(request)
        except PluginError:
            continue
