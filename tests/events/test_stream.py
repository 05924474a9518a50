"""The stream of events: each event once and in order, across reconnects, processes and late commits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.core.settings import Settings
from app.events import log, stream
from app.events.log import START, Filter
from app.events.service import NewEvent, record
from app.events.stream import EventStreamResponse
from app.gateway import Gateway
from app.host.discovery import Plugins
from app.main import create_app
from tests.conftest import Driver, settle
from tests.support.servers import free_port, listening, stop, wait_ready

PATH = "/api/internal/events/stream"


@pytest.fixture
async def url(app: FastAPI, gateway: Gateway) -> AsyncIterator[str]:
    async with listening(app) as base:
        yield base


class Reader:
    """One open stream, read line by line as the format says."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()
        self.heartbeats = 0

    async def next(self) -> dict[str, str]:
        """The next event's fields; comments are counted. Raises StopAsyncIteration at the end of the stream."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(15):
            while True:
                line = await anext(self._lines)
                if line.startswith(":"):
                    self.heartbeats += 1
                elif line:
                    name, _, value = line.partition(": ")
                    assert name not in fields
                    fields[name] = value
                elif fields:
                    return fields

    async def numbers(self, count: int) -> list[int]:
        return [json.loads((await self.next())["data"])["data"]["number"] for _ in range(count)]

    async def heartbeat(self) -> None:
        async with asyncio.timeout(15):
            while not (await anext(self._lines)).startswith(":"):
                pass

    async def until_end(self) -> None:
        async with asyncio.timeout(15):
            async for _ in self._lines:
                pass


@contextlib.asynccontextmanager
async def reading(url: str, driver: Driver, last: str | None = None, **query: str) -> AsyncIterator[Reader]:
    headers = {"Authorization": f"Bearer {driver.api_key}"} | ({"Last-Event-ID": last} if last else {})
    async with (
        httpx.AsyncClient(trust_env=False, timeout=30) as client,
        client.stream("GET", url + PATH, params=query, headers=headers) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        yield Reader(answer)


def event(driver: Driver, number: int, **changes: Any) -> NewEvent:
    fields: dict[str, Any] = {"community": "town", "source": "test", "event_type": "numbered", **changes}
    return NewEvent(
        driver.id, None, fields["community"], None, fields["source"], fields["event_type"], {"number": number}
    )


async def write(driver: Driver, *numbers: int, **changes: Any) -> None:
    async with driver.db.begin() as session:
        await record(session, [event(driver, number, **changes) for number in numbers])


async def test_an_event_as_it_happens(driver: Driver, url: str) -> None:
    await write(driver, 1)
    await settle(driver.db)
    async with reading(url, driver) as reader:
        assert reader.answer.headers["content-type"].startswith("text/event-stream")
        await write(driver, 2)
        got = await reader.next()
    assert got["event"] == "test.numbered"
    listed = (await driver.get("events")).json()
    assert json.loads(got["data"]) == listed["events"][1], "from now on: the first had happened before"
    assert got["id"] == listed["next"], "its id is a cursor of the list"


async def test_an_empty_after_is_the_beginning(driver: Driver, url: str) -> None:
    await write(driver, *range(250))
    async with reading(url, driver, after="") as reader:
        assert await reader.numbers(250) == list(range(250))


async def test_each_event_once_across_reconnects_late_commits_and_processes(
    driver: Driver, url: str, settings: Settings, plugins: Plugins
) -> None:
    chance = random.Random(11)
    many = 120

    async def write_slowly(number: int) -> None:
        await asyncio.sleep(chance.random() * 2)
        async with driver.db.begin() as session:
            await record(session, [event(driver, number)])
            await asyncio.sleep(chance.random() / 5)

    second = create_app(settings, plugins)
    async with second.router.lifespan_context(second), listening(second) as second_url:
        writers = asyncio.gather(*(write_slowly(number) for number in range(many)))
        async with reading(url, driver, after="") as steady:
            seen: list[int] = []
            last: str | None = None
            while len(seen) < many:
                base = chance.choice((url, second_url))
                async with reading(base, driver, last, after="") as reader:
                    for _ in range(min(chance.randrange(1, 40), many - len(seen))):
                        got = await reader.next()
                        last = got["id"]
                        seen.append(json.loads(got["data"])["data"]["number"])
            await writers
            assert await steady.numbers(many) == seen, "whoever reads, the order is the same"
    assert sorted(seen) == list(range(many))
    await settle(driver.db)
    listed = (await driver.get("events", limit=500)).json()["events"]
    assert [item["data"]["number"] for item in listed] == seen


async def test_filters_and_other_drivers(driver: Driver, other_driver: Driver, url: str) -> None:
    async with (
        reading(url, driver, type="wanted") as by_type,
        reading(url, driver, source="elsewhere") as by_source,
        reading(url, driver, community="village") as by_community,
        reading(url, other_driver) as others,
    ):
        await write(driver, 1)
        await write(driver, 2, event_type="wanted")
        await write(driver, 3, source="elsewhere")
        await write(driver, 4, community="village")
        await write(other_driver, 5)
        await write(driver, 6, event_type="wanted")
        assert await by_type.numbers(2) == [2, 6]
        assert await by_source.numbers(1) == [3]
        assert await by_community.numbers(1) == [4]
        assert await others.numbers(1) == [5]


async def test_a_filtered_stream_reads_what_passes_it_by_only_once(
    driver: Driver, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "POLL_SECONDS", 0.02)
    reads = 0
    read_after = log.read_after

    async def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal reads
        reads += 1
        return await read_after(*arguments, **options)

    monkeypatch.setattr(log, "read_after", counted)
    async with reading(url, driver, type="other") as reader:
        await reader.heartbeat()
        await write(driver, 1)
        await settle(driver.db)
        await asyncio.sleep(0.5)
        assert 1 <= reads <= 4
        await write(driver, 2, event_type="other")
        assert await reader.numbers(1) == [2]


async def test_refusals_come_before_the_stream(driver: Driver, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        assert (await client.get(PATH)).status_code == 401
        client.headers["Authorization"] = f"Bearer {driver.api_key}"
        for cursor in ("nonsense", "a b", "W10"):
            for refused in (
                await client.get(PATH, params={"after": cursor}),
                await client.get(PATH, headers={"Last-Event-ID": cursor}),
            ):
                assert refused.status_code == 422
                assert refused.headers["content-type"] == "application/problem+json"
        monkeypatch.setattr(stream, "MOST_STREAMS", 1)
        async with reading(url, driver) as reader:
            await reader.heartbeat()
            assert (await client.get(PATH)).status_code == 429


async def test_heartbeats_and_no_connection_held_while_waiting(
    driver: Driver, gateway: Gateway, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(stream, "POLL_SECONDS", 60)
    pool = gateway.db.pool
    async with reading(url, driver) as reader:
        for _ in range(3):
            await reader.heartbeat()
        monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 60)
        await reader.heartbeat()
        async with asyncio.timeout(10):
            while pool.get_idle_size() < pool.get_size():
                await asyncio.sleep(0.01)


async def test_a_revoked_key_ends_its_stream(
    driver: Driver, gateway: Gateway, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.1)
    async with reading(url, driver) as reader:
        await reader.heartbeat()
        await gateway.db.pool.execute("UPDATE api_keys SET revoked_at = now() WHERE driver_id = $1", driver.id)
        await reader.until_end()


async def test_a_stream_ends_in_good_order_when_the_database_is_away(
    driver: Driver, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*arguments: Any, **options: Any) -> None:
        raise ConnectionRefusedError

    async with reading(url, driver) as reader:
        await reader.heartbeat()
        monkeypatch.setattr(log, "read_after", away)
        await write(driver, 1)
        await reader.until_end()


async def test_a_reader_that_goes_away_leaves_nothing(driver: Driver, app: FastAPI, url: str) -> None:
    def polls() -> list[str]:
        names = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]  # type: ignore[union-attr]
        return [name for name in names if name == "EventStreams._poll"]

    async with reading(url, driver) as one, reading(url, driver) as two:
        await one.heartbeat()
        await two.heartbeat()
        assert len(polls()) == 1, "streams of a process share one loop"
    async with asyncio.timeout(10):
        while polls() or app.state.streams._followed:
            await asyncio.sleep(0.01)


async def test_a_stalled_reader_is_let_go(driver: Driver, app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "STALLED_SECONDS", 0.05)

    async def allowed() -> None:
        return None

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.Event().wait()
        return {}

    source = app.state.streams.follow(driver.id, START, Filter(), allowed)
    async with asyncio.timeout(10):
        await EventStreamResponse(source)({"type": "http"}, receive, send)
    assert not app.state.streams._followed


async def test_a_types_name_cannot_forge_fields(driver: Driver, url: str) -> None:
    await write(driver, 1, event_type="a\ndata: forged\r\nid: 7\u2028")
    async with reading(url, driver, after="") as reader:
        got = await reader.next()
    assert json.loads(got["data"])["data"] == {"number": 1}
    assert got["event"].startswith("test.a data: forged")


async def test_a_process_that_is_asked_to_end_ends_its_streams(driver: Driver, settings: Settings) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "METAGOV_DATABASE_URL": settings.database_url,
        "METAGOV_REDIS_URL": settings.redis_url,
        "METAGOV_SECRET_KEYS": settings.secret_keys.get_secret_value(),
        "METAGOV_LOG_LEVEL": "warning",
    }
    command = [sys.executable, "-m", "app.cli", "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        await wait_ready(f"http://127.0.0.1:{port}")
        async with reading(f"http://127.0.0.1:{port}", driver) as reader:
            await reader.heartbeat()
            process.send_signal(signal.SIGTERM)
            await reader.until_end()
        printed, _ = await asyncio.to_thread(process.communicate, timeout=10)
    finally:
        stop(process)
    assert b"Traceback" not in printed
    assert b"graceful shutdown exceeded" not in printed


def test_it_is_documented_as_a_stream(app: FastAPI) -> None:
    operation = app.openapi()["paths"][PATH]["get"]
    assert operation["operationId"] == "stream_events"
    assert operation["responses"]["200"]["content"] == {"text/event-stream": {"schema": {"type": "string"}}}
    assert {"Last-Event-ID", "after", "type", "source", "community"} <= {
        parameter.get("name") for parameter in operation["parameters"]
    }
