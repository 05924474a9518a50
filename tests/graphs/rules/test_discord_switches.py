"""What the configuration of discord-graph can say beyond SourceCred's own, and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from metagov_sdk.graph import PublishedGraph, WrongGraph
from metagov_sdk.testing import ArchiveInMemory, build_graph_of
from plugins.discord import records
from plugins.discord.provider import _read_messages
from plugins.discord_graph import manifest
from tests.graphs.archived import GUILD_RECORDS, archive_of, server_archive
from tests.graphs.servers import BOT, GUILD, LEFT, ME, PROPS, QUIET, TALK, THUMB, YOU, Town

REACTIONS = {"defaultWeight": 1, "weights": {}, "applyAveraging": False}
CONFIG = {"guildId": GUILD, "reactionWeightConfig": REACTIONS}
GONE = datetime(2024, 5, 1, tzinfo=UTC)


async def build(archive: ArchiveInMemory, config: dict[str, Any] | None = None, **switches: Any) -> PublishedGraph:
    wanted = {"config": {**CONFIG, **(config or {})}, "anchor": False, **switches}
    return await build_graph_of(manifest, archive, config=wanted)


def kinds(built: PublishedGraph, kind: str) -> set[tuple[str, ...]]:
    return {node.address[3:] for node in built.graph.nodes() if node.address[2] == kind}


def small_town() -> Town:
    town = Town()
    town.channel(TALK, "talk")
    for id, name in ((ME, "ann"), (YOU, "bea"), (QUIET, "quiet")):
        town.member(id, name)
    return town


def with_thread() -> tuple[ArchiveInMemory, str]:
    town = small_town()
    said = town.say("888", ME, f"thanks <@{YOU}>", [YOU], reactions={THUMB: [YOU]})
    thread = {"id": "888", "name": "a thread", "parent_id": TALK}
    return server_archive({**town.api(), "threads": [thread]}, GUILD), said


async def test_threads_count_only_when_asked() -> None:
    archive, said = with_thread()
    assert kinds(await build(archive), "MESSAGE") == set()
    built = await build(archive, threads=True)
    assert kinds(built, "MESSAGE") == {("888", said)}
    node = built.graph.node(("sourcecred", "discord", "MESSAGE", "888", said))
    assert node is not None and node.description.startswith("#a thread message [")


async def test_thread_is_as_its_channel_is() -> None:
    archive, said = with_thread()
    weights = {"channelWeightConfig": {"defaultWeight": 0, "weights": {TALK: 3}}, "propsChannels": [TALK]}
    built = await build(archive, weights, threads=True)
    assert dict(built.graph.node_weights()) == {
        ("sourcecred", "discord", "REACTION", "888", THUMB, YOU, said): 3,
    }
    assert {edge.address[2] for edge in built.graph.edges()} >= {"PROPS"}
    muted = {"channelWeightConfig": {"defaultWeight": 1, "weights": {TALK: 0}}}
    assert kinds(await build(archive, muted, threads=True), "MESSAGE") == set()


async def test_deleted_counts_only_when_asked() -> None:
    town = small_town()
    kept = town.say(TALK, ME, "kept", reactions={THUMB: [YOU, LEFT]})
    rows = [records.ChannelRecord.read(each) for each in town.channels]
    people = [records.MemberRecord.read(each) for each in town.members]
    said = _read_messages(town.messages, more=False).rows
    reaction = records.ReactionRecord.read({}, message_id=kept, channel_id=TALK, emoji=THUMB, user_id=YOU)
    gone = town.say(TALK, YOU, "gone")
    (message,) = _read_messages(town.messages[-1:], more=False).rows
    left = records.MemberRecord.read({"user": {"id": LEFT, "username": "left"}})
    old = [
        records.ReactionRecord.read({}, message_id=kept, channel_id=TALK, emoji="🎈", user_id=QUIET),
        records.ReactionRecord.read({}, message_id=kept, channel_id=TALK, emoji=THUMB, user_id=LEFT),
        records.ReactionRecord.read({}, message_id=gone, channel_id=TALK, emoji=THUMB, user_id=ME),
    ]
    deleted = [{**row.model_dump(), "table": row.table, "deleted_at": GONE} for row in (message, left, *old)]
    archive = archive_of("discord", GUILD_RECORDS, [*rows, *people, *said, reaction], deleted)
    today = await build(archive)
    assert kinds(today, "MESSAGE") == {(TALK, kept)}
    assert kinds(today, "REACTION") == {(TALK, THUMB, YOU, kept)}
    assert {one.address[-1] for one in today.identities} == {ME, YOU, QUIET}
    ever = await build(archive, deleted=True)
    assert kinds(ever, "MESSAGE") == {(TALK, kept), (TALK, gone)}
    assert kinds(ever, "REACTION") == {
        (TALK, THUMB, YOU, kept),
        (TALK, "🎈", QUIET, kept),
        (TALK, THUMB, LEFT, kept),
        (TALK, THUMB, ME, gone),
    }
    assert {one.address[-1] for one in ever.identities} == {ME, YOU, QUIET, LEFT}


async def test_anchor_is_there_only_if_credrank_needs_it() -> None:
    town = small_town()
    address = ("sourcecred", "discord", "SERVER", GUILD)
    empty = await build(server_archive(town.api(), GUILD), anchor=True)
    assert [node.address for node in empty.graph.nodes()] == [address]
    town.say(TALK, ME, reactions={THUMB: [YOU]})
    assert (await build(server_archive(town.api(), GUILD), anchor=True)).graph.node(address) is None


async def test_anchor_begins_the_week_before_a_message_at_its_very_start() -> None:
    town = small_town()
    town.say(TALK, ME, reactions={THUMB: [YOU]})
    town.messages[0]["timestamp"] = "2024-01-07T00:00:00.000000+00:00"
    built = await build(server_archive(town.api(), GUILD), anchor=True)
    node = built.graph.node(("sourcecred", "discord", "SERVER", GUILD))
    assert node is not None and node.timestamp_ms == 1704585600000 - 1


async def test_older_archives_without_tags_are_read() -> None:
    town = small_town()
    town.say(TALK, ME, reactions={THUMB: [YOU]})
    tables: dict[str, Any] = {
        "discord.member": [{"id": ME, "username": "ann", "nick": None, "bot": False, "roles": []}]
    }
    whole = server_archive(town.api(), GUILD)
    for table in whole.tables():
        if table.name != "discord.member":
            tables[table.name] = [dict(row) async for batch in whole.batches(table) for row in batch]
    schemas = {table.name: table.json_schema for table in whole.tables() if table.name != "discord.member"}
    partitions = {table.name: table.partition for table in whole.tables() if table.partition}
    keys = {table.name: table.key for table in whole.tables()}
    old = ArchiveInMemory(tables, schemas=schemas, partitions=partitions, keys=keys)
    assert [one.description for one in (await build(old)).identities] == ["discord/ann#0"]


@pytest.mark.parametrize(
    ("date", "count"),
    [("0001-01-01T00:00:00+14:00", 1), ("0999-05-01", 1), ("1969-12-31", 1), ("9999-12-31", 0)],
)
async def test_dates_far_away_are_dates(date: str, count: int) -> None:
    town = small_town()
    town.say(TALK, ME, reactions={THUMB: [YOU]})
    built = await build(server_archive(town.api(), GUILD), {"beginningDate": date})
    assert len(kinds(built, "MESSAGE")) == count
    # Whoever reads an archive counts in months of four-digit years, from 1970 on.
    begins_at = manifest.config.model_validate({"config": {**CONFIG, "beginningDate": date}}).config.begins_at  # type: ignore[attr-defined]
    assert begins_at >= datetime(1970, 1, 1, tzinfo=UTC)


async def test_archive_of_another_server_is_refused() -> None:
    with pytest.raises(WrongGraph, match=r"guildId is 7000000000000000001, and the archive is of the server 42"):
        await build(server_archive(small_town().api(), "42"))


async def names_of(wanted: Sequence[str]) -> list[str]:
    town = Town()
    for number, name in enumerate(wanted):
        town.member(str(550_000_000_000_000_000 + number), name)
    built = await build(server_archive(town.api(), GUILD))
    return [one.name for one in built.identities]


@pytest.mark.parametrize(
    "names",
    [["Same", "same", "same-discord-3"] * 26, ["x" * 32] * 6, ["x" * 34] * 2, ["y" * 39]],
    ids=["many", "32", "34", "39"],
)
async def test_names_are_alike_where_sourcecred_has_room(names: list[str]) -> None:
    assert await names_of(names) == names


@pytest.mark.parametrize(("length", "count", "kept"), [(4, 81, 20), (31, 90, 20), (32, 7, 0), (34, 3, 0), (35, 2, 0)])
async def test_more_of_one_name_get_names_that_sourcecred_can_settle(length: int, count: int, kept: int) -> None:
    wanted = ["S" * length, "s" * length] * count
    names = await names_of(wanted[:count])
    assert names[:kept] == wanted[:kept]
    assert names[kept:] == [f"discord-{550_000_000_000_000_000 + number}" for number in range(kept, count)]


def test_comments_after_ids_are_sourcecreds() -> None:
    config = manifest.config.model_validate(
        {
            "config": [
                {
                    **CONFIG,
                    "guildId": f"{GUILD}//our server",
                    "roleWeightConfig": {"defaultWeight": 1, "weights": {"12//the team": 3}},
                }
            ]
        }
    )
    assert (config.config.guildId, config.config.roleWeightConfig.weights) == (GUILD, {"12": 3})  # type: ignore[attr-defined]


def reacting(**change: Any) -> dict[str, Any]:
    return {"reactionWeightConfig": {**REACTIONS, **change}}


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"guildId": 5}, "guildId"),
        ({"guildId": "12 // with a space"}, "guildId"),
        ({"reactionWeightConfig": None}, "reactionWeightConfig"),
        (reacting(weights={THUMB: -1}), f"reactionWeightConfig/weights/{THUMB}"),
        (reacting(weights={THUMB: "1"}), f"reactionWeightConfig/weights/{THUMB}"),
        (reacting(defaultWeight=float("inf")), "reactionWeightConfig/defaultWeight"),
        (reacting(applyAveraging="no"), "reactionWeightConfig/applyAveraging"),
        (reacting(confidenceDampener=-1), "reactionWeightConfig/confidenceDampener"),
        ({"reactionWeightConfig": {"defaultWeight": 1, "weights": {}}}, "reactionWeightConfig/applyAveraging"),
        ({"roleWeightConfig": {"defaultWeight": 1, "weights": {"1//a": 1, "1//b": 2}}}, "roleWeightConfig/weights"),
        ({"propsChannels": [PROPS, 5]}, "propsChannels/1"),
        ({"includeNsfwChannels": "yes"}, "includeNsfwChannels"),
        ({"beginningDate": "last year"}, "beginningDate"),
        ({"beginningDate": "9999-12-31T23:59:59-14:00"}, "beginningDate"),
        ({"propChannels": []}, "propChannels"),
    ],
)
def test_refusals_name_the_place(change: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as caught:
        manifest.config.model_validate({"config": {**CONFIG, **change}})
    assert ["/".join(map(str, error["loc"])) for error in caught.value.errors()] == [f"config/{place}"]


def test_config_of_several_servers_is_refused() -> None:
    with pytest.raises(ValidationError, match="an archive is of one server: give one entry, not 2"):
        manifest.config.model_validate({"config": [CONFIG, CONFIG]})


async def test_bots_are_bots() -> None:
    town = small_town()
    town.member(BOT, "helper", bot=True)
    built = await build(server_archive(town.api(), GUILD))
    assert {one.address[-2:]: one.type for one in built.identities}["bot", BOT] == "BOT"
