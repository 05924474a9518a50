"""The vote by buttons: its message within Discord's limits, its signals, and a start that is never blind."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from metagov_sdk import Pending, PluginError, Rejected, Retry
from metagov_sdk.ballot import ChatBallotState
from metagov_sdk.errors import Invalid
from metagov_sdk.testing import NOW, RunningProcess, bind, fold, start_process
from plugins.discord import manifest
from plugins.discord.drawing import draw_vote
from plugins.discord.text import clip, escape
from plugins.discord.vote import DiscordVote, DiscordVoteParams
from tests.fakes.discord import FakeDiscord
from tests.fakes.discord_checks import check_message
from tests.fakes.discord_world import Channel, Guild, Message


@pytest.fixture
def square(town: Guild) -> Channel:
    return next(iter(town.channels.values()))


async def start(binding: Any, square: Channel, **params: Any) -> RunningProcess:
    asked = {"title": "Which tree?", "options": ["apple", "pear"], "channel": str(square.id), **params}
    return await start_process(manifest, "vote", asked, id="prc_test", **binding)


def description(message: Message) -> str:
    text = message.embeds[0]["description"]
    assert isinstance(text, str)
    return text


def click(vote: RunningProcess, voter: str, choice: int, **more: Any) -> None:
    vote.signal("vote", {"voter": voter, "choice": choice, **more})


async def test_the_message_shows_what_is_asked_and_then_how_it_stands(
    discord: FakeDiscord, town: Guild, square: Channel, binding: Any
) -> None:
    vote = await start(binding, square, details="By the gate.", closing_at=(NOW + timedelta(days=1)).isoformat())
    (message,) = discord.messages(town)
    assert message.embeds[0]["title"] == "Which tree?"
    assert description(message).startswith("By the gate.")
    assert f"<t:{(NOW + timedelta(days=1)).timestamp():.0f}:R>" in description(message)
    assert message.custom_ids == ["mg:prc_test:0", "mg:prc_test:1"]
    assert (vote.key, vote.url) == (str(message.id), f"https://discord.com/channels/{town.id}/{square.id}/{message.id}")
    click(vote, "1", 0)
    click(vote, "2", 1)
    click(vote, "1", 1)
    await vote.render()
    assert "▸ **pear**\n██████████ 100% (2)" in description(message)
    vote.close()
    await vote.render()
    assert "Most votes: pear" in description(message)
    assert "<t:" not in description(message)
    assert message.components == []
    assert vote.outcome is not None
    assert vote.outcome["message_id"] == str(message.id)


async def test_rendering_again_changes_nothing(
    discord: FakeDiscord, town: Guild, square: Channel, binding: Any
) -> None:
    vote = await start(binding, square)
    (message,) = discord.messages(town)
    click(vote, "1", 0)
    await vote.render()
    before = (message.embeds, message.components)
    await vote.render()
    assert (message.embeds, message.components) == before


async def test_a_boolean_vote_has_two_coloured_buttons(
    discord: FakeDiscord, town: Guild, square: Channel, binding: Any
) -> None:
    asked = {"title": "Go?", "poll_type": "boolean", "channel": str(square.id)}
    await start_process(manifest, "vote", asked, **binding)
    (message,) = discord.messages(town)
    buttons = message.components[0]["components"]
    assert [(button["label"], button["style"]) for button in buttons] == [("yes", 3), ("no", 4)]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"channel": None}, "channel"),
        ({"channel": "general"}, "channel"),
        ({"options": [str(n) for n in range(26)]}, "options"),
        ({"options": ["one"]}, "options"),
        ({"poll_type": "boolean"}, "options"),
        ({"poll_type": "ranked"}, "poll_type"),
        ({"title": " "}, "title"),
    ],
)
async def test_parameters_that_do_not_fit(
    discord: FakeDiscord, square: Channel, binding: Any, change: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(ValidationError) as raised:
        await start(binding, square, **change)
    assert raised.value.errors()[0]["loc"][0] == pointer
    assert discord.requests == []


async def test_a_channel_of_another_server(discord: FakeDiscord, square: Channel, binding: Any) -> None:
    elsewhere = discord.add_channel(discord.add_guild("Elsewhere"), "secrets")
    with pytest.raises(Invalid) as raised:
        await start(binding, elsewhere)
    assert raised.value.pointer == "/channel"
    assert discord.sent("POST") == []


async def test_twenty_five_options_are_five_rows_of_five(
    discord: FakeDiscord, town: Guild, square: Channel, binding: Any
) -> None:
    await start(binding, square, options=[f"option {n:02} " + "x" * 70 for n in range(25)], details="d" * 600)
    (message,) = discord.messages(town)
    assert [len(row["components"]) for row in message.components] == [5] * 5
    assert len(set(message.custom_ids)) == 25


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"title": "t" * 257}, "/title"),
        ({"title": "*" * 129}, "/title"),
        ({"options": ["a", "b" * 301]}, "/options/1"),
        ({"options": [*(str(n) for n in range(24)), "x" * 81]}, "/options/24"),
        ({"details": "d" * 3700}, "/details"),
        ({"details": "[" * 1900}, "/details"),
        ({"closing_at": (NOW - timedelta(seconds=1)).isoformat()}, "/closing_at"),
    ],
)
async def test_what_has_no_room_is_refused_and_not_cut_off(
    discord: FakeDiscord, square: Channel, binding: Any, change: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(Invalid) as raised:
        await start(binding, square, **change)
    assert raised.value.pointer == pointer
    assert discord.requests == []


async def test_who_may_not_vote_is_told_alone(discord: FakeDiscord, town: Guild, square: Channel, binding: Any) -> None:
    message = discord.say(square, discord.bot, "x")
    interaction = discord.interactions.click(town, message, "mg:prc_test:0", discord.add_member(town, "eve"))
    discord.interactions.apply(interaction, {"type": 6})
    kept = {f"interaction:{interaction.id}": f"{discord.application_id}/{interaction.token}"}
    words = {"eligible_voters": ["1"], "ineligible_voter_message": "Members only, @everyone."}
    vote = await start({**binding, "credentials": kept}, square, **words)
    click(vote, "2", 0, reply={"interaction": str(interaction.id)})
    click(vote, "1", 0, reply={"interaction": "gone"})
    assert vote.outcome is not None
    assert vote.outcome["total_voters"] == 1
    await vote.perform_effects()
    assert interaction.whispers == ["Members only, @everyone."]
    assert interaction.followups[0].allowed_mentions == {"parse": []}


async def test_telling_somebody_too_late_is_let_be_and_too_early_tried_again(
    discord: FakeDiscord, town: Guild, square: Channel, binding: Any
) -> None:
    message = discord.say(square, discord.bot, "x")
    interaction = discord.interactions.click(town, message, "mg:prc_test:0", discord.add_member(town, "eve"))
    kept = {f"interaction:{interaction.id}": f"{discord.application_id}/{interaction.token}"}
    process = DiscordVote(bind(manifest, **binding, credentials=kept), id="prc", now=NOW, idempotency_key="k")
    with pytest.raises(Retry):
        await process.tell("1", "no", {"interaction": str(interaction.id)})
    discord.interactions.apply(interaction, {"type": 6})
    interaction.made_at -= 1000
    await process.tell("1", "no", {"interaction": str(interaction.id)})
    await process.tell("1", "no", {"interaction": "unknown"})
    assert interaction.followups == []


async def test_a_message_that_was_deleted_is_not_posted_again(
    discord: FakeDiscord, town: Guild, square: Channel, binding: Any
) -> None:
    vote = await start(binding, square)
    square.remove(discord.messages(town)[0].id)
    vote.close()
    await vote.render()
    assert discord.messages(town) == []
    assert vote.status == "completed"


async def find(binding: Any, square: Channel, process_id: str = "prc_test") -> Any:
    params = DiscordVoteParams(title="Which tree?", options=("apple", "pear"), channel=str(square.id))
    now = binding.get("now", NOW)
    process = DiscordVote(bind(manifest, **binding), id=process_id, now=now, idempotency_key="key_test")
    return await process.find_started(params)


async def test_an_earlier_start_is_found_by_its_buttons(
    discord: FakeDiscord, town: Guild, square: Channel, binding: Any
) -> None:
    assert await find(binding, square) is None
    await start(binding, square)
    (message,) = discord.messages(town)
    for number in range(230):
        discord.say(square, discord.users[discord.bot.id], f"chatter {number}")
    found = await find(binding, square)
    assert found.key == str(message.id)
    assert await find(binding, square, "prc_tes") is None
    assert await find(binding, square, "prc_other") is None


async def test_a_copy_by_another_bot_is_not_taken_for_it(discord: FakeDiscord, square: Channel, binding: Any) -> None:
    copy = discord.say(square, discord.add_user("other-bot", bot=True), "a copy")
    copy.components = [{"type": 1, "components": [{"type": 2, "custom_id": "mg:prc_test:0"}]}]
    assert await find(binding, square) is None


async def test_in_a_channel_too_busy_to_search_nothing_is_posted_on_a_guess(
    discord: FakeDiscord, square: Channel, binding: Any
) -> None:
    for number in range(2100):
        discord.say(square, discord.bot, str(number))
    with pytest.raises(Rejected, match="too much"):
        await find(binding, square)


async def test_a_start_that_was_not_answered_is_no_plain_retry(
    discord: FakeDiscord, square: Channel, binding: Any
) -> None:
    """Retry would say that nothing was posted, and have it posted again."""
    discord.faults.add("POST .*/messages", lose_answer=True)
    with pytest.raises(httpx.TransportError):
        await start(binding, square)
    discord.faults.add("POST .*/messages", 503)
    with pytest.raises(Exception, match="503") as raised:
        await start(binding, square)
    assert not isinstance(raised.value, PluginError)


WORDS = st.text(max_size=12) | st.sampled_from(
    [
        "@everyone",
        "<@1>",
        "**b**",
        "[x](http://evil)",
        "# head",
        "- item",
        "1. item",
        "`code`",
        "\\",
        "||s||",
        "> q",
        "<t:0>",
    ]
)
TEXT = st.lists(WORDS, min_size=1, max_size=4).map(" ".join)


def readable(text: str) -> str:
    """What Discord shows of escaped text: a backslash before punctuation is not shown."""
    shown, characters = [], iter(text)
    for character in characters:
        shown.append(next(characters, "") if character == "\\" else character)
    return "".join(shown)


@given(text=TEXT)
def test_escaped_text_reads_as_it_was_written(text: str) -> None:
    escaped = escape(text)
    assert readable(escaped) == text
    bare = escaped.replace("\\\\", "").replace("\\@", "").replace("\\<", "").replace("\\[", "")
    assert not {"@", "<", "["} & set(bare)


@given(text=TEXT, most=st.integers(1, 80))
def test_clipping_keeps_to_its_room_and_cuts_no_escape(text: str, most: int) -> None:
    clipped = clip(escape(text), most)
    assert len(clipped) <= most
    tail = clipped.removesuffix("…")
    assert (len(tail) - len(tail.rstrip("\\"))) % 2 == 0


@given(
    title=TEXT.filter(str.strip),
    details=st.none() | TEXT,
    options=st.lists(TEXT.filter(lambda text: text.strip()), min_size=2, max_size=25, unique=True),
    votes=st.lists(st.integers(0, 24), max_size=5),
)
def test_any_vote_fits_discords_limits(title: str, details: str | None, options: list[str], votes: list[int]) -> None:
    try:
        params = DiscordVoteParams(title=title, details=details, options=tuple(options), channel="1")
    except ValidationError:
        return  # NUL, or blank: refused before it is drawn.
    try:
        DiscordVote.check(params, NOW)
    except Invalid:
        return
    state = ChatBallotState.of(params, channel="1", message_id="2")
    signals = [DiscordVote.click_signal("2", str(number), choice % len(options)) for number, choice in enumerate(votes)]
    if signals:
        step = fold(DiscordVote, state, *signals)
        assert isinstance(step, Pending)
        state = step.state
    for status in ("pending", "completed"):
        body = draw_vote(state, DiscordVote.tally(state), status, "prc_" + "0" * 26)
        check_message(body)
