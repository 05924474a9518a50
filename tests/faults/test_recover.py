"""Row 22: doing again what had failed, with the API killed over it: exactly the failed set, each once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.core.embedded import Postgres, Valkey
from app.core.killpoints import KillPoint
from tests.faults.again import dead_receipts, failed_deliveries, killed_at, killed_midway
from tests.faults.clones import Template, VotesRig, make_template, open_votes

DELIVERIES = 3000
RECEIPTS = 500


@pytest.fixture(scope="module")
async def template(servers: tuple[Postgres, Valkey]) -> Template:
    """What each test's database is copied from."""
    return await make_template(*servers)


@asynccontextmanager
async def gateway(template: Template, folder: Path, doom: KillPoint | None) -> AsyncIterator[VotesRig]:
    """An API, and a worker that is at work all the time."""
    async with open_votes(template, folder, doom=doom) as rig:
        rig.start("worker")
        yield rig


@pytest.mark.parametrize(
    ("point", "key"),
    [
        (KillPoint.RECOVER_WRITTEN, "recover-1"),
        (KillPoint.RECOVER_COMMITTED, "recover-1"),
        (KillPoint.RECOVER_COMMITTED, ""),
    ],
    ids=["before, Idempotency-Key", "after, Idempotency-Key", "after, no key"],
)
async def test_recover_killed_before_and_after_its_commit(
    template: Template, tmp_path: Path, point: KillPoint, key: str
) -> None:
    async with gateway(template, tmp_path, point) as rig:
        await killed_at(rig, await failed_deliveries(rig, DELIVERIES), point, key=key)


async def test_recover_killed_in_the_middle_of_its_statement(template: Template, tmp_path: Path) -> None:
    async with gateway(template, tmp_path, None) as rig:
        await killed_midway(rig, await failed_deliveries(rig, DELIVERIES))


@pytest.mark.parametrize("point", [KillPoint.REPLAY_ASKED, KillPoint.REPLAY_COMMITTED], ids=lambda p: p.name)
async def test_replay_killed_before_and_after_its_commit(template: Template, tmp_path: Path, point: KillPoint) -> None:
    async with gateway(template, tmp_path, point) as rig:
        await killed_at(rig, await dead_receipts(rig, RECEIPTS), point)


async def test_replay_killed_in_the_middle_of_its_statement(template: Template, tmp_path: Path) -> None:
    async with gateway(template, tmp_path, None) as rig:
        await killed_midway(rig, await dead_receipts(rig, RECEIPTS))
