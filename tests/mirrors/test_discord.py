"""Discord's mirror against the fake: equal to the platform, whatever happens there."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.discord import FakeDiscord
from tests.fakes.discord_world import Message
from tests.mirrors.conftest import Mirrored, own_app
from tests.mirrors.town import build_town


async def test_a_first_run_holds_everything(mirror: Mirrored, discord: FakeDiscord) -> None:
    town = build_town(discord, channels=6, messages=900, threads=4)
    await mirror.enable(own_app(discord, town.guild))
    stands = await mirror.sync()
    assert await mirror.holds(town) == []
    assert stands["state"] == "idle"
    tables = {table["name"]: table for table in stands["tables"]}
    assert tables["discord.message"]["rows"] == 900
    assert all(table["complete_through"] for table in tables.values())
    assert all(table["error"] is None for table in tables.values())


async def test_what_has_happened_is_found_by_a_sweep(mirror: Mirrored, discord: FakeDiscord) -> None:
    town = build_town(discord, channels=6, messages=300, threads=4, reactions=0.3)
    await mirror.enable(own_app(discord, town.guild))
    await mirror.sync()
    town.happen(200)
    await mirror.sync(sweep=True)
    assert await mirror.holds(town) == []


async def test_new_messages_are_found_without_a_sweep(mirror: Mirrored, discord: FakeDiscord) -> None:
    town = build_town(discord, channels=4, messages=250)
    await mirror.enable(own_app(discord, town.guild))
    await mirror.sync()
    for number in range(150):
        town.say(town.channels[number % 4])
    town.add_thread(town.channels[0])
    assert await mirror.sync()
    assert await mirror.holds(town) == []


async def test_an_unchanged_server_costs_at_most_a_request_per_channel(mirror: Mirrored, discord: FakeDiscord) -> None:
    town = build_town(discord, channels=40, messages=400, threads=6, reactions=0.3)
    await mirror.enable(own_app(discord, town.guild))
    await mirror.sync()
    discord.requests.clear()
    stands = await mirror.sync()
    assert len(discord.requests) <= len(town.channels) + 6
    assert stands["state"] == "idle"
    assert await mirror.holds(town) == []


async def test_a_channel_that_is_closed_to_the_bot_fails_the_run_and_stops_no_other(
    mirror: Mirrored, discord: FakeDiscord
) -> None:
    town = build_town(discord, channels=4, messages=80)
    await mirror.enable(own_app(discord, town.guild))
    closed = town.channels[1]
    discord.hidden.add(closed.id)
    stands = await mirror.sync()
    tables = {table["name"]: table for table in stands["tables"]}
    assert stands["state"] == "failed"
    assert "may not see it" in tables["discord.message"]["error"]
    assert tables["discord.message"]["complete_through"] is None
    assert tables["discord.channel"]["complete_through"] is not None
    assert tables["discord.message"]["rows"] == 80 - len(closed.messages)
    (event,) = (await mirror.driver.get("events", source="metagov")).json()["events"]
    assert event["event_type"] == "mirror.failed"
    assert {each["partition"] for each in event["data"]["failures"]} == {str(closed.id)}
    discord.hidden.clear()
    stands = await mirror.sync()
    assert stands["state"] == "idle"
    assert await mirror.holds(town) == []


async def test_a_thread_that_is_archived_meanwhile_is_not_taken_for_deleted(
    mirror: Mirrored, discord: FakeDiscord
) -> None:
    town = build_town(discord, channels=2, messages=40, threads=4)
    await mirror.enable(own_app(discord, town.guild))
    await mirror.sync()
    moved, deleted = [channel for channel in town.channels if channel.is_thread and not channel.archived][:2]
    # A private one: no listing of archived threads has it.
    moved.archived, moved.type = True, 12
    town.remove_channel(deleted)
    await mirror.sync()
    assert await mirror.holds(town) == []
    threads = await mirror.rows("thread")
    assert threads[str(moved.id)]["deleted_at"] is None
    assert threads[str(deleted.id)]["deleted_at"] is not None


async def test_a_channel_takes_a_thread_with_it_that_was_found_elsewhere(
    mirror: Mirrored, discord: FakeDiscord
) -> None:
    town = build_town(discord, channels=3, messages=60, threads=2, reactions=0.5)
    await mirror.enable(own_app(discord, town.guild))
    await mirror.sync()
    thread = next(channel for channel in town.channels if channel.is_thread and not channel.archived)
    # Looked up, because no list that is read now has it.
    thread.archived, thread.type = True, 12
    await mirror.sync()
    assert thread.parent_id is not None
    town.remove_channel(town.guild.channels[thread.parent_id])
    await mirror.sync(sweep=True)
    assert await mirror.holds(town) == []


async def test_a_sweep_reads_all_of_a_thread_that_had_to_be_looked_up(mirror: Mirrored, discord: FakeDiscord) -> None:
    town = build_town(discord, channels=3, messages=60, threads=2)
    await mirror.enable(own_app(discord, town.guild))
    await mirror.sync()
    thread = next(channel for channel in town.channels if channel.is_thread and not channel.archived)
    thread.archived, thread.type = True, 12
    thread.messages[thread.order[1]].content = "changed"
    thread.remove(thread.order[2])
    await mirror.sync(sweep=True)
    assert await mirror.holds(town) == []


async def test_an_emoji_that_no_database_can_hold_stops_nothing(mirror: Mirrored, discord: FakeDiscord) -> None:
    town = build_town(discord, channels=2, messages=40)
    await mirror.enable(own_app(discord, town.guild))
    channel = town.channels[0]
    message = channel.messages[channel.order[0]]
    message.react("\0", town.people[0].id)
    message.react("half a pair \ud83d", town.people[0].id)
    message.react("👍", town.people[1].id)
    stands = await mirror.sync()
    assert stands["state"] == "idle"
    assert {table["name"]: table["rows"] for table in stands["tables"]}["discord.message"] == 40
    found = await mirror.gateway.db.pool.fetch(
        "SELECT emoji FROM mirror_discord.reaction WHERE message_id = $1", str(message.id)
    )
    assert [row["emoji"] for row in found] == ["👍"]


@dataclass(slots=True)
class Odd(Message):
    """A message as no Discord sends it, with `changes` in place of what it should be."""

    changes: dict[str, Any] = field(default_factory=dict)

    def wire(self) -> dict[str, Any]:
        return Message.wire(self) | self.changes


async def test_messages_that_make_no_sense_are_kept_and_flagged_and_stop_nothing(
    mirror: Mirrored, discord: FakeDiscord
) -> None:
    town = build_town(discord, channels=2, messages=40)
    await mirror.enable(own_app(discord, town.guild))
    channel, author = town.channels[0], town.people[0]
    odd: dict[str, dict[str, Any]] = {
        "unknown": {"brand_new": {"deep": [1, None, {"x": 1.5}]}},
        "nothing": {"author": None, "content": None, "mentions": None, "attachments": None, "reactions": None},
        "wrong": {"author": "ada", "content": 5, "mentions": "all", "reactions": [None, {"emoji": None}], "type": "x"},
        "future": {"timestamp": "2999-01-01T00:00:00+00:00"},
        "huge": {"content": "x" * 3_000_000, "embeds": [{"fields": [{"value": "y" * 1000}] * 200}]},
        "control": {"content": "a\0b"},
    }
    ids = {}
    for name, changes in odd.items():
        message = Odd(discord.ids.next(), channel.id, author, "as it should be", changes=changes)
        channel.add(message)
        ids[name] = str(message.id)
    for sweep in (False, True):
        stands = await mirror.sync(sweep=sweep)
        assert stands["state"] == "idle"
        tables = {table["name"]: table for table in stands["tables"]}
        assert tables["discord.message"]["rows"] == 46
        assert not tables["discord.message"]["high_water"].startswith("2999")
        rows = await mirror.rows("message")
        flags = {name: json.loads(rows[number]["mirror_flags"] or "[]") for name, number in ids.items()}
        assert json.loads(rows[ids["unknown"]]["extra"])["brand_new"] == {"deep": [1, None, {"x": 1.5}]}
        assert rows[ids["nothing"]]["author_id"] is None
        assert {"type:content", "type:author_id"} <= {*flags["wrong"]}
        assert json.loads(rows[ids["wrong"]]["extra"])["author"] == "ada"
        assert "future:timestamp" in flags["future"]
        assert "huge:content" in flags["huge"]
        assert len(rows[ids["huge"]]["content"]) == 3_000_000
        assert rows[ids["control"]]["content"] == "a\ufffdb"
