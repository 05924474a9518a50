"""Row 3's processes: workers killed, Postgres stopped hard while votes run. No illegal transition, each ends once."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from app.core.db import plain_dsn
from app.core.embedded import Postgres, Valkey
from tests.faults import transitions
from tests.faults.clones import VotesRig, make_template, open_votes
from tests.faults.flows import check_events, idle
from tests.faults.rig import crash, launch, until
from tests.faults.transitions import Moment

PROCESSES = int(os.environ.get("METAGOV_FAULT_PROCESSES", "200"))
BALLOTS = 3
"""In each vote. Half of the votes end with the last of them, half at their closing time."""
SENDERS = 12
VOTING_SECONDS = 30.0
"""How long ballots keep coming in, where nothing holds them up."""
OPEN_SECONDS = 90.0
"""Longer than the faults last, and than a killed worker's receipts wait after the last of them."""
FAULTS = ["worker 1"] * 5 + ["worker 2"] * 5 + ["postgres"] * 4
SETTLE_SECONDS = 240


class Driver:
    """Starts the votes, casts the ballots, and knows how each has to end."""

    def __init__(self, rig: VotesRig, chance: random.Random) -> None:
        self.rig = rig
        self.chance = chance
        self.tallies: dict[str, dict[str, int]] = {}
        self.timed: set[str] = set()
        self.texts: list[str] = []
        self.started = asyncio.Event()

    async def run(self) -> None:
        """All votes are started first; ballots come in the midst of the faults."""
        async with self.rig.client() as http:
            for number in range(PROCESSES):
                await self._start(http, number)
            self.started.set()
            ballots = [(process, voter) for process in self.tallies for voter in range(BALLOTS)]
            self.chance.shuffle(ballots)
            # Those of votes that close at a time come first: none is to be late, however slow the machine.
            ballots.sort(key=lambda ballot: ballot[0] not in self.timed)
            left = iter(ballots)
            async with asyncio.TaskGroup() as senders:
                for _ in range(SENDERS):
                    senders.create_task(self._cast_all(http, left, VOTING_SECONDS * SENDERS / len(ballots)))

    async def _start(self, http: httpx.AsyncClient, number: int) -> None:
        timed = number % 2 == 0
        wanted = {"seconds": OPEN_SECONDS, "voters": BALLOTS + 1 if timed else BALLOTS}
        answer = await http.post(
            "/api/internal/process/votes.vote", json=wanted, headers={"Prefer": "respond-async"}, timeout=30
        )
        assert answer.status_code == 202, answer.text
        self.tallies[answer.json()["id"]] = {}
        if timed:
            self.timed.add(answer.json()["id"])

    async def _cast_all(self, http: httpx.AsyncClient, ballots: Iterator[tuple[str, int]], pause: float) -> None:
        for process, voter in ballots:
            await self._cast(http, process, voter)
            await asyncio.sleep(pause)

    async def _cast(self, http: httpx.AsyncClient, process: str, voter: int) -> None:
        choice = self.chance.choice(["yes", "no"])
        tally = self.tallies[process]
        tally[choice] = tally.get(choice, 0) + 1
        text = f"{process} {voter}"
        self.texts.append(text)
        await self.rig.send_by(http, text, vote=process, voter=str(voter), choice=choice)


async def break_all(rig: VotesRig, driver: Driver, chance: random.Random) -> Counter[str]:
    """Kill workers while votes are started, then workers and Postgres in any order. Returns what was done."""
    faults = chance.sample(FAULTS, len(FAULTS))
    # A start whose answer is lost is another test's: here the driver has to know which votes there are.
    for fault in [fault for fault in faults if fault != "postgres"][:2]:
        await asyncio.sleep(chance.uniform(0.5, 1.5))
        rig.kill(fault)
        rig.start(fault)
        faults.remove(fault)
    await driver.started.wait()
    for fault in faults:
        if fault == "postgres":
            await crash(rig.postgres, signal.SIGQUIT)
            await asyncio.sleep(chance.uniform(0.1, 1.0))
            await launch(rig.postgres)
        else:
            rig.kill(fault)
            await asyncio.sleep(chance.uniform(0, 0.5))
            rig.start(fault)
        await asyncio.sleep(chance.uniform(1.5, 3.0))
    return Counter(fault.partition(" ")[0] for fault in FAULTS)


async def install_trigger(rig: VotesRig) -> None:
    connection = await asyncpg.connect(plain_dsn(rig.database_url))
    try:
        await connection.execute(transitions.INSTALL)
    finally:
        await connection.close()


async def test_no_illegal_transition_and_each_vote_ends_once(
    servers: tuple[Postgres, Valkey], tmp_path: Path, chance: random.Random
) -> None:
    template = await make_template(*servers)
    async with open_votes(template, tmp_path, METAGOV_HANDLER_TIMEOUT="3") as rig:
        await install_trigger(rig)
        rig.start("worker 1")
        rig.start("worker 2")
        driver = Driver(rig, chance)
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(driver.run())
            breaking = group.create_task(break_all(rig, driver, chance))
        broken = time.monotonic() - started

        async def over() -> bool:
            query = "SELECT count(*) FROM processes WHERE status <> 'completed' OR rendered < version"
            return await rig.count(query) == 0 and await idle(rig)

        settled = await until(over, SETTLE_SECONDS, "every vote is over, shown and told")
        histories = await transitions.read(rig)
        print(f"\n{breaking.result()} in {broken:.0f} s; {PROCESSES} votes, {len(driver.texts)} ballots")
        print(f"{len(histories)} transitions; all over {settled:.0f} s after the last fault or ballot")
        assert breaking.result()["worker"] >= 8
        assert breaking.result()["postgres"] >= 3
        assert transitions.illegal(histories) == []
        assert {process for process, _ in histories} == driver.tallies.keys()
        await check_ends(rig, driver)


async def check_ends(rig: VotesRig, driver: Driver) -> None:
    """Each vote has counted every ballot once, and everybody was told once."""
    rows = await rig.rows("SELECT id, outcome, errors FROM processes")
    assert {row["id"]: json.loads(row["errors"]) for row in rows} == {process: {} for process in driver.tallies}
    assert {row["id"]: json.loads(row["outcome"])["counts"] for row in rows} == driver.tallies
    assert await rig.count("SELECT count(*) FROM signals WHERE applied_at IS NOT NULL") == len(driver.texts)
    assert await rig.count("SELECT (state ->> 'handled')::int FROM instance_states") == len(driver.texts)
    assert Counter(line["id"] for line in rig.on_platform("opened")) == Counter(driver.tallies.keys()), "opened once"
    told = {(line["id"], line["key"]) for line in rig.on_platform("told")}
    assert Counter(process for process, _ in told) == Counter(driver.tallies.keys()), "one effect each"
    shown = {line["id"]: line["status"] for line in rig.on_platform("shown")}
    assert shown == dict.fromkeys(driver.tallies, "completed"), "the last that was shown"
    await check_events(rig, heard=driver.texts, completed=list(driver.tallies))


LEGAL = [
    Moment("created"),
    Moment("pending", '{"counts":{}}', 1),
    Moment("pending", '{"counts":{"yes":1}}', 2),
    Moment("completed", '{"counts":{"yes":1}}', 3),
]


def test_the_judge_lets_a_legal_history_pass() -> None:
    assert transitions.faults(LEGAL) == []
    assert transitions.faults([LEGAL[0], Moment("completed", None, 0, '{"start":"refused"}')]) == []
    assert transitions.faults([LEGAL[0], Moment("completed", "{}", 1)]) == [], "over as soon as it was opened"


@pytest.mark.parametrize(
    ("history", "says"),
    [
        ([*LEGAL, LEGAL[2]], "no such transition"),
        ([*LEGAL, Moment("completed", '{"counts":{"no":1}}', 4)], "no such transition"),
        ([*LEGAL[:2], LEGAL[0], *LEGAL[1:]], "no such transition"),
        ([*LEGAL, Moment("gone", None, 3)], "no such transition"),
        (LEGAL[1:], "no such transition"),
        ([*LEGAL[:3], Moment("closing", None, 3)], "no such transition"),
        ([*LEGAL[:3], Moment("pending", "{}", 2), LEGAL[3]], "the version does not rise"),
        ([*LEGAL[:3], Moment("completed", "{}", 2)], "the version does not rise"),
        ([*LEGAL[:3], Moment("completed", "{}", 1)], "the version does not rise"),
        ([*LEGAL[:3], Moment("completed", None, 3)], "neither outcome nor errors"),
        ([LEGAL[0], Moment("pending", None, 1, '{"a":"b"}'), LEGAL[3]], "errors, and yet not ended"),
        (LEGAL[:3], "never ended"),
        ([], "never ended"),
    ],
)
def test_the_judge_sees_what_is_illegal(history: list[Moment], says: str) -> None:
    assert any(says in fault for fault in transitions.faults(history))
    other = [("legal", moment) for moment in LEGAL]
    mixed = other[:1] + [("wrong", moment) for moment in history] + other[1:]
    assert all(fault.startswith("wrong: ") for fault in transitions.illegal(mixed))
    assert bool(transitions.illegal(mixed)) == bool(history)
