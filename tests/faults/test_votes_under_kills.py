"""5,000 votes by 1,000 voters on one process, changed again and again, while the workers are killed.

Whatever was answered as accepted is counted: the last stored vote of each voter, and no other. What is written down
of it comes to the same outcome when it is folded anew.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from pathlib import Path

import httpx

from app.core.db import Database
from app.core.embedded import Postgres, Valkey
from app.core.settings import Settings
from app.processes.history import replay
from metagov_sdk import ProcessSpec
from plugins.ballot.processes import BallotVote
from tests.faults.rig import Rig, open_rig
from tests.support.sink import Sink

VOTES = int(os.environ.get("METAGOV_FAULT_VOTES", "5000"))
VOTERS = VOTES // 5
CLIENTS = 16
OPTIONS = ["oak", "elm", "yew"]
WORKERS = ["worker", "worker 2"]
HEADER = {"X-Metagov-Community": "hall"}


class Booth:
    """Votes, and remembers of each voter the vote with the highest position."""

    def __init__(self, http: httpx.AsyncClient, process: str, chance: random.Random) -> None:
        self.http = http
        self.process = process
        self.votes = [(f"voter {number % VOTERS}", chance.choice(OPTIONS)) for number in range(VOTES)]
        chance.shuffle(self.votes)
        self.last: dict[str, tuple[int, str]] = {}
        self.accepted = 0

    async def run(self) -> None:
        """All votes, by clients that take turns."""
        left = iter(self.votes)

        async def client() -> None:
            for voter, choice in left:
                await self._cast(voter, choice)

        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(client())

    async def _cast(self, voter: str, choice: str) -> None:
        parameters = {"process_id": self.process, "voter": voter, "choice": choice}
        answer = await self.http.post("/api/action/ballot.cast", json={"parameters": parameters}, headers=HEADER)
        assert answer.status_code == 200, answer.text
        self.accepted += 1
        self.last[voter] = max(self.last.get(voter, (0, "")), (answer.json()["position"], choice))

    @property
    def tally(self) -> Counter[str]:
        """What has to come out."""
        return Counter(choice for _, choice in self.last.values())


async def kill_workers(rig: Rig, chance: random.Random, over: asyncio.Event) -> int:
    """Kill one after the other, and start it again, until it is over. Returns how many were killed."""
    killed = 0
    while not over.is_set():
        await asyncio.sleep(chance.uniform(0.5, 2.0))
        name = chance.choice(WORKERS)
        rig.kill(name)
        await asyncio.sleep(chance.uniform(0, 0.3))
        rig.start(name)
        killed += 1
    return killed


async def test_the_last_vote_of_each_voter_counts(
    servers: tuple[Postgres, Valkey], sink: Sink, tmp_path: Path, chance: random.Random
) -> None:
    async with open_rig(*servers, sink.url, tmp_path) as rig, rig.client(timeout=30) as http:
        rig.start("worker 2")
        hall = {"readable_name": "Hall", "plugins": [{"name": "ballot", "config": {}}]}
        put = await http.put("/api/internal/community/hall", json=hall)
        assert put.status_code == 201, put.text
        body = {"title": "Which tree?", "options": OPTIONS}
        started = await http.post("/api/internal/process/ballot.vote", json=body, headers=HEADER)
        assert started.status_code == 202, started.text
        where, process = started.headers["location"], started.json()["id"]
        booth, over = Booth(http, process, chance), asyncio.Event()
        killing = asyncio.create_task(kill_workers(rig, chance, over))
        begun = time.monotonic()
        await booth.run()
        seconds = time.monotonic() - begun
        closed = await http.delete(where, headers=HEADER)
        over.set()
        killed = await killing
        assert closed.status_code == 200, closed.text
        outcome = closed.json()["outcome"]
        steps = await rig.count("SELECT count(*) FROM process_transitions WHERE process_id = $1", process)
        print(f"\n{booth.accepted} votes in {seconds:.1f} s, {killed} workers killed, {steps} steps; {booth.tally}")
        assert booth.accepted == VOTES
        assert killed > 0
        assert outcome["total_voters"] == VOTERS
        assert {option["option"]: option["count"] for option in outcome["options"]} == {
            option: booth.tally[option] for option in OPTIONS
        }
        folded = "SELECT sum(signal_count) FROM process_transitions WHERE process_id = $1"
        assert await rig.count(folded, process) == VOTES, "each once"
        assert (await http.delete(where, headers=HEADER)).status_code == 409
        settings = Settings(database_url=rig.database_url, secret_keys=rig.environment["METAGOV_SECRET_KEYS"])
        async with Database(settings) as db, db.begin() as session:
            again = await replay(session, ProcessSpec(BallotVote), process)
        assert (again.status, again.outcome) == ("completed", outcome)
        assert (await http.get(where, headers=HEADER)).json()["outcome"] == outcome
