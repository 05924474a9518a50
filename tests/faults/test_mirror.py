"""A mirror of 300 channels with 50,000 messages that is cut off, refused, dropped and killed while things go on there.

In the end one sweep runs to its end, and the tables hold what the platform has and what an undisturbed mirror holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import pytest
from cryptography.fernet import Fernet

from app.accounts.service import create_driver
from app.core.embedded import Postgres, Valkey
from app.core.log import configure_logging
from app.core.settings import Settings
from app.gateway import Gateway, open_gateway
from app.host.binding import InstanceData
from app.host.discovery import Loaded, Plugins, discover
from app.mirrors.columns import tables_of
from app.mirrors.runs import ask_for_run
from app.mirrors.status import read_status
from app.mirrors.walking import sync_due
from app.runtime import instances
from metagov_sdk import Limit
from plugins.discord import buckets, manifest
from tests.fakes.discord import FakeDiscord, Recorded
from tests.fakes.discord_limits import Fault
from tests.fakes.discord_world import PRIVATE_THREAD
from tests.faults.rig import administer
from tests.mirrors.test_kills import KINDS, kind_of
from tests.mirrors.town import Town, build_town, differences, mirrored, truth

FIRST_RUN = (
    *(("any", place) for place in (1, 2, 3, 5)),
    *((kind, number) for kind in ("archived threads", "messages", "reactions") for number in (1, 2, 7)),
    *(("any", place) for place in (10, 50, 200, 301)),
)
"""Where the first run is cut off: the request of this number of its kind, counted from the cut before."""
SWEEP = (("messages", 200), ("private threads", 1), ("private threads", 2), ("reactions", 50))
LATER = tuple((kind, 1) for kind in ("guild", "members", "channels", "active threads", "lookup"))
"""Each in a run of its own, for a run has one of them."""
KILLS = (
    ("guild", 1, 0.0),
    ("members", 1, 0.002),
    ("channels", 1, 0.004),
    ("active threads", 1, 0.0),
    ("messages", 2, 0.0),
    ("messages", 9, 0.006),
    ("private threads", 1, 0.003),
    ("archived threads", 2, 0.005),
    ("reactions", 3, 0.003),
    ("reactions", 8, 0.0),
    ("lookup", 1, 0.0),
)
"""Where a worker is killed: the request of this number of its kind, and the longest time after it, in seconds."""
_COMMAND = [sys.executable, "-m", "app.cli"]
_COMMUNITY = """
INSERT INTO communities (id, driver_id, slug, readable_name) VALUES ($1, $2, $1, $1)
"""
_INSTANCE = """
INSERT INTO instances (id, community_id, plugin, community_platform_id, config, secrets, config_version, generation,
                       status)
VALUES ($1, $2, 'discord', $3, $4::json, '', 1, 1, 'enabled')
"""


@pytest.fixture
def _no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin asks as fast as it can: what is tested is not its pace."""
    monkeypatch.setattr(buckets, "GLOBAL", Limit("global", rate=1e6, per=1, burst=10_000))
    monkeypatch.setattr(buckets, "INVALID", Limit("invalid", rate=1e6, per=1, burst=10_000))
    monkeypatch.setattr(buckets, "_INVALID_GUARD", Limit("invalid", rate=1e6, per=1, burst=10_000, cost=0))


@pytest.fixture
async def discord() -> AsyncIterator[FakeDiscord]:
    async with FakeDiscord(pace=0.0002, enforce_limits=False) as fake:
        yield fake


@dataclass(slots=True)
class Rig:
    """A gateway in this process, or what processes of its own are started with, on a database of its own."""

    settings: Settings
    gateway: Gateway
    environment: dict[str, str]
    log: Path

    async def add(self, name: str, town: Town) -> InstanceData:
        """A community of this name with an instance that mirrors the town."""
        async with self.gateway.db.begin() as session:
            made = await create_driver(session, self.gateway.vault, name)
        await self.gateway.db.pool.execute(_COMMUNITY, name, made.id)
        config = f'{{"guild_id": "{town.guild.id}"}}'
        await self.gateway.db.pool.execute(_INSTANCE, f"ins_{name}", name, str(town.guild.id), config)
        found = await instances.by_id(self.gateway.db.pool, self.gateway.vault, f"ins_{name}")
        assert found is not None
        return found[0]

    async def ask(self, instance: InstanceData, *, sweep: bool) -> None:
        assert manifest.provider is not None
        async with self.gateway.db.begin() as session:
            await ask_for_run(session, instance, manifest.provider, sweep=sweep)

    async def state(self, instance: InstanceData) -> str:
        assert manifest.provider is not None
        async with self.gateway.db.begin() as session:
            return (await read_status(session, instance.id, manifest.provider)).state

    async def drain(self) -> None:
        while await sync_due(self.gateway.mirrors):
            pass

    async def hurry(self) -> None:
        """Time passes: leases of the dead end, tries that wait are due."""
        await self.gateway.db.pool.execute(
            "UPDATE mirror_partitions SET next_at = now(), lease_until = NULL WHERE next_at IS NOT NULL"
        )

    async def finish(self, instance: InstanceData, *, sweep: bool, runs: int = 5) -> None:
        """Runs until one is clean."""
        for _ in range(runs):
            await self.ask(instance, sweep=sweep)
            while await self.state(instance) == "running":
                await self.drain()
                await self.hurry()
            if await self.state(instance) == "idle":
                return
        raise AssertionError("no run is clean")

    async def wait_over(self, instance: InstanceData) -> None:
        """Until no run is under way: a worker is at it."""
        async with asyncio.timeout(120):
            while await self.state(instance) == "running":
                await asyncio.sleep(0.2)

    async def check(self, town: Town, instance: InstanceData) -> None:
        wanted = truth(town)
        async with self.gateway.db.pool.acquire() as connection:
            different = differences(await mirrored(connection, instance.id, wanted), wanted)
        assert different == [], "\n".join(different)

    async def check_equal(self, one: InstanceData, other: InstanceData) -> None:
        """Column by column, but for what tells when it was read."""
        assert manifest.provider is not None
        for table in tables_of(manifest.provider).values():
            columns = ", ".join(f'"{column.name}"' for column in table.columns) + ", extra, mirror_flags"
            of = f"SELECT {columns} FROM {table.sql} WHERE deleted_at IS NULL AND instance_id = "
            different = await self.gateway.db.pool.fetchval(
                f"SELECT count(*) FROM (({of} $1 EXCEPT {of} $2) UNION ALL ({of} $2 EXCEPT {of} $1)) AS d",
                one.id,
                other.id,
            )
            assert different == 0, table.name


@pytest.fixture
async def rig(servers: tuple[Postgres, Valkey], discord: FakeDiscord, tmp_path: Path) -> AsyncIterator[Rig]:
    postgres, valkey = servers
    name = f"mirror_{time.monotonic_ns()}"
    await administer(postgres, f'CREATE DATABASE "{name}"')
    settings = Settings(
        database_url=postgres.url.replace("/metagov?", f"/{name}?"),
        redis_url=valkey.url,
        secret_keys=Fernet.generate_key().decode(),
        allow_private_networks=True,
        log_level="error",
    )
    environment = {
        **os.environ,
        "METAGOV_DATABASE_URL": settings.database_url,
        "METAGOV_REDIS_URL": settings.redis_url,
        "METAGOV_SECRET_KEYS": settings.secret_keys.get_secret_value(),
        "METAGOV_ALLOW_PRIVATE_NETWORKS": "true",
        "METAGOV_LOG_LEVEL": "error",
        **{f"METAGOV_DISCORD_{key.upper()}": value for key, value in discord.settings().items()},
    }
    await asyncio.to_thread(
        subprocess.run, [*_COMMAND, "migrate"], check=True, env=environment, timeout=90, stdout=subprocess.DEVNULL
    )
    configure_logging(settings)
    found: Plugins = discover({})
    loaded = Loaded(manifest, "tests", "0", manifest.settings.model_validate(discord.settings()))
    plugins = replace(found, loaded=MappingProxyType({**found.loaded, "discord": loaded}))
    try:
        async with open_gateway(settings, plugins) as gateway:
            yield Rig(settings, gateway, environment, tmp_path / "log")
    finally:
        await administer(postgres, f'DROP DATABASE "{name}" WITH (FORCE)')


class Chaos:
    """A tenth of all requests fails, and while they come in things happen on the platform."""

    def __init__(self, town: Town, *, every: int) -> None:
        self.town, self.every = town, every
        self.chance = random.Random(11)
        self.heard: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.cut: tuple[str, int] | None = None
        self.there = asyncio.Event()

    def watch(self, recorded: Recorded) -> None:
        kind = kind_of(recorded)
        self.heard.update([kind, "any"])
        if self.heard["any"] % self.every == 0:
            self.town.happen(1)
        if self.cut in ((kind, self.heard[kind]), ("any", self.heard["any"])):
            self.there.set()
        if self.chance.random() < 0.1:
            what = self.chance.choice(["429", "500", "dropped"])
            self.faults.update([what])
            fault = Fault(times=1)
            if what == "dropped":
                fault.lose_answer = True
            else:
                fault.status, fault.retry_after, fault.scope = int(what), 0.02, "shared"
            self.town.fake.faults.waiting.append(fault)

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        self.town.fake.watch = self.watch
        try:
            yield
        finally:
            self.town.fake.watch = None
            self.town.fake.faults.waiting.clear()


async def cut_off(rig: Rig, chaos: Chaos, at: tuple[str, int]) -> bool:
    """Work until that request is under way and no further; whether there was one."""
    chaos.heard.clear()
    chaos.there.clear()
    chaos.cut = at
    working, reached = asyncio.create_task(work(rig)), asyncio.create_task(chaos.there.wait())
    await asyncio.wait({working, reached}, return_when=asyncio.FIRST_COMPLETED)
    if not chaos.there.is_set():
        working.result()
    for task in (working, reached):
        task.cancel()
    await asyncio.gather(working, reached, return_exceptions=True)
    chaos.cut = None
    await rig.hurry()
    return chaos.there.is_set()


async def work(rig: Rig) -> None:
    """Until no run is under way; what waits for another try need not wait."""
    while await rig.gateway.db.pool.fetchval("SELECT EXISTS (SELECT FROM mirror_runs WHERE state = 'running')"):
        await rig.drain()
        await rig.hurry()


def archive_in_private(town: Town) -> None:
    """No list that the bot may read at once has such a thread: it has to be looked up."""
    for thread in town.channels:
        if thread.is_thread and not thread.archived:
            thread.type, thread.archived = PRIVATE_THREAD, True


@pytest.mark.usefixtures("_no_limits")
async def test_no_holes(rig: Rig, discord: FakeDiscord) -> None:
    town = build_town(discord, channels=290, messages=50_000, threads=10, reactions=0.01, people=40)
    disturbed = await rig.add("disturbed", town)
    chaos = Chaos(town, every=5)
    begun = time.monotonic()
    done: list[tuple[str, int]] = []
    with chaos.going_on():
        for cuts, sweep in ((FIRST_RUN, False), (SWEEP, True), *(((each,), False) for each in LATER)):
            if cuts[0][0] == "lookup":
                archive_in_private(town)
            await rig.ask(disturbed, sweep=sweep)
            for at in cuts:
                assert await cut_off(rig, chaos, at), at
                done.append(at)
            await work(rig)
    print(f"\ncut off at {done} after {time.monotonic() - begun:.0f} s; faults {dict(chaos.faults)}")
    assert {kind for kind, _ in done} == {*KINDS, "any"}
    assert all(chaos.faults[kind] > 10 for kind in ("429", "500", "dropped"))
    await rig.finish(disturbed, sweep=True)
    await rig.check(town, disturbed)
    undisturbed = await rig.add("undisturbed", town)
    await rig.finish(undisturbed, sweep=True)
    await rig.check_equal(disturbed, undisturbed)
    discord.requests.clear()
    await rig.finish(disturbed, sweep=False)
    print(f"{len(discord.requests)} requests for {len(town.channels)} unchanged channels")
    assert len(discord.requests) <= len(town.channels) + 10
    print(f"{time.monotonic() - begun:.0f} s in all")


async def test_killed_workers(rig: Rig, discord: FakeDiscord) -> None:
    """Real processes, killed at requests of each kind and a moment after: while what they heard is being stored."""
    town = build_town(discord, channels=12, messages=600, threads=4, reactions=0.05)
    instance = await rig.add("killed", town)
    chance = random.Random(5)
    killed: list[str] = []

    def start() -> subprocess.Popen[bytes]:
        with rig.log.open("ab") as log:
            return subprocess.Popen([*_COMMAND, "worker"], env=rig.environment, stdout=log, stderr=log)

    worker = start()
    try:
        for kind, number, delay in KILLS:
            if kind == "lookup":
                # Known as they are, they are archived where no list has them.
                await rig.wait_over(instance)
                archive_in_private(town)
            there = asyncio.Event()
            heard: Counter[str] = Counter()

            def watch(recorded: Recorded, kind: str = kind, number: int = number) -> None:
                heard.update([kind_of(recorded)])  # noqa: B023 -- used within the round
                if heard[kind] == number:  # noqa: B023
                    there.set()  # noqa: B023

            discord.watch = watch
            town.happen(5)
            await rig.ask(instance, sweep=bool(killed))
            async with asyncio.timeout(90):
                while not there.is_set():
                    # The run that was cut off may have had it already: the next one has it.
                    if await rig.state(instance) != "running":
                        await rig.ask(instance, sweep=True)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(there.wait(), 0.5)
            await asyncio.sleep(delay * chance.random())
            worker.kill()
            worker.wait(10)
            assert worker.returncode == -signal.SIGKILL
            killed.append(kind)
            discord.watch = None
            await rig.hurry()
            worker = start()
        assert set(killed) == {*KINDS}
        for _ in range(2):
            await rig.ask(instance, sweep=True)
            await rig.wait_over(instance)
        assert await rig.state(instance) == "idle"
    finally:
        worker.terminate()
        worker.wait(15)
    await rig.check(town, instance)
