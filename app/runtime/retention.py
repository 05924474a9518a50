"""How long the keys of webhooks and the signals in the mailbox are kept."""

from __future__ import annotations

from datetime import timedelta

from app.core.batches import delete_in_batches
from app.core.db import Database

_LEAST_SEEN = timedelta(days=30)
"""A platform may repeat a webhook, and a person may replay one by hand, long after it came."""
_APPLIED = timedelta(days=1)
_UNMATCHED = timedelta(days=1)
"""A click may come before the start that it is for is committed; beyond that it is for nobody."""


async def forget_seen(db: Database, keep: timedelta) -> None:
    """Forget the keys of webhooks older than `keep`, of the last 30 days none.

    Keys of events stay: a poll may list an old object again however late, and it would be an event a second time.
    """
    await delete_in_batches(
        db, "seen", "key LIKE 'hook:%' AND seen_at < now() - CAST(:age AS interval)", age=max(keep, _LEAST_SEEN)
    )


async def forget_signals(db: Database) -> None:
    """Drop signals a day after a process took them (its history has them), and those that none was there to take."""
    await delete_in_batches(db, "signals", "applied_at < now() - CAST(:age AS interval)", age=_APPLIED)
    # What waits for a process that is paused, parked or still to be opened is not to be lost, however long that takes.
    await delete_in_batches(
        db,
        "signals",
        "applied_at IS NULL AND at < now() - CAST(:age AS interval) AND NOT EXISTS ("
        "SELECT FROM processes p WHERE p.instance_id = signals.instance_id AND p.name = signals.process "
        "AND p.status = 'pending' AND p.key = signals.key) AND NOT EXISTS ("
        "SELECT FROM processes p WHERE p.id = signals.key AND p.status <> 'completed')",
        age=_UNMATCHED,
    )
