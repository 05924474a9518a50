"""Work rows: claimed once, finished under the epoch they were claimed with, retried when a worker is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import ClassVar

import pytest
from sqlalchemy import DateTime, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.core import work
from app.core.db import Database
from app.core.work import WorkRow, backoff, claim, claiming, drain, due_index, extend, fail, finish, keeping
from app.gateway import Gateway

LEASE = timedelta(seconds=60)


class Base(DeclarativeBase):
    """Tables of these tests alone."""

    type_annotation_map: ClassVar = {datetime: DateTime(timezone=True)}


class Job(Base, WorkRow):
    """A queue."""

    __tablename__ = "test_jobs"
    __table_args__ = (due_index("test_jobs"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    note: Mapped[str] = mapped_column(server_default="")


@pytest.fixture
async def db(gateway: Gateway) -> AsyncIterator[Database]:
    async with gateway.db.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield gateway.db
    async with gateway.db.engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)


async def add(db: Database, *ids: str, due_in: float = -1) -> None:
    async with db.begin() as session:
        for number, row in enumerate(ids):
            at = func.now() + timedelta(seconds=due_in + number / 1000)
            await session.execute(insert(Job).values(id=row, next_at=at))


async def take(db: Database, limit: int = 10, lease: timedelta = LEASE) -> list[Job]:
    async with db.begin() as session:
        return list(await claim(session, Job, limit=limit, lease=lease))


async def look(db: Database, row: str) -> Job:
    async with db.begin() as session:
        return (await session.scalars(select(Job).where(Job.id == row))).one()


async def expire(db: Database) -> None:
    async with db.begin() as session:
        await session.execute(update(Job).values(lease_until=func.clock_timestamp() - timedelta(seconds=1)))


async def test_the_longest_due_come_first(db: Database) -> None:
    await add(db, "c", "a", "b")
    await add(db, "later", due_in=60)
    assert [job.id for job in await take(db, 2)] == ["a", "c"], "c and a were due before b"
    assert [job.id for job in await take(db, 2)] == ["b"]
    assert await take(db) == []


async def test_two_workers_at_once_share_the_rows(db: Database) -> None:
    """While one has its claim open, the other neither waits for it nor takes the same rows."""
    await add(db, *"abcd")
    async with db.begin() as one:
        first = await claim(one, Job, limit=2, lease=LEASE)
        async with asyncio.timeout(5), db.begin() as two:
            second = await claim(two, Job, limit=4, lease=LEASE)
    assert {job.id for job in first} | {job.id for job in second} == set("abcd")
    assert len(first) == len(second) == 2


async def test_many_workers_take_each_row_once(db: Database) -> None:
    ids = [f"{number:03}" for number in range(100)]
    await add(db, *ids)
    batches = await asyncio.gather(*(take(db, 7) for _ in range(20)))
    assert sorted(job.id for batch in batches for job in batch) == ids


async def test_claiming_counts_tries_and_raises_the_epoch(db: Database) -> None:
    await add(db, "a")
    (job,) = await take(db)
    assert (job.epoch, job.attempt) == (1, 1)
    await expire(db)
    (job,) = await take(db)
    assert (job.epoch, job.attempt) == (2, 2), "an expired lease is taken over"
    async with db.begin() as session:
        assert await finish(session, job, note="done")
    job = await look(db, "a")
    assert (job.next_at, job.lease_until, job.attempt, job.note) == (None, None, 0, "done")
    assert await take(db) == []


@pytest.mark.parametrize("what", ["finish", "fail", "extend"])
async def test_a_worker_past_its_lease_writes_nothing(db: Database, what: str) -> None:
    await add(db, "a")
    (stale,) = await take(db)
    await expire(db)
    (fresh,) = await take(db)
    async with db.begin() as session:
        if what == "finish":
            assert not await finish(session, stale, note="stale")
        elif what == "fail":
            assert not await fail(session, stale, retry_in=None, note="stale")
        else:
            assert not await extend(session, stale, LEASE)
    job = await look(db, "a")
    assert (job.note, job.epoch, job.lease_until) == ("", 2, fresh.lease_until)
    async with db.begin() as session:
        assert await finish(session, fresh, note="fresh")


async def test_finishing_until_later(db: Database) -> None:
    await add(db, "a")
    (job,) = await take(db)
    async with db.begin() as session:
        assert await finish(session, job, next_at=func.clock_timestamp() + timedelta(milliseconds=50))
    assert await take(db) == []
    await asyncio.sleep(0.06)
    (job,) = await take(db)
    assert job.attempt == 1, "a success resets the tries"


async def test_failing_waits_and_keeps_the_tries(db: Database) -> None:
    await add(db, "a")
    for attempt in (1, 2, 3):
        (job,) = await take(db)
        assert job.attempt == attempt
        async with db.begin() as session:
            assert await fail(session, job, retry_in=timedelta(0))
    (job,) = await take(db)
    async with db.begin() as session:
        assert await fail(session, job, retry_in=timedelta(minutes=1))
    assert await take(db) == []
    job = await look(db, "a")
    async with db.begin() as session:
        assert await fail(session, job, retry_in=None, note="dead")
    assert (await look(db, "a")).next_at is None


async def test_extending_keeps_others_away(db: Database) -> None:
    await add(db, "a")
    (job,) = await take(db, lease=timedelta(milliseconds=1))
    async with db.begin() as session:
        assert await extend(session, job, LEASE)
    await asyncio.sleep(0.01)
    assert await take(db) == []


async def test_one_bad_row_does_not_fail_its_batch(db: Database) -> None:
    await add(db, *"abc")
    worked: list[str] = []

    async def job(held: Job) -> None:
        if held.id == "b":
            raise ZeroDivisionError
        async with db.begin() as session:
            await finish(session, held)
        worked.append(held.id)

    assert await drain(claiming(db, Job, LEASE), job, limit=10) == 3
    assert sorted(worked) == ["a", "c"]
    assert await drain(claiming(db, Job, LEASE), job, limit=10) == 0, "its lease runs"
    await expire(db)
    assert await drain(claiming(db, Job, LEASE), job, limit=10) == 1
    assert (await look(db, "b")).attempt == 2


async def test_a_lost_lease_undoes_the_work(db: Database) -> None:
    await add(db, "a")

    async def job(held: Job) -> None:
        await expire(db)
        await take(db)
        async with db.begin() as session:
            await session.execute(text("UPDATE test_jobs SET note = 'half done'"))
            if not await finish(session, held):
                raise work.LostLease

    assert await drain(claiming(db, Job, LEASE), job, limit=10) == 1
    assert (await look(db, "a")).note == ""


def test_backoff_doubles_up_to_its_bound() -> None:
    for attempt, seconds in ((1, 1), (2, 2), (3, 4), (10, 512), (13, 3600), (10_000, 3600)):
        for _ in range(20):
            assert 0.8 * seconds <= backoff(attempt).total_seconds() <= 1.2 * seconds
    assert backoff(1, first=60, most=5) <= timedelta(seconds=6)


async def test_a_row_that_takes_its_time_holds_up_no_other(db: Database) -> None:
    await add(db, "slow")
    let_go = asyncio.Event()

    async def job(held: Job) -> None:
        if held.id == "slow":
            await asyncio.wait_for(let_go.wait(), 10)
        else:
            let_go.set()
        async with db.begin() as session:
            await finish(session, held)

    draining = asyncio.create_task(drain(claiming(db, Job, LEASE), job, limit=10))
    await asyncio.sleep(0.05)
    await add(db, "quick")
    assert await draining == 2, "the slow one waited for the quick one, which came later"


async def test_what_takes_longer_than_its_lease_is_kept(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is nobody else's to take, while what was finished is not held anew."""
    short = timedelta(seconds=0.4)
    monkeypatch.setattr(work, "_KEEP_SECONDS", 0.05)
    monkeypatch.setattr(work, "_LOOK_AGAIN", 0.05)
    await add(db, "slow", "quick")
    taken = []

    async def work_on(job: Job) -> None:
        taken.append(job.id)
        if job.id == "slow":
            await asyncio.sleep(1.2)
        async with db.begin() as session:
            assert await finish(session, job), "the lease is still this worker's"

    async def drain_jobs() -> None:
        await drain(claiming(db, Job, short), work_on, limit=2, keep=keeping(db, Job, short))

    async def elsewhere() -> None:
        for _ in range(8):
            await asyncio.sleep(0.15)
            await drain_jobs()

    await asyncio.gather(drain_jobs(), elsewhere())
    assert sorted(taken) == ["quick", "slow"]
    for row in ("slow", "quick"):
        assert (await look(db, row)).lease_until is None


async def test_a_failing_claim_cuts_off_nothing_in_hand(db: Database) -> None:
    await add(db, "slow")
    looks = 0
    finished: list[str] = []

    async def pull(session: AsyncSession) -> None:
        nonlocal looks
        looks += 1
        if looks > 1:
            raise ConnectionError

    async def job(held: Job) -> None:
        await asyncio.sleep(0.6)
        finished.append(held.id)

    with pytest.raises(ConnectionError):
        await drain(claiming(db, Job, LEASE, pull=pull), job, limit=10)
    assert finished == ["slow"]
