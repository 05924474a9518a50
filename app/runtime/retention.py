"""How long the keys of webhooks and the signals in the mailbox are kept."""

from __future__ import annotations

from datetime import timedelta

from app.core.batches import delete_in_batches
from app.core.db import Database

_LEAST_SEEN = timedelta(days=30)
"""A platform may repeat a webhook, and a person may replay one by hand, long after it came."""
_APPLIED = timedelta(days=1)


async def forget_seen(db: Database, keep: timedelta) -> None:
    """Forget the keys of webhooks older than `keep`, of the last 30 days none.

    Keys of events stay: a poll may list an old object again however late, and it would be an event a second time.
    """
    await delete_in_batches(
        db, "seen", "key LIKE 'hook:%' AND seen_at < now() - CAST(:age AS interval)", age=max(keep, _LEAST_SEEN)
    )


async def forget_signals(db: Database, keep: timedelta) -> None:
    """Drop signals a day after a process took them, and those that no process took within `keep`."""
    await delete_in_batches(
        db,
        "signals",
        "applied_at < now() - CAST(:applied AS interval) OR at < now() - CAST(:age AS interval)",
        applied=_APPLIED,
        age=keep,
    )
