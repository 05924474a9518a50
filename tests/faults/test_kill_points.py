"""Row 2: a process killed at each step. The work is taken up again, and its effects are there exactly once.

Every kill point has at least one flow; all flows run side by side, each on a gateway of its own, because most of their
time is waiting for the dead process's lease to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from app.core import work
from app.core.embedded import Postgres, Valkey
from app.core.killpoints import KillPoint
from app.processes import runner
from tests.faults.again import dead_receipts, failed_deliveries, killed_at
from tests.faults.clones import VotesRig, make_template, open_votes
from tests.faults.flows import (
    Resumed,
    poll,
    process_with_api_killed,
    process_with_worker_killed,
    webhook_with_api_killed,
    webhook_with_worker_killed,
)
from tests.faults.graphed import graph
from tests.faults.mirrored import mirror

Flow = Callable[[VotesRig, KillPoint], Awaitable[Resumed]]

AT_ONCE = 12
"""Gateways, each of them an API and a worker."""
STARTING = 2
"""Of these, how many may be starting."""
LEASES = {
    "WEBHOOKS": timedelta(0),
    "RECEIPT": work.LEASE,
    "POLL": work.LEASE,
    "DELIVERY": work.LEASE,
    "START": runner.LEASE,
    "FOLD": work.LEASE,
    "RENDER": work.LEASE,
    "EFFECT": work.LEASE,
    "MIRROR": work.LEASE,
    "ARCHIVE": timedelta(0),
    "GRAPH": work.LEASE,
    "RECOVER": timedelta(0),
    "REPLAY": timedelta(0),
}
"""The lease under which the point's work is done, by the first word of the point's name."""


async def recover(rig: VotesRig, point: KillPoint) -> Resumed:
    """Failed deliveries made due again, by the driver's call repeated."""
    rig.start("worker")
    await killed_at(rig, await failed_deliveries(rig, 50), point)
    return Resumed()


async def replay(rig: VotesRig, point: KillPoint) -> Resumed:
    """Dead receipts made due again, by the driver's call repeated."""
    rig.start("worker")
    await killed_at(rig, await dead_receipts(rig, 50), point)
    return Resumed()


_IN_API: frozenset[Flow] = frozenset({webhook_with_api_killed, process_with_api_killed, recover, replay})
_FLOWS: dict[str, tuple[Flow, ...]] = {
    "START": (process_with_worker_killed, process_with_api_killed),
    "FOLD": (process_with_worker_killed,),
    "RENDER": (process_with_worker_killed,),
    "EFFECT": (process_with_worker_killed,),
    "MIRROR": (mirror,),
    "ARCHIVE": (mirror,),
    "GRAPH": (graph,),
    "DELIVERY": (webhook_with_worker_killed,),
    "RECEIPT": (webhook_with_worker_killed,),
    "POLL": (poll,),
    "WEBHOOKS": (webhook_with_api_killed,),
    "RECOVER": (recover,),
    "REPLAY": (replay,),
}
"""The flows that reach a point, by the first word of its name; those that wait the longest are first."""
_ONLY_IN_API = {KillPoint.START_STORED}


def flows(point: KillPoint) -> list[Flow]:
    """The flows that reach a point."""
    found = _FLOWS.get(point.name.partition("_")[0], ())
    return [flow for flow in found if point not in _ONLY_IN_API or flow in _IN_API]


SCENARIOS = sorted(
    ((point, flow) for point in KillPoint for flow in flows(point)),
    key=lambda scenario: list(_FLOWS).index(scenario[0].name.partition("_")[0]),
)


@dataclass(frozen=True, slots=True)
class Story:
    """How a scenario went, or what was wrong."""

    resumed: Resumed = field(default_factory=Resumed)
    error: BaseException | None = None


@pytest.fixture(scope="module")
async def stories(
    request: pytest.FixtureRequest, servers: tuple[Postgres, Valkey], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[KillPoint, Flow], Story]:
    """The scenarios of the tests that were asked for, all at once."""
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    wanted = [call.params["scenario"] for call in calls if call is not None and "scenario" in call.params]
    template = await make_template(*servers)
    room, door = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(STARTING)

    async def run(point: KillPoint, flow: Flow) -> Story:
        folder = tmp_path_factory.mktemp(point.name.lower())
        async with room:
            try:
                doom = point if flow in _IN_API else None
                async with open_votes(template, folder, door=door, doom=doom) as rig:
                    return Story(await flow(rig, point))
            except Exception as error:
                # Each scenario's failure is for its own test to show.
                return Story(error=error)

    return dict(zip(wanted, await asyncio.gather(*(run(*scenario) for scenario in wanted)), strict=True))


def test_every_kill_point_has_a_flow_that_reaches_it() -> None:
    assert [point.name for point in KillPoint if not flows(point)] == []


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[f"{point.name}-{flow.__name__}" for point, flow in SCENARIOS])
async def test_work_goes_on_and_is_done_once(
    scenario: tuple[KillPoint, Flow], stories: dict[tuple[KillPoint, Flow], Story]
) -> None:
    story = stories[scenario]
    if story.error is not None:
        raise story.error
    point, flow = scenario
    lease = LEASES[point.name.partition("_")[0]].total_seconds()
    print(f"\n{point.name}, {flow.__name__}: {story.resumed}; the lease is {lease:g} s")
    # Twelve gateways boot and work side by side here; what is told apart is a lease from the next one.
    assert story.resumed.after <= max(lease, story.resumed.booted) + 10
