"""What the platform does not show us: said, asked for again now and then, and in nobody's way."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from app.archives.moved import archive_moved
from app.archives.service import Archives
from app.mirrors.runs import begin_due_runs
from tests.fakes.discord import FakeDiscord
from tests.mirrors.conftest import Mirrored, own_app
from tests.mirrors.shelf import SHELF
from tests.mirrors.test_runs import events, fill, table
from tests.mirrors.town import build_town


async def scheduled(books: Mirrored, *, sweep: bool = False) -> list[str]:
    """A run whose time has come; what it asked the platform."""
    SHELF.asked.clear()
    column = "next_sweep_at" if sweep else "next_sync_at"
    await books.gateway.db.pool.execute(f"UPDATE mirrors SET {column} = now()")
    assert await begin_due_runs(books.use) == 1
    await books.work()
    return list(SHELF.asked)


async def last_state(books: Mirrored) -> str:
    return str(await books.gateway.db.pool.fetchval("SELECT state FROM mirror_runs ORDER BY id DESC LIMIT 1"))


async def test_a_refused_partition_is_named_and_everything_else_is_read(books: Mirrored) -> None:
    fill(3)
    SHELF.closed = {"b1"}
    stands = await books.sync()
    assert stands["state"] == "failed", "never clean while something is missing"
    assert table(stands, "note")["rows"] == 14
    assert table(stands, "note")["complete_through"] is None
    assert table(stands, "book")["complete_through"] is not None
    assert table(stands, "note")["error"] == "1 refused, the rest was read; b1: the reader may not open it"
    assert await last_state(books) == "incomplete"
    (event,) = await events(books)
    assert (event["event_type"], event["data"]["state"]) == ("mirror.failed", "incomplete")
    assert event["data"]["failures"] == [
        {"walk": "notes", "partition": "b1", "reason": "the reader may not open it", "status": "refused"}
    ]


async def test_it_holds_back_how_far_the_table_is_complete(books: Mirrored) -> None:
    fill(3)
    await books.sync()
    known = await books.gateway.db.pool.fetchval("SELECT through FROM mirror_partitions WHERE key = 'b1'")
    SHELF.closed = {"b1"}
    for sweep in (False, True, False):
        stands = await books.sync(sweep=sweep)
        assert datetime.fromisoformat(table(stands, "note")["complete_through"]) == known
        assert datetime.fromisoformat(table(stands, "book")["complete_through"]) > known
        assert table(stands, "note")["rows"] == 21, "what is refused is not taken for deleted"


async def test_it_is_asked_for_again_by_sweeps_by_people_and_once_an_hour(books: Mirrored) -> None:
    fill(3)
    SHELF.closed = {"b1"}
    asks = "notes b1 after -1"
    await books.sync()
    assert asks in SHELF.asked
    assert asks not in await scheduled(books)
    assert await last_state(books) == "incomplete", "a run that did not ask is not clean either"
    assert (await books.status())["state"] == "failed"
    await books.gateway.db.pool.execute("UPDATE mirror_partitions SET ask_again_at = now() WHERE status = 'refused'")
    assert asks in await scheduled(books)
    assert asks not in await scheduled(books)
    assert asks in await scheduled(books, sweep=True)
    assert asks not in await scheduled(books)

    # Somebody has let us in, and says so.
    SHELF.closed = set()
    SHELF.asked.clear()
    stands = await books.sync()
    assert asks in SHELF.asked
    assert (stands["state"], await last_state(books)) == ("idle", "completed")
    assert table(stands, "note")["rows"] == 21
    assert table(stands, "note")["error"] is None
    assert table(stands, "note")["complete_through"] is not None


async def test_after_a_sweep_that_was_let_in_nothing_of_the_refusal_is_left(books: Mirrored) -> None:
    fill(2)
    SHELF.closed = {"b1"}
    await books.sync()
    SHELF.closed = set()
    await scheduled(books, sweep=True)
    assert await last_state(books) == "completed"
    SHELF.notes["b1"].append({**SHELF.notes["b1"][-1], "id": 990})
    await scheduled(books)
    assert "990" in await books.rows("note")


async def test_a_failure_beside_a_refusal_is_a_failure(books: Mirrored) -> None:
    fill(3)
    SHELF.closed = {"b0", "b1", "b2"}
    SHELF.raises = [None, ZeroDivisionError("a fault of the plugin")]
    stands = await books.sync()
    assert await last_state(books) == "failed"
    assert "refused" not in table(stands, "note")["error"]
    failures = (await events(books))[0]["data"]["failures"]
    assert [each["status"] for each in failures] == ["failed", "refused", "refused"]


async def test_a_server_with_a_private_channel_is_mirrored_and_archived(
    mirror: Mirrored, discord: FakeDiscord, tmp_path: Path
) -> None:
    settings = mirror.gateway.settings.model_copy(update={"archive_url": f"file://{tmp_path}"})
    archives = Archives(settings, mirror.gateway.db.pool)
    town = build_town(discord, channels=4, messages=80, reactions=0.2)
    await mirror.enable(own_app(discord, town.guild))
    closed = town.channels[1]
    discord.hidden.add(closed.id)
    await mirror.sync(sweep=True)
    assert await archive_moved(mirror.use, archives) == 1
    head = await mirror.driver.get("events", source="metagov")
    assert head.json()["events"][-1]["data"]["state"] == "incomplete"
    community = await mirror.gateway.db.pool.fetchval("SELECT id FROM communities WHERE slug = 'town'")
    async with archives.reader(community, "town", "discord") as reader:
        tables = {each.name: each for each in reader.manifest.tables}
    assert tables["discord.message"].rows == 80 - len(closed.messages)
    assert tables["discord.message"].complete_through is None
    assert tables["discord.member"].complete_through is not None

    discord.hidden.clear()
    await mirror.sync()
    assert await archive_moved(mirror.use, archives) == 1
    async with archives.reader(community, "town", "discord") as reader:
        tables = {each.name: each for each in reader.manifest.tables}
    assert tables["discord.message"].rows == 80
    assert tables["discord.message"].complete_through is not None
    assert await mirror.holds(town) == []
