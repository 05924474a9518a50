"""Discord's own polls: posted, read page by page, ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from metagov_sdk import Unauthorized
from metagov_sdk.errors import Invalid
from metagov_sdk.testing import NOW, RunningProcess, bind, start_process
from plugins.discord import manifest
from plugins.discord.poll import DiscordPoll, DiscordPollParams
from tests.fakes.discord import FakeDiscord
from tests.fakes.discord_world import Channel, Guild, Poll


@pytest.fixture
def square(town: Guild) -> Channel:
    return next(iter(town.channels.values()))


async def start(binding: Any, square: Channel, **params: Any) -> RunningProcess:
    asked = {"title": "Which tree?", "options": ["apple", "pear"], "channel": str(square.id), **params}
    return await start_process(manifest, "poll", asked, id="prc_test", **binding)


def poll_of(discord: FakeDiscord, town: Guild) -> Poll:
    (message,) = discord.messages(town)
    assert message.poll is not None
    return message.poll


def tallies(vote: RunningProcess) -> dict[str, list[str]]:
    assert vote.outcome is not None
    return {option["option"]: option["voters"] for option in vote.outcome["options"]}


async def test_a_poll_is_posted_and_read(discord: FakeDiscord, town: Guild, square: Channel, binding: Any) -> None:
    vote = await start(binding, square, details="By the *gate*.", duration=48)
    (message,) = discord.messages(town)
    assert message.content == "By the \\*gate\\*.\n-# poll prc_test"
    poll = poll_of(discord, town)
    assert (poll.question, poll.answers, poll.multiple) == ("Which tree?", ["apple", "pear"], False)
    assert vote.closing_at == poll.expiry
    voters = [discord.add_member(town, f"voter{number}") for number in range(250)]
    for number, voter in enumerate(voters):
        discord.vote(message, voter, 1 if number else 2)
    await vote.observe()
    assert tallies(vote) == {"apple": sorted(str(voter.id) for voter in voters[1:]), "pear": [str(voters[0].id)]}
    pages = discord.sent("GET", "/answers/1")
    assert [page.query["limit"] for page in pages] == ["100", "100", "100"]
    discord.vote(message, voters[1])
    await vote.observe()
    assert str(voters[1].id) not in tallies(vote)["apple"], "a vote that was taken back is gone"
    assert vote.outcome is not None
    assert vote.outcome["total_voters"] == 249


async def test_while_the_counts_stay_nothing_is_read_and_nothing_is_told(
    discord: FakeDiscord, town: Guild, square: Channel, binding: Any
) -> None:
    vote = await start(binding, square)
    (message,) = discord.messages(town)
    ada, bob = discord.add_member(town, "ada"), discord.add_member(town, "bob")
    discord.vote(message, ada, 1)
    await vote.observe()
    read = len(discord.requests)
    discord.vote(message, ada)
    discord.vote(message, bob, 1)
    await vote.observe()
    assert len(discord.requests) == read + 1
    assert tallies(vote)["apple"] == [str(ada.id)]
    await vote.observe(final=True)
    assert tallies(vote)["apple"] == [str(bob.id)], "the last look reads everything"


async def test_answers_without_votes_are_not_asked_for(
    discord: FakeDiscord, town: Guild, square: Channel, binding: Any
) -> None:
    vote = await start(binding, square)
    await vote.observe()
    assert discord.sent("GET", "/answers/1") == discord.sent("GET", "/answers/2") == []


async def test_several_answers_each(discord: FakeDiscord, town: Guild, square: Channel, binding: Any) -> None:
    vote = await start(binding, square, kind="multiple")
    assert poll_of(discord, town).multiple
    ada = discord.add_member(town, "ada")
    discord.vote(discord.messages(town)[0], ada, 1, 2)
    await vote.observe()
    assert tallies(vote) == {"apple": [str(ada.id)], "pear": [str(ada.id)]}
    assert vote.outcome is not None
    assert vote.outcome["total_voters"] == 1


async def test_weights_and_eligibility_count(discord: FakeDiscord, town: Guild, square: Channel, binding: Any) -> None:
    ada, eve = discord.add_member(town, "ada"), discord.add_member(town, "eve")
    vote = await start(binding, square, ineligible_voters=[str(eve.id)], weights={str(ada.id): 2.5})
    (message,) = discord.messages(town)
    discord.vote(message, ada, 1)
    discord.vote(message, eve, 2)
    await vote.observe()
    assert vote.outcome is not None
    assert [option["weight"] for option in vote.outcome["options"]] == [2.5, 0]
    assert vote.outcome["rule"] == "plurality; as last observed"


async def test_the_last_look_is_taken_at_a_poll_that_is_over(
    discord: FakeDiscord, town: Guild, square: Channel, binding: Any
) -> None:
    vote = await start(binding, square)
    await vote.observe(final=True)
    lines = [request.line for request in discord.requests]
    expire = next(number for number, line in enumerate(lines) if line.endswith("/expire"))
    read = max(number for number, line in enumerate(lines) if line.startswith("GET") and "/messages/" in line)
    assert expire < read
    assert poll_of(discord, town).finalized
    assert not vote.errors
    vote.close("deadline")  # Raises, had the look itself completed it.
    await vote.render()


async def test_a_poll_that_is_closed_early_ends_in_discord_too(
    discord: FakeDiscord, town: Guild, square: Channel, binding: Any
) -> None:
    vote = await start(binding, square)
    await vote.render()
    assert not poll_of(discord, town).finalized
    vote.close()
    await vote.render()
    await vote.render()
    assert poll_of(discord, town).finalized


async def test_a_poll_that_somebody_ends_in_discord_is_completed(
    discord: FakeDiscord, town: Guild, square: Channel, binding: Any
) -> None:
    binding["now"] = datetime.now(UTC)
    vote = await start(binding, square)
    (message,) = discord.messages(town)
    discord.vote(message, discord.add_member(town, "ada"), 1)
    poll_of(discord, town).expiry = binding["now"] - timedelta(seconds=1)
    await vote.observe()
    assert vote.status == "completed"
    assert vote.outcome is not None
    assert vote.outcome["winners"] == ["apple"]


async def test_a_poll_whose_message_was_deleted_fails_in_plain_words(
    discord: FakeDiscord, town: Guild, square: Channel, binding: Any
) -> None:
    vote = await start(binding, square)
    square.remove(discord.messages(town)[0].id)
    await vote.observe()
    assert vote.errors == {"message_deleted": "the poll's message was deleted in Discord"}


async def test_a_look_that_is_refused_is_no_empty_poll(
    discord: FakeDiscord, town: Guild, square: Channel, binding: Any
) -> None:
    vote = await start(binding, square)
    discord.vote(discord.messages(town)[0], discord.add_member(town, "ada"), 1)
    await vote.observe()
    discord.revoke_bot()
    with pytest.raises(Unauthorized):
        await vote.observe()
    assert vote.outcome is not None
    assert vote.outcome["total_voters"] == 1


@pytest.mark.parametrize(
    ("closing_in", "hours"),
    [(timedelta(minutes=1), 1), (timedelta(hours=1), 1), (timedelta(hours=1, seconds=1), 2), (timedelta(days=32), 768)],
)
async def test_discord_keeps_it_open_for_whole_hours_and_the_gateway_to_the_minute(
    discord: FakeDiscord, square: Channel, binding: Any, closing_in: timedelta, hours: int
) -> None:
    vote = await start(binding, square, closing_at=(NOW + closing_in).isoformat())
    assert discord.sent("POST")[0].body["poll"]["duration"] == hours
    assert vote.closing_at == NOW + closing_in


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"closing_at": (NOW + timedelta(days=32, seconds=1)).isoformat()}, "/closing_at"),
        ({"closing_at": (NOW - timedelta(seconds=1)).isoformat()}, "/closing_at"),
        ({"closing_at": (NOW + timedelta(hours=1)).isoformat(), "duration": 2}, "/duration"),
        ({"details": "*" * 1000}, "/details"),
    ],
)
async def test_deadlines_and_details_that_discord_cannot_keep(
    discord: FakeDiscord, square: Channel, binding: Any, change: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(Invalid) as raised:
        await start(binding, square, **change)
    assert raised.value.pointer == pointer
    assert discord.requests == []


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"duration": 769}, "duration"),
        ({"duration": 0}, "duration"),
        ({"options": [str(n) for n in range(11)]}, "options"),
        ({"options": ["x" * 56, "y"]}, "options"),
        ({"title": "x" * 301}, "title"),
        ({"kind": "ranked"}, "kind"),
        ({"max_choices": 2}, "max_choices"),
    ],
)
async def test_what_discords_polls_do_not_have(
    discord: FakeDiscord, square: Channel, binding: Any, change: dict[str, Any], where: str
) -> None:
    with pytest.raises(ValidationError) as raised:
        await start(binding, square, **change)
    assert raised.value.errors()[0]["loc"][0] == where


async def test_an_earlier_start_is_found_by_its_small_print(
    discord: FakeDiscord, town: Guild, square: Channel, binding: Any
) -> None:
    params = DiscordPollParams(title="Which tree?", options=("apple", "pear"), channel=str(square.id))

    async def find(process_id: str) -> Any:
        process = DiscordPoll(bind(manifest, **binding), id=process_id, now=NOW, idempotency_key="key_test")
        return await process.find_started(params)

    assert await find("prc_test") is None
    await start(binding, square)
    (message,) = discord.messages(town)
    copy = discord.say(square, discord.add_member(town, "eve"), "-# poll prc_test")
    copy.poll = message.poll
    discord.say(square, discord.bot, "-# poll prc_test")
    assert (await find("prc_test")).key == str(message.id)
    assert await find("prc_other") is None
