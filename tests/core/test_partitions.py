"""Partitions: made ahead, dropped when old, with a net below them; by many at once, and beside those who write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from app.core import partitions
from app.core.db import Database
from app.core.ids import lowest_id, moment_of, new_id
from app.core.partitions import AHEAD, Partitioned, Span, drop_old, make_ahead, missing, oldest, width
from app.gateway import Gateway

NOTES = Partitioned("test_notes", "tst", "fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01")
DAY = timedelta(days=1)
WEEK = timedelta(weeks=1)
MONDAY = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.fixture
async def db(gateway: Gateway) -> AsyncIterator[Database]:
    """A table with nothing but its DEFAULT partition."""
    await gateway.db.pool.execute("""
        CREATE TABLE test_notes (
            id varchar COLLATE "C" PRIMARY KEY, text text DEFAULT 'none', next_at timestamptz DEFAULT now()
        ) PARTITION BY RANGE (id);
        CREATE INDEX ix_test_notes_due ON test_notes (next_at) WHERE next_at IS NOT NULL;
        CREATE TABLE test_notes_default PARTITION OF test_notes DEFAULT;
    """)
    yield gateway.db
    await gateway.db.pool.execute("DROP TABLE test_notes")


def aged(age: timedelta) -> str:
    """An id made `age` ago."""
    return lowest_id("tst", datetime.now(UTC) - age)[:-16] + new_id("tst")[-16:]


async def add(db: Database, *ids: str) -> None:
    await db.pool.executemany("INSERT INTO test_notes (id) VALUES ($1)", [(row,) for row in ids])


async def places(db: Database) -> dict[str, str]:
    """Every row's partition."""
    rows = await db.pool.fetch("SELECT id, tableoid::regclass::text AS place FROM test_notes")
    return {row["id"]: row["place"] for row in rows}


async def names(db: Database) -> list[str]:
    rows = await db.pool.fetch(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'test_notes'::regclass"
    )
    return sorted(row[0] for row in rows)


def test_ids_and_moments_agree() -> None:
    before = datetime.now(UTC)
    made = new_id("tst")
    after = datetime.now(UTC)
    assert lowest_id("tst", before) <= made < lowest_id("tst", after + timedelta(milliseconds=1))
    assert before - timedelta(milliseconds=1) < moment_of(made) <= after
    assert moment_of(lowest_id("tst", MONDAY)) == MONDAY
    assert len(lowest_id("tst", MONDAY)) == len(made)
    for wrong in ("tst_short", "tst_" + "u" * 26, ""):
        with pytest.raises(ValueError, match=r"not an id|substring not found"):
            moment_of(wrong)
    with pytest.raises(ValueError, match="1970"):
        lowest_id("tst", datetime(1969, 12, 31, tzinfo=UTC))


@pytest.mark.parametrize(("days", "wide"), [(1, DAY), (14, DAY), (15, WEEK), (30, WEEK), (98, WEEK), (99, 2 * WEEK)])
def test_the_width_follows_what_is_kept(days: int, wide: timedelta) -> None:
    assert width(timedelta(days=days)) == wide


def test_whatever_is_kept_there_are_few_partitions() -> None:
    for days in range(1, 3651):
        keep = timedelta(days=days)
        assert len(missing([], MONDAY - keep, MONDAY, width(keep))) <= 15


def test_spans_are_cut_on_mondays_and_leave_out_what_is_there() -> None:
    wednesday = MONDAY + 2 * DAY
    assert missing([], wednesday, wednesday + WEEK, WEEK) == [
        Span(MONDAY, MONDAY + WEEK),
        Span(MONDAY + WEEK, MONDAY + 2 * WEEK),
    ]
    daily = [Span(MONDAY + 3 * DAY, MONDAY + 4 * DAY), Span(MONDAY + DAY, MONDAY + 2 * DAY)]
    assert missing(daily, wednesday, wednesday + DAY, WEEK) == [
        Span(MONDAY, MONDAY + DAY),
        Span(MONDAY + 2 * DAY, MONDAY + 3 * DAY),
        Span(MONDAY + 4 * DAY, MONDAY + WEEK),
    ]
    assert missing([Span(MONDAY - WEEK, MONDAY + 4 * WEEK)], wednesday, wednesday + WEEK, WEEK) == []


async def test_partitions_are_made_ahead_with_their_storage_parameters(db: Database) -> None:
    made = await make_ahead(db, NOTES, timedelta(days=5))
    assert made in (14, 15), "this day, and those that begin within two weeks"
    assert await make_ahead(db, NOTES, timedelta(days=5)) == 0
    soon = aged(-AHEAD + timedelta(hours=1))
    await add(db, soon, aged(timedelta()))
    assert "test_notes_default" not in (await places(db)).values()
    options = await db.pool.fetchval("SELECT reloptions FROM pg_class WHERE relname = $1", (await places(db))[soon])
    assert options == ["fillfactor=70", "autovacuum_vacuum_scale_factor=0.01"]
    indexes = await db.pool.fetchval("SELECT count(*) FROM pg_indexes WHERE tablename = $1", (await places(db))[soon])
    assert indexes == 2, "the parent's"
    assert await db.pool.fetchval("SELECT text FROM test_notes WHERE id = $1", soon) == "none"


async def test_another_width_goes_on_behind_what_is_there(db: Database) -> None:
    await make_ahead(db, NOTES, timedelta(days=5))
    before = await names(db)
    await make_ahead(db, NOTES, timedelta(days=30))
    assert set(before) < set(await names(db))
    rows = [aged(-timedelta(days=days)) for days in range(20)]
    await add(db, *rows)
    found = await places(db)
    assert all(found[row] != "test_notes_default" for row in rows[: AHEAD.days])


async def test_a_row_without_a_partition_is_kept_and_moved_later(db: Database) -> None:
    now, lately, long_ago = aged(timedelta()), aged(20 * DAY), aged(200 * DAY)
    await add(db, now, lately, long_ago)
    assert set((await places(db)).values()) == {"test_notes_default"}
    await make_ahead(db, NOTES, 30 * DAY)
    found = await places(db)
    assert set(found) == {now, lately, long_ago}
    assert found[long_ago] == "test_notes_default", "too old to get a partition"
    assert len({found[now], found[lately], found[long_ago]}) == 3
    since = await oldest(db.pool, NOTES)
    assert since is not None
    assert since <= moment_of(lately) < since + WEEK, "empty weeks in between get none, nor does what is before"


async def test_what_is_old_goes_and_what_is_young_stays(db: Database) -> None:
    ages = [0, 1, 3, 7, 12, 40, 60]
    rows = {age: aged(age * DAY) for age in ages}
    await add(db, *rows.values())
    await make_ahead(db, NOTES, 50 * DAY)
    stray = aged(55 * DAY)
    await add(db, stray)
    assert await drop_old(db, NOTES, 5 * DAY) >= 1
    found = set(await places(db))
    assert {rows[0], rows[1], rows[3]} <= found
    assert not found & {rows[40], rows[60], stray}
    assert not found & {rows[12]} or width(50 * DAY) > DAY, "a week goes as a whole"
    tables = await db.pool.fetch(
        "SELECT relname FROM pg_class WHERE relname LIKE 'test\\_notes\\_2%' AND relkind = 'r'"
    )
    assert sorted([*(row[0] for row in tables), "test_notes_default"]) == await names(db), "no table is left over"


async def test_many_at_once_do_it_once(db: Database) -> None:
    await add(db, aged(timedelta()), aged(20 * DAY), aged(60 * DAY))
    counts = await asyncio.gather(*(make_ahead(db, NOTES, 90 * DAY) for _ in range(4)))
    made = len(await names(db)) - 1
    assert sum(counts) == made
    assert len(await places(db)) == 3
    dropped = await asyncio.gather(*(drop_old(db, NOTES, 30 * DAY) for _ in range(4)))
    assert sum(dropped) == made - (len(await names(db)) - 1) == 1
    assert len(await places(db)) == 2


async def test_a_partition_that_is_dropped_while_they_are_listed_is_left_out(db: Database) -> None:
    await add(db, aged(timedelta()), aged(60 * DAY))
    await make_ahead(db, NOTES, 90 * DAY)
    connection = await db.pool.acquire()
    transaction = connection.transaction(isolation="repeatable_read")
    await transaction.start()
    try:
        # From here on it sees all partitions' rows in the catalog, whatever others do; their bounds go with them.
        before = await partitions._present(connection, NOTES)
        assert await drop_old(db, NOTES, 30 * DAY) == 1
        after = await partitions._present(connection, NOTES)
    finally:
        await transaction.rollback()
        await db.pool.release(connection)
    assert len(before) - len(after) == 1


async def test_a_long_transaction_is_given_way_to(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "_TRIES", 1)
    row = aged(60 * DAY)
    await add(db, row)
    assert await make_ahead(db, NOTES, 90 * DAY)
    connection = await db.pool.acquire()
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.fetch("SELECT FROM test_notes")
        assert await drop_old(db, NOTES, 30 * DAY) == 0
        await db.pool.execute("INSERT INTO test_notes (id) VALUES ($1)", aged(timedelta()))
        assert row in await places(db)
    finally:
        await transaction.rollback()
        await db.pool.release(connection)
    assert await drop_old(db, NOTES, 30 * DAY) == 1
    assert row not in await places(db)


async def test_work_goes_on_while_partitions_come_and_go(db: Database) -> None:
    """Rows are added and claimed without an error, and none is lost, whatever is made, moved and dropped meanwhile."""
    written: list[str] = []
    claimed: list[str] = []
    done = asyncio.Event()
    writing = 4

    async def write() -> None:
        nonlocal writing
        while not done.is_set():
            row = new_id("tst")
            await db.pool.execute("INSERT INTO test_notes (id) VALUES ($1)", row)
            written.append(row)
        writing -= 1

    async def claim() -> None:
        while writing or len(claimed) < len(written):
            rows = await db.pool.fetch("""
                WITH due AS (
                    SELECT id FROM test_notes WHERE next_at IS NOT NULL AND text = 'none'
                    ORDER BY next_at LIMIT 20 FOR UPDATE SKIP LOCKED
                )
                UPDATE test_notes SET next_at = NULL WHERE id IN (SELECT id FROM due) RETURNING id
            """)
            claimed.extend(row[0] for row in rows)
            await asyncio.sleep(0)

    async def keep_house() -> None:
        await asyncio.sleep(0.2)
        for _ in range(5):
            for weeks in range(10, 14):
                await db.pool.execute(
                    "INSERT INTO test_notes (id, text) VALUES ($1, 'old')", aged(timedelta(weeks=weeks))
                )
            assert await make_ahead(db, NOTES, timedelta(weeks=14)) >= 4
            assert await drop_old(db, NOTES, timedelta(weeks=8)) >= 4
        done.set()

    async with asyncio.timeout(60):
        await asyncio.gather(*(write() for _ in range(writing)), claim(), claim(), keep_house())
    assert len(written) > 100
    found = await places(db)
    assert set(found) == set(written)
    assert "test_notes_default" not in found.values(), "those from before the first partition were moved"
    assert sorted(claimed) == sorted(written), "each was claimed once"
