"""Reading and replaying receipts, for drivers. Parts of a body that the plugin declares secret are masked."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

import asyncpg

from app.core.crypto import MASK
from app.core.db import Pool
from app.core.errors import Conflict, NotFound
from app.core.killpoints import KillPoint, reached
from app.core.paging import cut, decode_cursor, encode_cursor
from app.host.binding import Host
from app.inbound.schemas import ReceiptOut, ReplayIn

_STATUS = """
CASE WHEN r.status IN ('stored', 'retrying') AND r.lease_until > clock_timestamp() THEN 'running' ELSE r.status END
"""
_COLUMNS = f"""
r.id, c.slug AS community, r.plugin, r.hook, r.instance_id AS instance, {_STATUS} AS status,
r.attempt, r.error, r.received_at, r.headers::text AS headers, r.body
"""
_SELECT = f"SELECT {_COLUMNS} FROM receipts r JOIN communities c ON c.id = r.community_id"  # noqa: S608 -- constants only
_PAGE = f"""{_SELECT}
WHERE r.community_id = $1 AND r.id < $2 AND ($3::text IS NULL OR r.plugin = $3) AND ($4::text IS NULL OR {_STATUS} = $4)
ORDER BY r.id DESC LIMIT $5
"""
_ONE = f"{_SELECT} WHERE c.driver_id = $1 AND c.deleted_at IS NULL AND r.id = $2"
# The epoch rises so that a worker that slept past its lease cannot call the replay done. What is running is left alone.
_AGAIN = f"""
UPDATE receipts AS r
SET status = 'stored', attempt = 0, error = NULL, next_at = clock_timestamp(), lease_until = NULL, epoch = r.epoch + 1
WHERE {_STATUS} <> 'running' AND
"""  # noqa: S608 -- constants only
_REPLAY = f"""
WITH r AS (
    {_AGAIN} r.id = $2 AND EXISTS (
        SELECT FROM communities c WHERE c.id = r.community_id AND c.driver_id = $1 AND c.deleted_at IS NULL
    ) RETURNING r.*
)
SELECT {_COLUMNS} FROM r JOIN communities c ON c.id = r.community_id
"""  # noqa: S608 -- constants only
_REPLAY_MANY = f"""
{_AGAIN} r.community_id = $1 AND r.status = $2 AND ($3::text IS NULL OR r.plugin = $3)
    AND ($4::timestamptz IS NULL OR r.received_at >= $4) AND ($5::timestamptz IS NULL OR r.received_at < $5)
"""
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


async def replay(pool: Pool, host: Host, driver_id: str, receipt_id: str) -> ReceiptOut:
    """Hand a receipt to its handler again, from its first try on; wake the worker afterwards.

    Raises NotFound, and Conflict while it is being handled.
    """
    row = await pool.fetchrow(_REPLAY, driver_id, receipt_id)
    if row is None:
        await find(pool, host, driver_id, receipt_id)
        raise Conflict("the receipt is being handled just now; replay it once it is done, retrying or dead")
    return _wire(host, row)


async def replay_many(pool: Pool, community_id: str, wanted: ReplayIn) -> int:
    """Hand a community's receipts that `wanted` names to their handlers again; wake the worker afterwards.

    Returns how many; those that are being handled are left alone.
    """
    reached(KillPoint.REPLAY_ASKED)
    said = await pool.execute(_REPLAY_MANY, community_id, wanted.status, wanted.plugin, wanted.since, wanted.until)
    reached(KillPoint.REPLAY_COMMITTED)
    return int(said.rpartition(" ")[2])


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
    """The body with the values at these JSON pointers masked; a body that cannot be read is masked whole.

    In a form a pointer begins with the name of a field, and what follows points into the JSON that the field holds.
    """
    if not pointers:
        return body
    paths = [[part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]] for pointer in pointers]
    try:
        return _masked_json(body, paths)
    except (ValueError, RecursionError):
        pass
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=1000)
    except ValueError:
        return MASK.encode()
    masked = [(name, _masked_field(value, [path[1:] for path in paths if path[0] == name])) for name, value in fields]
    return urlencode(masked, errors="surrogatepass").encode()


def _masked_json(text: str | bytes, paths: Sequence[Sequence[str]]) -> bytes:
    """Raises ValueError or RecursionError for what is no JSON."""
    document = json.loads(text)
    for *parents, last in paths:
        place: Any = document
        for part in parents:
            place = place.get(part) if isinstance(place, dict) else None
        if isinstance(place, dict) and last in place:
            place[last] = MASK
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _masked_field(value: str, paths: Sequence[Sequence[str]]) -> str:
    """A form's field with what `paths` point at masked; the empty path is the field itself."""
    if not paths:
        return value
    if not all(paths):
        return MASK
    try:
        return _masked_json(value, paths).decode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return MASK
