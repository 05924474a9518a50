"""What a vote leaves behind does not grow with the number of those who have voted before."""

from __future__ import annotations

import pytest

from app.gateway import Gateway
from app.worker import Drains
from tests.conftest import Driver
from tests.processes.conftest import make_due, open_ballot, vote

pytestmark = pytest.mark.slow

VOTERS = 400
_KEPT = """
SELECT (SELECT coalesce(sum(octet_length(t::text)), 0) FROM process_transitions t)::int AS history,
    (SELECT coalesce(sum(octet_length(e::text)), 0) FROM events e)::int AS events,
    (SELECT octet_length(p::text) FROM processes p)::int AS process,
    pg_current_wal_insert_lsn() - '0/0' AS log
"""


async def test_votes_one_by_one_leave_the_same_behind_from_first_to_last(
    town: Driver, drains: Drains, gateway: Gateway
) -> None:
    """History and events of 400 votes by 400 voters, each folded by itself: the last hundred beside the first."""
    started = await open_ballot(town)
    looks = [await gateway.db.pool.fetchrow(_KEPT)]
    for number in range(VOTERS):
        assert (await vote(town, started.json()["id"], f"voter {number:03}", "yes")).status_code == 200
        await make_due(gateway)
        await drains.processes()
        if (number + 1) % 100 == 0:
            looks.append(await gateway.db.pool.fetchrow(_KEPT))
    steps = await gateway.db.pool.fetchval("SELECT count(*) FROM process_transitions WHERE signal_count = 1")
    assert steps == VOTERS, "each was folded by itself"
    for what in ("history", "events", "process", "log"):
        print(what, [look[what] for look in looks])
    for what in ("history", "events"):
        first, last = looks[1][what] - looks[0][what], looks[-1][what] - looks[-2][what]
        assert last < 1.1 * first, f"{what}: {first} bytes for the first hundred votes, {last} for the last"
