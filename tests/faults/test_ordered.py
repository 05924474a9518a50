"""Row 17: an ordered endpoint, three workers, kills and failures. No community's events are heard out of order."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.core.embedded import Postgres, Valkey
from tests.faults.receiver import receiving
from tests.faults.rig import SECRET, Rig, open_rig, signed, until
from tests.support.sink import Posted, Sink

COMMUNITIES = [f"town-{number}" for number in range(8)]
EACH = 30
KILLS = 8
WORKERS = ("worker", "worker 2", "worker 3")


class Reader:
    """A driver that takes events in, in whatever order they come, and often fails at it."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.taken: dict[str, list[str]] = defaultdict(list)
        """For each community the events in the order in which they were first taken in."""
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def take(self, posted: Posted) -> int | None:
        await asyncio.sleep(self._chance.uniform(0.01, 0.08))
        fate = self._chance.choices(["taken", "500", "broken off", "taken, unheard"], [70, 12, 9, 9])[0]
        self.answers[fate] += 1
        if fate.startswith("taken"):
            taken = self.taken[posted.json["community"]]
            event = posted.headers["webhook-id"]
            if event not in taken:
                taken.append(event)
            elif event != taken[-1]:
                self.wrong.append(f"{event} again, after a later one of {posted.json['community']}")
        return {"taken": 204, "500": 500}.get(fate)

    @property
    def count(self) -> int:
        return sum(map(len, self.taken.values()))


async def log_order(rig: Rig) -> dict[str, list[str]]:
    """The events of each community as the driver's cursor reads them."""
    order: dict[str, list[str]] = defaultdict(list)
    after = ""
    async with rig.client() as http:
        while True:
            query: dict[str, str] = {"limit": "200", "source": "github"} | ({"after": after} if after else {})
            page = (await http.get("/api/internal/events", params=query)).json()
            for event in page["events"]:
                order[event["community"]].append(event["id"])
            after = page["next"]
            if not page["events"]:
                return order


async def test_no_community_hears_its_events_out_of_order(
    servers: tuple[Postgres, Valkey], sink: Sink, tmp_path: Path, chance: random.Random
) -> None:
    reader = Reader(chance)
    async with receiving(reader.take) as url, open_rig(*servers, sink.url, tmp_path) as rig, rig.client() as http:
        plugins = [{"name": "github", "config": {"webhook_secret": SECRET}}]
        for slug in COMMUNITIES:
            put = await http.put(f"/api/internal/community/{slug}", json={"plugins": plugins})
            assert put.status_code == 201, put.text
        wanted = {"url": url, "ordered": True, "events": ["github.*"], "communities": COMMUNITIES}
        made = await http.post("/api/internal/driver/endpoints", json=wanted)
        assert made.status_code == 201, made.text
        endpoint = made.json()["id"]
        since = (datetime.now(UTC) - timedelta(minutes=5)).isoformat()
        for name in WORKERS[1:]:
            rig.start(name)

        async def send(slug: str) -> None:
            for number in range(EACH):
                body, headers = signed(f"{slug}-{number}")
                answer = await http.post(f"/api/hooks/{slug}/github", content=body, headers=headers)
                assert answer.status_code == 202
                await asyncio.sleep(chance.uniform(0, 0.05))

        async def hasten() -> None:
            """The driver asks for what failed, time and again: waits and open circuits are not what is tried here."""
            while True:
                await asyncio.sleep(0.3)
                again = await http.post(f"/api/internal/driver/endpoints/{endpoint}/recover", json={"since": since})
                assert again.status_code == 202, again.text

        async def all_taken() -> bool:
            return reader.count >= EACH * len(COMMUNITIES)

        async with asyncio.TaskGroup() as group:
            sending = [group.create_task(send(slug)) for slug in COMMUNITIES]
            hastening = group.create_task(hasten())
            for _ in range(KILLS):
                await asyncio.sleep(chance.uniform(0.3, 1.5))
                victim = chance.choice(WORKERS)
                rig.kill(victim)
                await asyncio.sleep(chance.uniform(0, 0.5))
                rig.start(victim)
            await asyncio.gather(*sending)
            # What a killed worker had in hand is due again after its lease of 15 seconds.
            seconds = await until(all_taken, 80, "every event taken in")
            hastening.cancel()
        print(
            f"{reader.count} events in {len(COMMUNITIES)} communities, {KILLS} workers killed, {dict(reader.answers)}"
        )
        print(f"all taken in {seconds:.1f} s after the last kill")
        assert reader.wrong == []
        assert dict(reader.taken) == await log_order(rig)
