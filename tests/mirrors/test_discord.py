"""Discord's mirror against the fake: equal to the platform, whatever happens there."""

from __future__ import annotations

from tests.fakes.discord import FakeDiscord
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
