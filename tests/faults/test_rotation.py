"""Row 16: signing secrets change under load. Receivers verify every post; after the overlap the old secret is dead."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import httpx
from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError

from app.core.db import Database
from app.core.settings import Settings
from app.events.service import NewEvent, callback_endpoint, record
from tests.faults.receiver import receiving
from tests.faults.rig import Platform, Rig, until
from tests.support.sink import Posted

DRIVERS = "/api/internal/driver/rotate-secret"
ENDPOINTS = "/api/internal/driver/endpoints"
ROTATIONS = 4
LEARNS_AFTER = 1.5
"""Seconds between a rotation and the receiver's being told of it: until then it has but the old secret."""


class Receiver:
    """Holds one secret at a time, and refuses what it does not verify."""

    def __init__(self, secret: str) -> None:
        self.secrets = [secret]
        self.posts: list[Posted] = []
        self.refused: list[str] = []

    async def take(self, posted: Posted) -> int:
        self.posts.append(posted)
        if verifies(posted, self.secrets[-1]):
            return 204
        self.refused.append(posted.headers["webhook-id"])
        return 401

    def signed_twice(self) -> int:
        """How many posts carry two signatures."""
        return sum(" " in posted.headers["webhook-signature"] for posted in self.posts)


def verifies(posted: Posted, secret: str) -> bool:
    try:
        Webhook(secret).verify(posted.body, posted.headers)
    except WebhookVerificationError:
        return False
    return True


async def rotate(http: httpx.AsyncClient, path: str, receiver: Receiver) -> None:
    """New secrets, one after the other; the receiver learns each later than the gateway."""
    for _ in range(ROTATIONS):
        answer = await http.post(path)
        assert answer.status_code == 200, answer.text
        await asyncio.sleep(LEARNS_AFTER)
        receiver.secrets.append(answer.json()["secret"])
        await asyncio.sleep(0.5)


async def repeat(job: Callable[[int], Awaitable[None]], done: asyncio.Event) -> int:
    """Do a job again and again; returns how often it was done."""
    for number in itertools.count():
        if done.is_set():
            return number
        await job(number)
        await asyncio.sleep(0.01)
    raise AssertionError


async def test_secrets_rotate_under_load(rig: Rig) -> None:
    settings = Settings(database_url=rig.database_url, secret_keys=SecretStr(rig.environment["METAGOV_SECRET_KEYS"]))
    rig.start("second worker")
    async with Database(settings) as db, rig.client() as http:
        called = Receiver((await http.post(DRIVERS)).json()["secret"])
        told = Receiver("")
        async with receiving(called.take) as callback_url, receiving(told.take) as url:
            made = (await http.post(ENDPOINTS, json={"url": url, "events": ["github.*"]})).json()
            told.secrets = [made["secret"]]
            driver = await db.pool.fetchval("SELECT id FROM drivers")
            async with db.begin() as session:
                callback = await callback_endpoint(session, driver, callback_url)
            platform = Platform(http)

            async def send(number: int) -> None:
                await platform.send(f"rotation-{len(platform.sent)}")

            async def call_back(number: int) -> None:
                data = {"number": number}
                event = NewEvent(driver, None, None, None, "rotation", "called", data, callback_id=callback)
                async with db.begin() as session:
                    await record(session, [event])

            async def load(job: Callable[[], Awaitable[object]]) -> None:
                """Webhooks and callbacks while the job lasts; returns once all of them are delivered."""
                done = asyncio.Event()
                before = len(told.posts), len(called.posts)
                loads = [asyncio.create_task(repeat(each, done)) for each in (send, call_back)]
                await job()
                done.set()
                sent, recorded = [await each for each in loads]

                async def heard() -> bool:
                    return len(told.posts) - before[0] >= sent and len(called.posts) - before[1] >= recorded

                await until(heard, 20, "every event posted")

            await load(
                lambda: asyncio.gather(
                    rotate(http, f"{ENDPOINTS}/{made['id']}/rotate-secret", told), rotate(http, DRIVERS, called)
                )
            )
            print(f"\n{ROTATIONS} rotations of each under {len(told.posts)} posts and {len(called.posts)} callbacks")
            print(
                f"signed twice: {told.signed_twice()}, {called.signed_twice()}; refused {told.refused + called.refused}"
            )
            assert told.refused + called.refused == []
            assert min(told.signed_twice(), called.signed_twice()) > 50, "the overlap was under load"
            # The 24 hours of the overlap are over, by the database's clock.
            for table in ("endpoints", "drivers"):
                await db.pool.execute(f"UPDATE {table} SET previous_until = previous_until - interval '24 hours'")
            await asyncio.sleep(1)
            for receiver in (told, called):
                receiver.posts.clear()
            await load(lambda: asyncio.sleep(1))
            for receiver in (told, called):
                assert receiver.posts
                assert receiver.signed_twice() == 0
                assert all(verifies(posted, receiver.secrets[-1]) for posted in receiver.posts)
                for old in receiver.secrets[:-1]:
                    assert not any(verifies(posted, old) for posted in receiver.posts), "the old secret is dead"
            assert told.refused + called.refused == []
