"""What SourceCred's credrank cannot do without: a node with a time and a weight, and time before the first edge.

Measured with SourceCred 0.11.2: it refuses a graph without any time ("need at least one interval") or without weight
on a node that has one ("No outflow from seed"), breaks off when an edge of a participant has the time at which the
first week begins (Sunday, 00:00 UTC), and without any participant its scores are no numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from metagov_sdk.archive import ArchivedTable
from metagov_sdk.graph.addresses import Address
from metagov_sdk.graph.builder import GraphBuilder

WEIGHT = 1e-6
"""Too little to change anybody's score."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SUNDAY = 3 * 86_400_000
_WEEK = 7 * 86_400_000
_NEVER_READ = 1_577_966_400_000
"""For an archive that knows no time; any would do. 2020-01-02, a Thursday."""


def add_anchor(
    graph: GraphBuilder,
    address: Address,
    description: str,
    tables: Sequence[ArchivedTable],
    *,
    first_ms: int | None,
    mints: bool,
) -> bool:
    """Add a node of next to no weight and without edges, if the graph needs it. Returns whether it did.

    Where there are no participants, the community is one, at an address below the node's.

    first_ms: the earliest time in the graph. mints: whether a node with a time has a weight above 0. Where the graph
    has no time, it is that of the archive's last synchronisation: one in the distant past would give everybody of an
    instance a score for each week since.
    """
    at_start = first_ms is not None and (first_ms - _SUNDAY) % _WEEK == 0
    if mints and not at_start:
        return False
    if first_ms is None:
        synced = [table.synced_at for table in tables if table.synced_at is not None]
        first_ms = (max(synced) - _EPOCH) // timedelta(milliseconds=1) if synced else _NEVER_READ
        at_start = (first_ms - _SUNDAY) % _WEEK == 0
    graph.node(address, description, first_ms - 1 if at_start else first_ms, weight=WEIGHT)
    if not graph.identities():
        graph.participant((*address, "PARTICIPANT"), "community", "ORGANIZATION", description)
    return True
