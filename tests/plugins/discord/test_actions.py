"""The actions but `method`: what is sent to Discord, and what its refusals say."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from metagov_sdk import Rejected, Retry, Unauthorized
from metagov_sdk.errors import Invalid, NotFound
from metagov_sdk.testing import perform, run_poll
from plugins.discord import manifest
from tests.fakes.discord import FakeDiscord
from tests.fakes.discord_world import Channel, Guild


@pytest.fixture
def square(town: Guild) -> Channel:
    return next(iter(town.channels.values()))


async def act(binding: Any, slug: str, params: dict[str, Any], **more: Any) -> Any:
    return (await perform(manifest, slug, params, **{**binding, **more})).result


async def test_a_message_notifies_nobody_unless_told(
    discord: FakeDiscord, town: Guild, square: Channel, binding: Any
) -> None:
    result = await act(binding, "post-message", {"text": "Hello @everyone <@1>", "channel": str(square.id)})
    (message,) = discord.messages(town)
    assert message.content == "Hello @everyone <@1>"
    assert message.allowed_mentions == {"parse": [], "replied_user": False}
    assert result == {
        "channel": str(square.id),
        "message_id": str(message.id),
        "url": f"https://discord.com/channels/{town.id}/{square.id}/{message.id}",
    }


async def test_mentions_replies_and_embeds_are_passed_on(
    discord: FakeDiscord, town: Guild, square: Channel, binding: Any
) -> None:
    asked = discord.say(square, discord.add_member(town, "ada"), "Well?")
    params = {
        "text": "Yes <@5>",
        "channel": square.id,
        "allowed_mentions": {"users": [5], "replied_user": True},
        "reply_to": str(asked.id),
        "embeds": [{"title": "Minutes"}],
    }
    await act(binding, "post-message", params)
    (message,) = discord.messages(town)
    assert message.allowed_mentions == {"parse": [], "replied_user": True, "users": ["5"]}
    assert message.reference == {"message_id": str(asked.id), "channel_id": str(square.id)}
    assert message.embeds == [{"title": "Minutes"}]


async def test_the_same_call_again_posts_once(discord: FakeDiscord, town: Guild, square: Channel, binding: Any) -> None:
    params = {"text": "once", "channel": str(square.id)}
    first = await act(binding, "post-message", params, idempotency_key="k1")
    assert await act(binding, "post-message", params, idempotency_key="k1") == first
    assert await act(binding, "post-message", params, idempotency_key="k2") != first
    assert len(discord.messages(town)) == 2


@pytest.mark.parametrize(
    ("params", "where"),
    [
        ({"text": "x"}, "channel"),
        ({"text": "", "channel": "1"}, "text"),
        ({"text": "x" * 2001, "channel": "1"}, "text"),
        ({"text": "nul \0", "channel": "1"}, "text"),
        ({"text": "half \ud800", "channel": "1"}, "text"),
        ({"text": "x", "channel": "../2"}, "channel"),
        ({"text": "x", "channel": "1/messages/2"}, "channel"),
        ({"text": "x", "channel": True}, "channel"),
        ({"text": "x", "channel": "1", "token": "mine"}, "token"),
    ],
)
async def test_what_fits_no_message_is_refused_by_field(
    discord: FakeDiscord, binding: Any, params: dict[str, Any], where: str
) -> None:
    with pytest.raises(ValidationError) as raised:
        await act(binding, "post-message", params)
    assert {error["loc"][0] for error in raised.value.errors()} == {where}
    assert discord.requests == []


async def test_channels_of_another_server_look_like_none(
    discord: FakeDiscord, town: Guild, square: Channel, binding: Any
) -> None:
    elsewhere = discord.add_channel(discord.add_guild("Elsewhere"), "secrets")
    absent = discord.add_channel(discord.add_guild("Absent", present=False), "far")
    hidden = discord.add_channel(town, "hidden")
    discord.hidden.add(hidden.id)
    reasons = set()
    for channel in (elsewhere.id, absent.id, hidden.id, discord.add_dm().id, 42):
        with pytest.raises(Invalid) as raised:
            await act(binding, "post-message", {"text": "x", "channel": str(channel)})
        assert raised.value.pointer == "/channel"
        reasons.add(raised.value.reason.replace(str(channel), "…"))
    assert reasons == {"the server has no channel … that the bot can see"}
    assert discord.sent("POST") == []


async def test_a_channels_server_is_asked_for_once(discord: FakeDiscord, square: Channel, binding: Any) -> None:
    for number in range(3):
        params = {"text": "x", "channel": str(square.id)}
        await act(binding, "post-message", params, idempotency_key=str(number))
    assert len(discord.sent("GET", f"/channels/{square.id}")) == 1


async def test_the_server_as_discord_describes_it(discord: FakeDiscord, town: Guild, binding: Any) -> None:
    guild = await act(binding, "get-guild", {})
    assert (guild["id"], guild["name"], guild["approximate_member_count"]) == (str(town.id), "Town", 2)
    assert discord.requests[0].query == {"with_counts": "true"}


async def test_a_command_is_registered_with_typed_options(discord: FakeDiscord, town: Guild, binding: Any) -> None:
    options = [
        {
            "name": "kind",
            "description": "Of what kind",
            "required": True,
            "choices": [{"name": "Tree", "value": "tree"}],
        },
        {"name": "count", "description": "How many", "type": "integer", "min_value": 1, "max_value": 9},
        {"name": "share", "description": "How much", "type": "number", "min_value": 0.5},
        {"name": "who", "description": "For whom", "type": "user"},
    ]
    params = {"name": "plant", "description": "Plant something", "options": options}
    first = await act(binding, "register-guild-command", params)
    assert first["name"] == "plant"
    (command,) = town.commands.values()
    assert [(option["name"], option["type"]) for option in command["options"]] == [
        ("kind", 3),
        ("count", 4),
        ("share", 10),
        ("who", 6),
    ]
    assert await act(binding, "register-guild-command", params) == first, "the same again changes nothing"


async def test_subcommands(discord: FakeDiscord, town: Guild, binding: Any) -> None:
    leaf = {"name": "amount", "description": "How much", "type": "number", "required": True}
    add = {"name": "add", "description": "Add", "type": "subcommand", "options": [leaf]}
    group = {"name": "budget", "description": "Money", "type": "subcommand-group", "options": [add]}
    await act(binding, "register-guild-command", {"name": "town", "description": "Town", "options": [group]})
    (command,) = town.commands.values()
    assert command["options"][0]["options"][0]["options"][0]["required"] is True


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"name": "Plant"}, ("name",)),
        ({"name": "two words"}, ("name",)),
        ({"name": "x" * 33}, ("name",)),
        ({"description": ""}, ("description",)),
        ({"options": [{"name": "a", "description": "b", "type": "emoji"}]}, ("options", 0, "type")),
        (
            {"options": [{"name": "a", "description": "b", "type": "user", "choices": [{"name": "x", "value": 1}]}]},
            ("options", 0, "choices"),
        ),
        ({"options": [{"name": "a", "description": "b"}, {"name": "a", "description": "b"}]}, ("options", 1, "name")),
        (
            {"options": [{"name": "a", "description": "b"}, {"name": "c", "description": "b", "required": True}]},
            ("options", 1, "required"),
        ),
        ({"options": [{"name": f"o{n}", "description": "b"} for n in range(26)]}, ("options",)),
    ],
)
async def test_a_command_that_discord_would_refuse_is_refused_by_field(
    discord: FakeDiscord, binding: Any, change: dict[str, Any], pointer: tuple[Any, ...]
) -> None:
    with pytest.raises(ValidationError) as raised:
        await act(binding, "register-guild-command", {"name": "plant", "description": "Plant", **change})
    assert raised.value.errors()[0]["loc"] == pointer
    assert discord.requests == []


async def test_a_bot_of_the_communitys_own_asks_for_its_apps_id_once(
    discord: FakeDiscord, town: Guild, binding: Any
) -> None:
    del binding["settings"]["bot_token"], binding["settings"]["client_id"]
    config = {**binding["config"], "bot_token": discord.bot_token, "public_key": discord.interactions.public_key}
    for name in ("one", "two"):
        params = {"name": name, "description": "A command"}
        await act(binding, "register-guild-command", params, config=config)
    assert len(town.commands) == 2
    assert len(discord.sent("GET", "/oauth2/applications/@me")) == 1


async def test_a_reply_takes_the_place_of_the_one_before(
    discord: FakeDiscord, town: Guild, square: Channel, binding: Any
) -> None:
    command = discord.interactions.command(town, square, discord.add_member(town, "ada"), "hello")
    discord.interactions.apply(command, {"type": 5, "data": {"flags": 64}})
    kept = {f"interaction:{command.id}": f"{discord.application_id}/{command.token}"}
    for text in ("First", "Second"):
        params = {"interaction_id": str(command.id), "text": text}
        assert await act(binding, "reply-to-command", params, credentials=kept) == {"shown": True}
        assert command.whispers == [text]
    assert all("authorization" not in request.headers for request in discord.requests)


async def test_a_command_that_is_over_cannot_be_answered_and_the_bot_stays_authorized(
    discord: FakeDiscord, town: Guild, square: Channel, binding: Any
) -> None:
    with pytest.raises(NotFound, match="15 minutes"):
        await act(binding, "reply-to-command", {"interaction_id": "7", "text": "late"})
    command = discord.interactions.command(town, square, discord.add_member(town, "ada"), "hello")
    discord.interactions.apply(command, {"type": 5})
    command.made_at -= 1000
    kept = {f"interaction:{command.id}": f"{discord.application_id}/{command.token}"}
    with pytest.raises(NotFound, match="15 minutes"):
        await act(binding, "reply-to-command", {"interaction_id": str(command.id), "text": "late"}, credentials=kept)


async def test_a_refused_token_is_said_at_once(discord: FakeDiscord, binding: Any) -> None:
    discord.revoke_bot()
    with pytest.raises(Unauthorized, match="refuses the bot's token"):
        await act(binding, "get-guild", {})
    assert len(discord.requests) == 1


async def test_without_a_bot_nothing_is_sent(discord: FakeDiscord, binding: Any) -> None:
    del binding["settings"]["bot_token"]
    with pytest.raises(Unauthorized, match="METAGOV_DISCORD_BOT_TOKEN"):
        await act(binding, "get-guild", {})
    assert discord.requests == []


async def test_a_bot_that_was_removed_is_noticed(discord: FakeDiscord, town: Guild, binding: Any) -> None:
    town.present = False
    not_yet = await run_poll(manifest, "watch", None, **binding)
    assert (not_yet.cursor, not_yet.disabled) == (False, None), "it may still be added"
    town.present = True
    there = await run_poll(manifest, "watch", not_yet.cursor, **binding)
    assert (there.cursor, there.disabled) == (True, None)
    for code, status in ((10004, 404), (50001, 403)):
        discord.faults.add("GET /guilds", status, code=code)
        gone = await run_poll(manifest, "watch", there.cursor, **binding)
        assert gone.disabled is not None
        assert "removed from the server" in gone.disabled
        assert gone.cursor is False
    discord.faults.add("GET /guilds", 500)
    with pytest.raises(Retry):
        await run_poll(manifest, "watch", True, **binding)


async def test_without_a_bot_nobody_looks_for_it(discord: FakeDiscord, binding: Any) -> None:
    del binding["settings"]["bot_token"]
    assert (await run_poll(manifest, "watch", True, **binding)).disabled is None
    assert discord.requests == []


async def test_a_server_that_the_bot_is_not_in(discord: FakeDiscord, town: Guild, binding: Any) -> None:
    town.present = False
    with pytest.raises(Rejected, match="Unknown Guild: the bot is not in the server; install it again"):
        await act(binding, "get-guild", {})


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, 50001, "Missing Access.*give the bot's role View Channel"),
        (403, 50013, "lacks a permission"),
        (400, 0, "400"),
    ],
)
async def test_refusals_come_with_their_mend(
    discord: FakeDiscord, square: Channel, binding: Any, status: int, code: int, words: str
) -> None:
    message = {50001: "Missing Access", 50013: "Missing Permissions"}.get(code, "")
    discord.faults.add("POST .*/messages", status, code=code, message=message)
    with pytest.raises(Rejected, match=words) as raised:
        await act(binding, "post-message", {"text": "x", "channel": str(square.id)})
    assert not isinstance(raised.value, Unauthorized)


async def test_faulty_fields_are_named(discord: FakeDiscord, square: Channel, binding: Any) -> None:
    params = {"text": "x", "channel": str(square.id), "embeds": [{"title": "t" * 257}]}
    with pytest.raises(Rejected, match="/embeds/0/title: Must be 256 or fewer in length"):
        await act(binding, "post-message", params)
    discord.requests.pop()  # It breaks the published schema too, on purpose.


async def test_a_limit_is_waited_for(discord: FakeDiscord, binding: Any) -> None:
    discord.faults.add("GET /guilds", 429, retry_after=7.25)
    with pytest.raises(Retry) as raised:
        await act(binding, "get-guild", {})
    assert raised.value.after == 7.25


async def test_a_post_that_fails_midway_is_not_taken_for_one_that_was_never_made(
    discord: FakeDiscord, square: Channel, binding: Any
) -> None:
    discord.faults.add("POST .*/messages", 502)
    with pytest.raises(httpx.TransportError):
        await act(binding, "post-message", {"text": "x", "channel": str(square.id)})
    discord.faults.add("GET /guilds", 502)
    with pytest.raises(Retry, match="502"):
        await act(binding, "get-guild", {})
