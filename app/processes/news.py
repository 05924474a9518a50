"""News that comes up as rows and makes processes due: instances that changed, signals that wait, workers that start.

Whoever writes a signal makes its process due by itself. What is looked for here in signals is what slipped through:
one whose writer found the process due already, by a worker that had just read the mailbox and was about to leave.
"""

from __future__ import annotations

import time
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_LOOK_SECONDS = 1.0
_SWEEP_SECONDS = 5.0
_MOST = 2000
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
# Hops through the index from mailbox to mailbox, so that it costs as many steps as mailboxes have something waiting.
_SIGNALS = text("""
WITH RECURSIVE waiting AS (
    (SELECT instance_id, process, key FROM signals WHERE applied_at IS NULL
     ORDER BY instance_id, process, key LIMIT 1)
    UNION ALL
    SELECT s.* FROM waiting w CROSS JOIN LATERAL (
        SELECT instance_id, process, key FROM signals
        WHERE applied_at IS NULL AND (instance_id, process, key) > (w.instance_id, w.process, w.key)
        ORDER BY instance_id, process, key LIMIT 1) s
)
UPDATE processes SET next_at = now() WHERE id = ANY(ARRAY(
    SELECT p.id FROM waiting w JOIN processes p
        ON p.instance_id = w.instance_id AND p.name = w.process AND p.key = w.key AND p.status = 'pending'
    WHERE p.paused_at IS NULL AND p.next_at IS DISTINCT FROM least(p.next_at, now())
    UNION ALL
    SELECT p.id FROM waiting w JOIN processes p ON p.id = w.key AND p.name = w.process AND p.status = 'pending'
    WHERE p.paused_at IS NULL AND p.next_at IS DISTINCT FROM least(p.next_at, now())
)) AND parked IS NULL AND closing_xid IS NULL
""")


class News:
    """When one worker has last looked for what."""

    def __init__(self) -> None:
        self._first = True
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
            await session.execute(_SIGNALS)

    def pulled(self) -> None:
        """That is committed."""
        now = time.monotonic()
        self._first = False
        self._look_at = now + _LOOK_SECONDS
        if now >= self._sweep_at:
            self._sweep_at = now + _SWEEP_SECONDS
