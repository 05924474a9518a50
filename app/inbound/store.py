"""Storing webhooks: one statement per batch decides, for each, between stored, repeated and out of date.

Webhooks that arrive while a batch is being committed make up the next one: under load many share a commit, and one
that comes alone waits for nobody.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import asyncpg

from app.core.db import Database, Pool
from app.core.ids import new_id

Verdict = Literal["stored", "repeated", "stale"]

MOST_ROWS = 256
MOST_BYTES = 4 * 1024 * 1024
_FLUSHES = 2
"""Batches in flight at once: while one waits for the disk, the next is on its way."""

_REFUSED = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)
"""What Postgres says when it is a row that is wrong, and not the moment."""

_DROPPED_HEADERS = frozenset({"authorization", "cookie"})

# `live` keeps the rows whose instance is still as it was when the signature was checked; `fresh` claims their keys
# (the dedupe table is not partitioned, so the key is unique for good), in one order for all, so that statements cannot
# deadlock; `stored` writes what is new. Row by row it asks a hashed list of keys: joined instead, the planner, which
# expects one row, compares every key with every other.
_INGEST = """
WITH input AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::bytea[])
        WITH ORDINALITY AS t(id, instance_id, generation, hook, key, headers, body, place)
), live AS (
    SELECT input.*, i.community_id, i.plugin,
           row_number() OVER (PARTITION BY input.instance_id, input.key ORDER BY input.place) = 1 AS leads
    FROM input JOIN instances i ON i.id = input.instance_id AND i.generation = input.generation
    WHERE i.status <> 'disabled' AND i.deleted_at IS NULL
), fresh AS (
    INSERT INTO seen (instance_id, key)
    SELECT instance_id, key FROM live WHERE key IS NOT NULL AND leads ORDER BY instance_id, key
    ON CONFLICT DO NOTHING RETURNING instance_id, key
), stored AS (
    INSERT INTO receipts (id, community_id, instance_id, plugin, hook, headers, body)
    SELECT l.id, l.community_id, l.instance_id, l.plugin, l.hook, l.headers::json, l.body
    FROM live l
    WHERE l.key IS NULL OR (l.leads AND (l.instance_id, l.key) IN (SELECT instance_id, key FROM fresh))
    ORDER BY l.place
    RETURNING id
)
SELECT input.id, CASE WHEN s.id IS NOT NULL THEN 'stored' WHEN l.id IS NOT NULL THEN 'repeated' ELSE 'stale' END
FROM input LEFT JOIN live l USING (id) LEFT JOIN stored s USING (id)
"""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A verified webhook on its way in. `generation` is the instance's at which it was verified."""

    instance_id: str
    generation: int
    hook: str
    key: str | None
    headers: Sequence[tuple[str, str]]
    body: bytes


class Intake:
    """Stores webhooks in batches. One per API process."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._waiting: deque[tuple[Incoming, asyncio.Future[Verdict]]] = deque()
        self._flushes: set[asyncio.Task[None]] = set()
        self._flushing = 0

    async def store(self, items: Sequence[Incoming]) -> list[Verdict]:
        """Store webhooks; returns after the commit, with one verdict each, in order.

        Raises what the database raises; data that it refuses fails no webhook but its own.
        """
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[Verdict]] = [loop.create_future() for _ in items]
        self._waiting.extend(zip(items, answers, strict=True))
        # Counted by the flushes themselves: one that has found nothing left to take is a task for a little longer, but
        # nothing is to be expected of it.
        if self._flushing < _FLUSHES:
            self._flushing += 1
            flush = loop.create_task(self._flush())
            self._flushes.add(flush)
            flush.add_done_callback(self._flushes.discard)
        return await asyncio.gather(*answers)

    async def _flush(self) -> None:
        try:
            while batch := self._take():
                try:
                    await self._ingest(batch)
                except BaseException as error:
                    # Each request has to hear of it, whatever it is, or it would wait for ever.
                    if not isinstance(error, Exception):
                        _fail(batch, ConnectionError("stopped before the commit"))
                        raise
                    _fail(batch, error)
        finally:
            self._flushing -= 1

    def _take(self) -> list[tuple[Incoming, asyncio.Future[Verdict]]]:
        """The longest-waiting webhooks, as many as one statement should hold, and at least one."""
        batch: list[tuple[Incoming, asyncio.Future[Verdict]]] = []
        size = 0
        while self._waiting and len(batch) < MOST_ROWS:
            size += len(self._waiting[0][0].body)
            if batch and size > MOST_BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _ingest(self, batch: Sequence[tuple[Incoming, asyncio.Future[Verdict]]]) -> None:
        try:
            verdicts = await ingest(self._db.pool, [item for item, _ in batch])
        except _REFUSED as error:
            if len(batch) == 1:
                _fail(batch, error)
                return
            middle = len(batch) // 2
            await self._ingest(batch[:middle])
            await self._ingest(batch[middle:])
        else:
            for (_, answer), verdict in zip(batch, verdicts, strict=True):
                if not answer.done():
                    answer.set_result(verdict)


def _fail(batch: Sequence[tuple[Incoming, asyncio.Future[Verdict]]], error: Exception) -> None:
    for _, answer in batch:
        if not answer.done():
            answer.set_exception(error)


async def ingest(pool: Pool, batch: Sequence[Incoming]) -> list[Verdict]:
    """Store a batch in one committed statement; one verdict each, in order."""
    ids = [new_id("rcp") for _ in batch]
    rows = await pool.fetch(
        _INGEST,
        ids,
        [item.instance_id for item in batch],
        [item.generation for item in batch],
        [item.hook for item in batch],
        [item.key for item in batch],
        [_headers(item.headers) for item in batch],
        [item.body for item in batch],
    )
    verdicts: dict[str, Verdict] = {row[0]: row[1] for row in rows}
    return [verdicts[receipt_id] for receipt_id in ids]


def _headers(headers: Sequence[tuple[str, str]]) -> str:
    return json.dumps([[name, value] for name, value in headers if name.lower() not in _DROPPED_HEADERS])
