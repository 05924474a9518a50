"""Durable servers for the fault tests, and a gateway of real processes on them."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.core.embedded import Postgres, Valkey, start_all, stop_all
from tests.faults.rig import Rig, open_rig
from tests.support.sink import Sink

SEED = int(os.environ.get("FAULTS_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)


@pytest.fixture(scope="session")
def servers() -> Iterator[tuple[Postgres, Valkey]]:
    """A Postgres that keeps what it has committed, whatever is done to it, and a Valkey."""
    with tempfile.TemporaryDirectory(prefix="metagov-faults-", ignore_cleanup_errors=True) as folder:
        both = Postgres(Path(folder)), Valkey(Path(folder))
        start_all(*both)
        yield both
        stop_all(*both)


@pytest.fixture
async def rig(servers: tuple[Postgres, Valkey], sink: Sink, tmp_path: Path) -> AsyncIterator[Rig]:
    """API and worker whose community's events go to the sink."""
    async with open_rig(*servers, sink.url, tmp_path) as opened:
        yield opened


@pytest.fixture
def chance() -> random.Random:
    """Its seed is printed; FAULTS_SEED sets it."""
    print(f"\nseed: FAULTS_SEED={SEED}")
    return random.Random(SEED)
