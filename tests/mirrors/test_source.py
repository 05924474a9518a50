"""A mirror's tables read whole and filled whole, and people taken out of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection
from typing import Any

import pytest

from app.core.db import Pool
from app.host.binding import InstanceData
from app.mirrors.columns import tables_of
from app.mirrors.parts import Part, TableInfo
from app.mirrors.replay import replay
from app.mirrors.service import find_instance
from app.mirrors.source import MirrorSource, open_sink, open_source
from metagov_sdk.provider import ProviderSpec
from tests.fakes.discord import FakeDiscord
from tests.mirrors.conftest import Mirrored, own_app
from tests.mirrors.shelf import SHELF
from tests.mirrors.test_runs import fill
from tests.mirrors.town import build_town


async def found(mirror: Mirrored) -> tuple[InstanceData, ProviderSpec]:
    community = await mirror.gateway.db.pool.fetchval("SELECT id FROM communities WHERE slug = 'town'")
    return await find_instance(mirror.use, community, mirror.plugin, None)


async def read_all(mirror: Mirrored) -> dict[str, list[dict[str, Any]]]:
    """The rows of all tables, in the order of their keys, without when they were first seen."""
    instance, spec = await found(mirror)
    return await read_tables(mirror.gateway.db.pool, instance.id, spec)


async def read_tables(pool: Pool, instance_id: str, spec: ProviderSpec) -> dict[str, list[dict[str, Any]]]:
    """The same, of any database."""
    read: dict[str, list[dict[str, Any]]] = {}
    for table in tables_of(spec).values():
        rows = await pool.fetch(
            f"SELECT * FROM {table.sql} WHERE instance_id = $1 ORDER BY {', '.join(table.record.key)}", instance_id
        )
        json_columns = {column.name for column in table.columns if column.kind == "json"} | {"extra", "mirror_flags"}
        names = [*(column.name for column in table.columns), "extra", "mirror_flags", "synced_at", "deleted_at"]
        read[table.name] = [
            {
                name: json.loads(row[name]) if name in json_columns and row[name] is not None else row[name]
                for name in names
            }
            for row in rows
        ]
    return read


async def read_lines(source: MirrorSource, table: TableInfo, without: Collection[Part] = ()) -> list[dict[str, Any]]:
    """A table's rows as archives have them; that each is of the part it is said to be."""
    read: list[dict[str, Any]] = []
    async for run in source.rows(table, without):
        assert len(run) == len(run.keys) == len(run.lines)
        for key, line in zip(run.keys, run.lines, strict=True):
            row = json.loads(line)
            assert key == tuple(row[name] for name in table.key)
            assert run.part.partition == (row.get(table.partition) if table.partition else None)
            assert run.part.period == (row[table.time][:7] if table.time and table.time in row else None)
            read.append(row)
    return read


async def test_tables_are_read_in_the_order_of_archives(mirror: Mirrored, discord: FakeDiscord) -> None:
    town = build_town(discord, channels=3, messages=60, reactions=0.3)
    await mirror.enable(own_app(discord, town.guild))
    await mirror.sync()
    instance, spec = await found(mirror)
    async with open_source(mirror.gateway.db, instance, spec) as source:
        assert (source.provider, source.community) == ("discord", "town")
        infos = {info.name: info for info in await source.tables()}
        assert infos["discord.message"].complete_through is not None
        rows = await read_lines(source, infos["discord.message"])
        order = [(row["channel_id"], row["timestamp"][:7], row["id"]) for row in rows]
        assert order == sorted(order)
        assert len(rows) == 60
        marks = await source.marks(infos["discord.message"])
        assert set(marks) == {Part(channel, month) for channel, month, _ in order}
        left_out = Part(*order[0][:2])
        rest = await read_lines(source, infos["discord.message"], [left_out])
        assert {Part(row["channel_id"], row["timestamp"][:7]) for row in rest} == set(marks) - {left_out}


async def test_what_is_not_read_to_its_end_costs_a_connection_and_nothing_else(books: Mirrored) -> None:
    fill(1)
    await books.sync()
    instance, spec = await found(books)
    # More than fits into what waits between Postgres and the reader.
    await books.gateway.db.pool.execute(
        "INSERT INTO mirror_shelf.note (instance_id, community_id, id, text, extra, mirror_pass, first_seen, "
        "synced_at) SELECT instance_id, community_id, 1000 + n, repeat('x', 1000), '{}', 0, now(), now() "
        "FROM generate_series(1, 20000) AS n, (SELECT * FROM mirror_shelf.book LIMIT 1) AS b"
    )
    for _ in range(3):
        async with open_source(books.gateway.db, instance, spec) as source:
            (note,) = [info for info in await source.tables() if info.name == "shelf.note"]
            async with contextlib.aclosing(source.rows(note)) as rows:
                assert len(await anext(rows)) > 0
    async with open_source(books.gateway.db, instance, spec) as source:
        assert len(await read_lines(source, note)) == 20_007


async def test_a_part_has_another_mark_when_any_row_of_it_changed(books: Mirrored) -> None:
    fill(2)

    async def marks() -> dict[Part, str]:
        instance, spec = await found(books)
        async with open_source(books.gateway.db, instance, spec) as source:
            (note,) = [info for info in await source.tables() if info.name == "shelf.note"]
            return dict(await source.marks(note))

    await books.sync()
    before = await marks()
    await books.sync(sweep=True)
    assert await marks() == before
    SHELF.notes["b1"][0]["text"] = "changed"
    await books.sync(sweep=True)
    after = await marks()
    assert {part.partition for part in after if after[part] != before[part]} == {"b1"}


async def test_a_mirror_that_is_filled_from_another_is_equal_and_swept_like_one(books: Mirrored) -> None:
    fill(2)
    SHELF.notes["b0"].append({"id": 50, "text": "odd", "tags": "wrong", "new": [1, None], "mood": "7"})
    await books.sync()
    del SHELF.notes["b0"][1]
    await books.sync(sweep=True)
    before = await read_all(books)
    (odd,) = [row for row in before["shelf.note"] if row["id"] == 50]
    assert (odd["mood"], odd["extra"], odd["mirror_flags"]) == ("7", {"new": [1, None], "tags": "wrong"}, ["type:tags"])
    instance, spec = await found(books)
    async with open_source(books.gateway.db, instance, spec) as source:
        infos: list[TableInfo] = list(await source.tables())
    async with open_sink(books.gateway.db, instance, spec, books.use.vault) as sink:
        await sink.begin(infos)
        for info in infos:
            await sink.write(info, before[info.name])
        await sink.finish()
    assert await read_all(books) == before
    stands = await books.status()
    assert {each["name"]: each["rows"] for each in stands["tables"]} == {
        "shelf.book": 2,
        "shelf.liked": 4,
        "shelf.note": 14,
    }
    # What the platform no longer has is found by the sweep, though no run had read it.
    del SHELF.notes["b1"][3]
    await books.sync(sweep=True)
    assert (await books.rows("note"))["104"]["deleted_at"] is not None
    assert (await books.rows("note"))["103"]["deleted_at"] is None


async def test_what_is_not_finished_changes_nothing(books: Mirrored) -> None:
    fill(1)
    await books.sync()
    before = await read_all(books)
    instance, spec = await found(books)
    async with open_source(books.gateway.db, instance, spec) as source:
        infos = list(await source.tables())

    async def fail() -> None:
        async with open_sink(books.gateway.db, instance, spec, books.use.vault) as sink:
            await sink.begin(infos)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with open_sink(books.gateway.db, instance, spec, books.use.vault) as sink:
        await sink.begin(infos)
    assert await read_all(books) == before


async def test_kept_answers_are_read_again_without_the_platform(
    mirror: Mirrored, discord: FakeDiscord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror.use, "keep_answers", True)
    town = build_town(discord, channels=3, messages=120, reactions=0.2)
    await mirror.enable(own_app(discord, town.guild))
    await mirror.sync()
    pool = mirror.gateway.db.pool
    # Equal bodies are kept once, and no secret with them.
    kept = await pool.fetch("SELECT answers::text FROM mirror_answers")
    assert not any(discord.bot_token in row["answers"] for row in kept)
    await pool.execute("UPDATE mirror_discord.message SET content = NULL, author_name = NULL")
    discord.requests.clear()
    instance, spec = await found(mirror)
    done = await replay(mirror.use, instance, spec)
    assert (done.unreadable, done.pages) == (0, len(kept))
    assert discord.requests == []
    assert await mirror.holds(town) == []


async def test_a_deleted_row_is_not_brought_back_by_old_answers(
    mirror: Mirrored, discord: FakeDiscord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror.use, "keep_answers", True)
    town = build_town(discord, channels=2, messages=30)
    await mirror.enable(own_app(discord, town.guild))
    await mirror.sync()
    channel = town.channels[1]
    channel.remove(channel.order[3])
    # The answers of the sweep are not kept: those of the first run name the message.
    monkeypatch.setattr(mirror.use, "keep_answers", False)
    await mirror.sync(sweep=True)
    instance, spec = await found(mirror)
    await replay(mirror.use, instance, spec)
    assert await mirror.holds(town) == []
    rows = {each["name"]: each["rows"] for each in (await mirror.status())["tables"]}
    assert rows["discord.message"] == 29
