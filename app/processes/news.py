"""News that comes up as rows and makes processes due: instances that changed, signals that wait, workers that start.

Whoever writes a signal makes its process due by itself. What is looked for here in signals is what slipped through:
one whose writer found the process due already, by a worker that had just read the mailbox and was about to leave; or
found no process yet, and was committed after the first step of the one that was being started.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_LOOK_SECONDS = 1.0
_SWEEP_SECONDS = 5.0
_MOST = 2000
_FIRST = 200
"""So many signals before its first look are new to a worker."""
_AT_ONCE = 200
"""Mailboxes of the round in one look."""
_PATIENCE_SECONDS = 60.0
_EVER = timedelta(days=365_000)
_LATELY = timedelta(minutes=10)

# Only where a process does not know yet what became of its instance: looking twice changes nothing.
_INSTANCES = text("""
UPDATE processes SET next_at = now() WHERE id = ANY(ARRAY(
    SELECT p.id FROM instances i CROSS JOIN LATERAL (
        (SELECT id FROM processes WHERE instance_id = i.id AND status <> 'completed' AND i.deleted_at IS NOT NULL
            AND (next_at IS NULL OR next_at > now()) LIMIT :most)
        UNION ALL
        (SELECT id FROM processes WHERE instance_id = i.id AND status <> 'completed' AND paused_at IS NULL
            AND i.deleted_at IS NULL AND i.status = 'disabled' AND (next_at IS NULL OR next_at > now()) LIMIT :most)
        UNION ALL
        (SELECT id FROM processes WHERE instance_id = i.id AND status <> 'completed' AND paused_at IS NOT NULL
            AND i.deleted_at IS NULL AND i.status <> 'disabled' AND next_at > now() LIMIT :most)
    ) AS p
    WHERE i.updated_at > now() - CAST(:window AS interval) LIMIT :most
)) AND lease_until IS NULL
""")
_PARKED = text("UPDATE processes SET next_at = now() WHERE parked IS NOT NULL AND next_at > now()")
# Hops through the index from mailbox to mailbox: as many steps as it returns rows, however much waits in each.
_ROUND = text("""
WITH RECURSIVE waiting AS (
    (SELECT instance_id, process, key, 1 AS place FROM signals
     WHERE applied_at IS NULL AND (instance_id, process, key) > (:instance, :process, :key)
     ORDER BY instance_id, process, key LIMIT 1)
    UNION ALL
    SELECT s.*, w.place + 1 FROM waiting w CROSS JOIN LATERAL (
        SELECT instance_id, process, key FROM signals
        WHERE applied_at IS NULL AND (instance_id, process, key) > (w.instance_id, w.process, w.key)
        ORDER BY instance_id, process, key LIMIT 1) s
    WHERE w.place < :most
)
SELECT instance_id, process, key FROM waiting ORDER BY place
""")
# The xid is taken after the snapshot: whoever had drawn an id up to `newest` has a smaller one.
_LINE = text("""
SELECT coalesce((SELECT max(id) FROM signals), 0) AS newest, CAST(CAST(pg_current_xact_id() AS text) AS bigint) AS xid,
    CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint) AS oldest
""")
_RECENT = text("SELECT DISTINCT instance_id, process, key FROM signals WHERE id > :floor AND applied_at IS NULL")
_ADDRESSED = text("""
UPDATE processes SET next_at = now() WHERE id = ANY(ARRAY(
    SELECT p.id FROM unnest(CAST(:instances AS text[]), CAST(:names AS text[]), CAST(:keys AS text[]))
        AS w(instance_id, name, key)
    CROSS JOIN LATERAL (
        (SELECT id, next_at FROM processes WHERE instance_id = w.instance_id AND name = w.name AND key = w.key
            AND status = 'pending' AND paused_at IS NULL LIMIT :most)
        UNION ALL
        (SELECT id, next_at FROM processes WHERE id = w.key AND instance_id = w.instance_id AND name = w.name
            AND status = 'pending' AND paused_at IS NULL LIMIT :most)
    ) AS p
    WHERE p.next_at IS DISTINCT FROM least(p.next_at, now())
)) AND parked IS NULL AND closing_xid IS NULL
""")

_Mailbox = tuple[str, str, str]
_BEFORE_ALL: _Mailbox = ("", "", "")


class _Line(NamedTuple):
    """Drawn at a look: the newest signal then, and a transaction id beyond those of all that had drawn an older id."""

    newest: int
    xid: int
    at: float


class Mailboxes:
    """Which mailboxes one worker has to look into: those with new signals, and a few of all, in turn.

    Who waits for nobody is so not looked at again and again. A signal is new until all transactions that began to write
    one before it are over, and the look after that; so none is passed over for being committed late. Transactions that
    stay open for more than a minute are not waited for: what they bring is found on the round.
    """

    def __init__(self) -> None:
        self._floor: int | None = None
        self._lines: list[_Line] = []
        self._round_at = _BEFORE_ALL
        self._next: tuple[int, list[_Line], _Mailbox] | None = None

    async def look(self, session: AsyncSession) -> None:
        """Make due the processes that these mailboxes are for."""
        newest, xid, oldest = (await session.execute(_LINE)).one()
        now = time.monotonic()
        floor = max(0, newest - _FIRST) if self._floor is None else min(self._floor, newest)
        # Not the line of this look: whoever is found due at this moment may be about to leave, and is looked at twice.
        crossed = [line for line in self._lines if line.xid <= oldest or line.at < now - _PATIENCE_SECONDS]
        recent = await session.execute(_RECENT, {"floor": floor})
        instance, process, key = self._round_at
        where = {"instance": instance, "process": process, "key": key, "most": _AT_ONCE}
        on_the_round = [tuple(row) for row in await session.execute(_ROUND, where)]
        found = {*(tuple(row) for row in recent), *on_the_round}
        if found:
            instances, names, keys = (list(column) for column in zip(*sorted(found), strict=True))
            await session.execute(_ADDRESSED, {"instances": instances, "names": names, "keys": keys, "most": _MOST})
        self._next = (
            max([floor, *(line.newest for line in crossed)]),
            [*(line for line in self._lines if line not in crossed), _Line(newest, xid, now)],
            on_the_round[-1] if len(on_the_round) == _AT_ONCE else _BEFORE_ALL,
        )

    def looked(self) -> None:
        """That is committed: go on from there."""
        if self._next is not None:
            self._floor, self._lines, self._round_at = self._next
            self._next = None


class News:
    """When one worker has last looked for what."""

    def __init__(self) -> None:
        self._first = True
        self._mailboxes = Mailboxes()
        self._look_at = self._sweep_at = float("-inf")

    def expect(self) -> None:
        """Somebody has rung, or a while has passed: look at the next opportunity."""
        self._look_at = float("-inf")

    def due(self) -> bool:
        """Whether it is time to look again."""
        return time.monotonic() >= self._look_at

    async def pull(self, session: AsyncSession) -> None:
        """Make due what has news; the first time, whatever happened while no worker was there."""
        if self._first:
            await session.execute(_PARKED)
        await session.execute(_INSTANCES, {"window": _EVER if self._first else _LATELY, "most": _MOST})
        if time.monotonic() >= self._sweep_at:
            await self._mailboxes.look(session)

    def pulled(self) -> None:
        """That is committed."""
        now = time.monotonic()
        self._first = False
        self._mailboxes.looked()
        self._look_at = now + _LOOK_SECONDS
        if now >= self._sweep_at:
            self._sweep_at = now + _SWEEP_SECONDS
