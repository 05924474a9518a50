"""Noticing webhooks whose body has come before under another key.

Where a platform does not sign the id of a delivery, whoever has captured a webhook can send it again under a new id. It
is handled all the same, for genuine webhooks can be equal; but the operator hears of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.metrics import EQUAL_BODIES
from app.host.binding import Host
from app.inbound.models import Receipt

# A body is seen at the time its first receipt came in, so that trying or replaying that one again flags nothing.
_EQUAL = text("""
WITH given AS (
    SELECT * FROM unnest(CAST(:ids AS text[]), CAST(:instances AS text[]), CAST(:keys AS text[]),
                         CAST(:times AS timestamptz[])) AS t(id, instance_id, key, received_at)
), fresh AS (
    INSERT INTO seen (instance_id, key, seen_at)
    SELECT instance_id, key, received_at FROM given ORDER BY instance_id, key, received_at
    ON CONFLICT DO NOTHING RETURNING instance_id, key, seen_at
)
SELECT given.id FROM given
LEFT JOIN fresh USING (instance_id, key) LEFT JOIN seen USING (instance_id, key)
WHERE coalesce(fresh.seen_at, seen.seen_at) < given.received_at
""")

_log = structlog.get_logger(__name__)


async def find_equal_bodies(session: AsyncSession, host: Host, receipts: Sequence[Receipt]) -> list[Receipt]:
    """Those of `receipts` whose body an earlier receipt of the instance had, of hooks that ask for it."""
    asked = {receipt.id: receipt for receipt in receipts if _asks(host, receipt)}
    if not asked:
        return []
    values = {
        "ids": list(asked),
        "instances": [receipt.instance_id for receipt in asked.values()],
        "keys": [_key(receipt) for receipt in asked.values()],
        "times": [receipt.received_at for receipt in asked.values()],
    }
    return [asked[found] for found in await session.scalars(_EQUAL, values)]


def flag(receipts: Sequence[Receipt]) -> None:
    """Log and count webhooks whose body has come before."""
    for receipt in receipts:
        EQUAL_BODIES.labels(receipt.plugin).inc()
        _log.warning(
            "a webhook's body has come before under another key: the platform repeats itself, or somebody replays it",
            receipt=receipt.id,
            plugin=receipt.plugin,
            instance=receipt.instance_id,
        )


def _asks(host: Host, receipt: Receipt) -> bool:
    loaded = host.plugins.loaded.get(receipt.plugin)
    hook = loaded.manifest.webhooks.get(receipt.hook) if loaded else None
    return hook is not None and hook.flag_repeats


def _key(receipt: Receipt) -> str:
    """Forgotten as the hook's other keys are; the line break is in none of those."""
    return f"hook:{receipt.hook}:body\n{hashlib.sha256(receipt.body).hexdigest()}"
