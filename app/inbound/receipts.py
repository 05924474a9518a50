"""Reading receipts, for drivers. Parts of a body that the plugin declares secret are masked."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import asyncpg

from app.core.crypto import MASK
from app.core.db import Pool
from app.core.errors import NotFound
from app.core.paging import cut, decode_cursor, encode_cursor
from app.host.binding import Host
from app.inbound.schemas import ReceiptOut

_STATUS = """
CASE WHEN r.status IN ('stored', 'retrying') AND r.lease_until > clock_timestamp() THEN 'running' ELSE r.status END
"""
_SELECT = f"""
SELECT r.id, c.slug AS community, r.plugin, r.hook, r.instance_id AS instance, {_STATUS} AS status,
       r.attempt, r.error, r.received_at, r.headers::text AS headers, r.body
FROM receipts r JOIN communities c ON c.id = r.community_id
"""  # noqa: S608 -- constants only
_PAGE = f"""{_SELECT}
WHERE r.community_id = $1 AND r.id < $2 AND ($3::text IS NULL OR r.plugin = $3) AND ($4::text IS NULL OR {_STATUS} = $4)
ORDER BY r.id DESC LIMIT $5
"""
_ONE = f"{_SELECT} WHERE c.driver_id = $1 AND c.deleted_at IS NULL AND r.id = $2"
_LAST = "~"


async def page(
    pool: Pool,
    host: Host,
    community_id: str,
    *,
    plugin: str | None,
    status: str | None,
    after: str | None,
    limit: int,
) -> tuple[list[ReceiptOut], str | None]:
    """A page of a community's receipts, newest first."""
    position = decode_cursor(after, (str,), of="receipts") or [_LAST]
    rows, more = cut(await pool.fetch(_PAGE, community_id, position[0], plugin, status, limit + 1), limit)
    cursor = encode_cursor([rows[-1]["id"]], of="receipts") if more else None
    return [_wire(host, row) for row in rows], cursor


async def find(pool: Pool, host: Host, driver_id: str, receipt_id: str) -> ReceiptOut:
    """One receipt of any of the driver's communities. Raises NotFound."""
    row = await pool.fetchrow(_ONE, driver_id, receipt_id)
    if row is None:
        raise NotFound("you have no receipt with this id")
    return _wire(host, row)


def _wire(host: Host, row: asyncpg.Record) -> ReceiptOut:
    loaded = host.plugins.loaded.get(row["plugin"])
    hook = loaded.manifest.webhooks.get(row["hook"]) if loaded else None
    body = mask_body(row["body"], hook.mask if hook else ())
    return ReceiptOut(
        id=row["id"],
        community=row["community"],
        plugin=row["plugin"],
        instance=row["instance"],
        status=row["status"],
        attempts=row["attempt"],
        error=row["error"],
        received_at=row["received_at"],
        headers=json.loads(row["headers"]),
        body_base64=base64.b64encode(body).decode(),
    )


def mask_body(body: bytes, pointers: Sequence[str]) -> bytes:
    """The body with the values at these JSON pointers masked; a body that cannot be read is masked whole."""
    if not pointers:
        return body
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return MASK.encode()
    for pointer in pointers:
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
        place: Any = document
        for part in parents:
            place = place.get(part) if isinstance(place, dict) else None
        if isinstance(place, dict) and last in place:
            place[last] = MASK
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")
