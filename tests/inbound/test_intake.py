"""Group commit: webhooks that arrive together share statements, and nothing else."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import asyncpg
import httpx
import pytest

from app.gateway import Gateway
from app.inbound import store
from app.inbound.store import Incoming, Intake, Verdict
from tests.conftest import Driver

Ingest = Callable[[Any, Sequence[Incoming]], Awaitable[list[Verdict]]]
BAD = b"refuse me"


class Statements:
    """Stands before the real `ingest`: counts statements, holds them back, makes them fail."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest
        self.batches: list[list[bytes]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.error: Exception | None = None

    async def __call__(self, pool: Any, batch: Sequence[Incoming]) -> list[Verdict]:
        self.batches.append([item.body for item in batch])
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return await self._ingest(pool, batch)

    async def begun(self, count: int) -> None:
        """Until so many statements have been begun."""
        async with asyncio.timeout(10):
            while len(self.batches) < count:
                await asyncio.sleep(0.001)


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Statements:
    counted = Statements(store.ingest)
    monkeypatch.setattr(store, "ingest", counted)
    return counted


@pytest.fixture
async def intake(gateway: Gateway) -> AsyncIterator[Intake]:
    intake = Intake(gateway.db)
    yield intake
    async with asyncio.timeout(10):
        while intake._group._tasks:
            await asyncio.sleep(0.001)


@pytest.fixture
async def instance(driver: Driver) -> tuple[str, int]:
    """The id and generation of an instance that may have webhooks."""
    plugins = [{"name": "probe", "config": {"label": "a", "webhook_secret": "s"}}]
    assert (await driver.put(plugins=plugins)).status_code == 201
    row = await driver.db.pool.fetchrow("SELECT id, generation FROM instances")
    assert row is not None
    return row["id"], row["generation"]


@pytest.fixture
def incoming(instance: tuple[str, int]) -> Callable[..., Incoming]:
    def make(body: bytes = b"{}", key: str | None = None, **changes: Any) -> Incoming:
        fields: dict[str, Any] = {"instance_id": instance[0], "generation": instance[1], "hook": "", **changes}
        return Incoming(key=key, headers=fields.pop("headers", ()), body=body, **fields)

    return make


async def stored(driver: Driver) -> list[bytes]:
    """The bodies that are stored, in the order of their positions."""
    return [row["body"] for row in await driver.db.pool.fetch("SELECT body FROM receipts ORDER BY position")]


async def test_what_arrives_during_a_commit_shares_the_next(
    intake: Intake, driver: Driver, incoming: Callable[..., Incoming], statements: Statements
) -> None:
    statements.open.clear()
    first = [asyncio.create_task(intake.store([incoming(b"%d" % number)])) for number in range(2)]
    await statements.begun(1)
    late = [asyncio.create_task(intake.store([incoming(b"%d" % number)])) for number in range(2, 60)]
    await asyncio.sleep(0.05)
    assert len(statements.batches) == 1, "one commit is in flight at most"
    statements.open.set()
    assert await asyncio.gather(*first, *late) == [["stored"]] * 60
    assert [len(batch) for batch in statements.batches] == [2, 58]
    assert sorted(await stored(driver)) == sorted(b"%d" % number for number in range(60))


async def test_one_that_comes_alone_waits_for_nobody(
    intake: Intake, incoming: Callable[..., Incoming], statements: Statements
) -> None:
    for _ in range(3):
        async with asyncio.timeout(10):
            assert await intake.store([incoming()]) == ["stored"]
    assert [len(batch) for batch in statements.batches] == [1, 1, 1]


async def test_at_most_256_rows_a_statement(
    intake: Intake, driver: Driver, incoming: Callable[..., Incoming], statements: Statements
) -> None:
    bodies = [b"%d" % number for number in range(600)]
    assert await intake.store([incoming(body) for body in bodies]) == ["stored"] * 600
    assert sorted(len(batch) for batch in statements.batches) == [88, 256, 256]
    assert sorted(await stored(driver)) == sorted(bodies)


async def test_at_most_four_mebibytes_a_statement_but_always_one_row(
    intake: Intake, incoming: Callable[..., Incoming], statements: Statements
) -> None:
    mebibyte = 1024 * 1024
    sizes = [3 * mebibyte, mebibyte, 1, 6 * mebibyte, 1]
    assert await intake.store([incoming(b"x" * size) for size in sizes]) == ["stored"] * 5
    batches = [[len(body) for body in batch] for batch in statements.batches]
    assert sorted(batches) == sorted([[3 * mebibyte, mebibyte], [1], [6 * mebibyte], [1]])


async def test_verdicts_come_in_order_whatever_the_statement_said(
    intake: Intake, driver: Driver, incoming: Callable[..., Incoming], instance: tuple[str, int]
) -> None:
    await intake.store([incoming(key="old")])
    verdicts = await intake.store(
        [
            incoming(b"a", key="new"),
            incoming(b"b", generation=instance[1] + 1),
            incoming(b"c", key="old"),
            incoming(b"d"),
            incoming(b"e", key="new"),
            incoming(b"f", instance_id="ins_none", key="new"),
            incoming(b"g"),
        ]
    )
    assert verdicts == ["stored", "stale", "repeated", "stored", "repeated", "stale", "stored"]
    assert await stored(driver) == [b"{}", b"a", b"d", b"g"]


@pytest.mark.parametrize("places", [(0,), (37,), (99,), (3, 4, 60)])
async def test_a_refused_row_fails_only_itself(
    intake: Intake, driver: Driver, incoming: Callable[..., Incoming], places: tuple[int, ...]
) -> None:
    # A NUL cannot be stored as text. No webhook gets this far with one; the database is to refuse something.
    items = [incoming(b"%d" % place, key="a\0b" if place in places else None) for place in range(100)]
    answers = await asyncio.gather(*(intake.store([item]) for item in items), return_exceptions=True)
    for place, answer in enumerate(answers):
        if place in places:
            assert isinstance(answer, asyncpg.DataError)
        else:
            assert answer == ["stored"]
    assert await stored(driver) == [b"%d" % place for place in range(100) if place not in places]


async def test_a_request_that_goes_away_takes_no_other_with_it(
    intake: Intake, driver: Driver, incoming: Callable[..., Incoming], statements: Statements
) -> None:
    statements.open.clear()
    tasks = [asyncio.create_task(intake.store([incoming(b"%d" % number)])) for number in range(3)]
    await statements.begun(1)
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    statements.open.set()
    assert await asyncio.gather(*tasks[1:]) == [["stored"], ["stored"]]
    assert await stored(driver) == [b"0", b"1", b"2"]


async def test_when_the_database_is_away_everybody_hears_of_it(
    intake: Intake, driver: Driver, incoming: Callable[..., Incoming], statements: Statements
) -> None:
    statements.open.clear()
    tasks = [asyncio.create_task(intake.store([incoming()])) for _ in range(20)]
    await statements.begun(1)
    tasks += [asyncio.create_task(intake.store([incoming()])) for _ in range(20)]
    statements.error = ConnectionRefusedError("away")
    statements.open.set()
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(answer) for answer in answers} == {ConnectionRefusedError}
    statements.error = None
    assert await intake.store([incoming()]) == ["stored"], "and goes on when it is back"


async def test_the_database_goes_away_between_the_halves_of_a_batch(
    intake: Intake, incoming: Callable[..., Incoming], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    async def ingest(_: Any, batch: Sequence[Incoming]) -> list[Verdict]:
        sizes.append(len(batch))
        if len(batch) == 8:
            raise asyncpg.DataError
        if len(sizes) == 2:
            return ["stored"] * len(batch)
        raise ConnectionResetError

    monkeypatch.setattr(store, "ingest", ingest)
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*(intake.store([incoming()]) for _ in range(8)), return_exceptions=True)
    assert answers[:4] == [["stored"]] * 4
    assert {type(answer) for answer in answers[4:]} == {ConnectionResetError}
    assert sizes == [8, 4, 4]


async def test_platforms_get_503_and_repeat_themselves(
    driver: Driver, instance: tuple[str, int], anonymous: httpx.AsyncClient, statements: Statements
) -> None:
    headers = {"X-Signature": "sha256=" + hmac.new(b"s", b"{}", hashlib.sha256).hexdigest(), "X-Delivery": "d"}

    async def post() -> httpx.Response:
        return await anonymous.post("/api/hooks/town/probe", content=b"{}", headers=headers)

    statements.error = ConnectionRefusedError("away")
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*(post() for _ in range(20)))
    assert {answer.status_code for answer in answers} == {503}
    assert all(answer.headers["retry-after"] for answer in answers)
    statements.error = None
    assert (await post()).status_code == 202


async def test_one_that_comes_just_as_the_last_commits_end_is_not_forgotten(
    intake: Intake, incoming: Callable[..., Incoming], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit finds nothing left to do, and the next webhook is there before its task is cleared away."""
    loop = asyncio.get_running_loop()
    commits: list[asyncio.Future[None]] = []

    async def ingest(_: Any, batch: Sequence[Incoming]) -> list[Verdict]:
        commits.append(loop.create_future())
        await commits[-1]
        return ["stored"] * len(batch)

    async def arrive(when: asyncio.Future[None]) -> list[Verdict]:
        await when
        return await intake.store([incoming()])

    monkeypatch.setattr(store, "ingest", ingest)
    signal: asyncio.Future[None] = loop.create_future()
    first = asyncio.create_task(intake.store([incoming()]))
    second = asyncio.create_task(arrive(signal))
    await asyncio.sleep(0.01)
    assert len(commits) == 1
    for future in (*commits, signal):
        future.set_result(None)
    await first
    await asyncio.sleep(0.01)
    assert len(commits) == 2, "nobody came for the second"
    commits[1].set_result(None)
    assert await second == ["stored"]


async def test_credentials_in_headers_are_not_kept(
    intake: Intake, driver: Driver, incoming: Callable[..., Incoming]
) -> None:
    headers = (("Authorization", "Bearer x"), ("X-Kind", "a"), ("cookie", "y"), ("X-Kind", "b"))
    await intake.store([incoming(headers=headers)])
    [kept] = (await driver.get("receipts")).json()["receipts"]
    assert kept["headers"] == [["X-Kind", "a"], ["X-Kind", "b"]]
