"""Words for the tests of forgetting people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.archives.forget import archive_step
from app.archives.moved import archive_moved
from app.archives.service import Archives
from app.gateway import Gateway
from app.mirrors.forget import Forgetting, Request, ask, find_request, forget_due, forget_now
from app.mirrors.forget_steps import MIRROR_STEPS
from tests.mirrors.conftest import Mirrored
from tests.support.traces import in_archive


@dataclass(slots=True)
class Deletion:
    """An operator with somebody's deletion request."""

    gateway: Gateway
    archives: Archives
    forgetting: Forgetting

    async def ask(self, mirror: Mirrored, account: str, names: Sequence[str] = ()) -> str:
        """Only write it down."""
        spec = mirror.use.spec(mirror.plugin)
        assert spec is not None
        community = await self.gateway.db.pool.fetchval("SELECT id FROM communities WHERE slug = 'town'")
        return await ask(mirror.use, community, spec, account, names)

    async def carry_out(self, mirror: Mirrored, account: str, names: Sequence[str] = ()) -> Request:
        """Once through all steps."""
        return await forget_now(self.forgetting, await self.ask(mirror, account, names))

    async def work(self, request: str) -> Request:
        """What a worker makes of it after a while."""
        await self.gateway.db.pool.execute(
            "UPDATE mirror_forgotten SET next_at = now(), lease_until = NULL WHERE finished_at IS NULL"
        )
        await forget_due(self.forgetting)
        return await find_request(self.gateway.mirrors, request)

    async def archive(self, mirror: Mirrored) -> None:
        """What a worker does when a run is over."""
        await archive_moved(mirror.use, self.archives)

    async def head_has(self, mirror: Mirrored, texts: Sequence[str], snapshot: str | None = None) -> set[str]:
        """Which of these texts the newest snapshot has, or the one that is named."""
        community = await self.gateway.db.pool.fetchval("SELECT id FROM communities WHERE slug = 'town'")
        async with self.archives.reader(community, "town", mirror.plugin, snapshot) as reader:
            return await in_archive(reader, texts)


@pytest.fixture
def deletion(gateway: Gateway, tmp_path: Path) -> Deletion:
    """With archives in a folder of the test's own."""
    settings = gateway.settings.model_copy(update={"archive_url": f"file://{tmp_path}"})
    archives = Archives(settings, gateway.db.pool)
    return Deletion(gateway, archives, Forgetting(gateway.mirrors, (*MIRROR_STEPS, archive_step(archives))))
