"""Delivering events: POST them signed, record each attempt, try again on the schedule of the contract."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.models import Driver
from app.core import work
from app.core.crypto import Vault, sign
from app.core.db import Database
from app.core.egress import EgressRefused, read_capped
from app.core.ids import new_id
from app.core.metrics import DELIVERIES
from app.events.models import Attempt, Delivery, Endpoint, EventRow
from app.events.schemas import envelope

BATCH = 100
LEASE = timedelta(seconds=30)
"""Longer than an attempt can take (15 s)."""
SCHEDULE = tuple(timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 1800, 7200, 18000, 36000, 36000))
"""The wait after the first, second, … failed attempt; after the last the delivery is dead."""
_LONGEST_RETRY_AFTER = 24 * 3600
_KEPT_ANSWER = 64 * 1024


@dataclass(frozen=True, slots=True)
class Outgoing:
    """All an attempt needs, loaded in one query."""

    delivery: Delivery
    endpoint: Endpoint
    event: EventRow
    driver_secret: str


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one attempt."""

    status: int | None
    error: str | None
    text: str | None
    latency_ms: int
    retry_after: float | None

    @property
    def delivered(self) -> bool:
        """Any 2xx, its body read in time."""
        return self.error is None and self.status is not None and 200 <= self.status < 300


async def deliver_due(db: Database, http: aiohttp.ClientSession, vault: Vault) -> int:
    """Attempt one batch of due deliveries, all at once. Returns how many there were."""
    async with db.begin() as session:
        held = await work.claim(session, Delivery, limit=BATCH, lease=LEASE)
        outgoing = await _load(session, held) if held else []
    await asyncio.gather(*(_deliver(db, http, vault, item) for item in outgoing))
    return len(held)


async def _load(session: AsyncSession, held: Sequence[Delivery]) -> list[Outgoing]:
    rows = await session.execute(
        select(Delivery.id, Endpoint, EventRow, Driver.signing_secret)
        .join(Endpoint, Endpoint.id == Delivery.endpoint_id)
        .join(EventRow, EventRow.id == Delivery.event_id)
        .join(Driver, Driver.id == Endpoint.driver_id)
        .where(Delivery.id.in_([delivery.id for delivery in held]))
    )
    by_id = {delivery.id: delivery for delivery in held}
    return [Outgoing(by_id[delivery_id], endpoint, event, secret) for delivery_id, endpoint, event, secret in rows]


async def _deliver(db: Database, http: aiohttp.ClientSession, vault: Vault, item: Outgoing) -> None:
    if item.endpoint.status != "enabled":
        await _pause(db, item)
        return
    at = datetime.now(UTC)
    result = await post(http, vault, item)
    DELIVERIES.labels("delivered" if result.delivered else "failed").inc()
    async with db.begin() as session:
        await session.execute(
            insert(Attempt).values(
                id=new_id("att"),
                delivery_id=item.delivery.id,
                at=at,
                status=result.status,
                latency_ms=result.latency_ms,
                error=result.error,
                response_text=result.text,
            )
        )
        if result.delivered:
            written = await work.finish(session, item.delivery, status="delivered")
        else:
            written = await _reschedule(session, item, result)
        if not written:
            raise work.LostLease


async def _pause(db: Database, item: Outgoing) -> None:
    """A delivery whose endpoint is disabled waits without spending its schedule."""
    async with db.begin() as session:
        await work.fail(session, item.delivery, retry_in=timedelta(minutes=1), attempt=item.delivery.attempt - 1)


async def _reschedule(session: AsyncSession, item: Outgoing, result: Result) -> bool:
    attempt = item.delivery.attempt
    if result.status == 410 and item.endpoint.kind == "endpoint":
        await session.execute(
            update(Endpoint)
            .where(Endpoint.id == item.endpoint.id)
            .values(status="disabled", disabled_reason="it answered 410 Gone")
        )
    if result.status == 410 or attempt > len(SCHEDULE):
        return await work.fail(session, item.delivery, retry_in=None, status="dead")
    wait = SCHEDULE[attempt - 1] * random.uniform(0.8, 1.2)  # noqa: S311 -- spreads load, guards nothing
    if result.retry_after is not None:
        wait = max(wait, timedelta(seconds=result.retry_after))
    return await work.fail(session, item.delivery, retry_in=wait)


def payload(item: Outgoing) -> tuple[str, bytes]:
    """The message id (stable across retries) and the body. A callback gets the bare Process and an id of its own."""
    event = item.event
    if item.endpoint.kind == "callback":
        return item.delivery.id, _dump(event.data)
    return event.id, _dump(
        envelope(
            id=event.id,
            community=event.community,
            instance=event.instance_id,
            source=event.source,
            event_type=event.event_type,
            timestamp=event.timestamp,
            data=event.data,
            initiator=event.initiator,
        )
    )


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


async def post(http: aiohttp.ClientSession, vault: Vault, item: Outgoing) -> Result:
    """One signed POST. Every way it can fail is a Result, none an exception."""
    message_id, body = payload(item)
    secret = vault.open(item.endpoint.secret or item.driver_secret)
    timestamp = int(time.time())
    headers = {
        "content-type": "application/json",
        "user-agent": "Metagov-Gateway",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secret, message_id, timestamp, body),
    }
    started = time.perf_counter()
    status: int | None = None
    error: str | None = None
    text: str | None = None
    retry_after: float | None = None
    try:
        async with http.post(item.endpoint.url, data=body, headers=headers, allow_redirects=False) as response:
            status = response.status
            retry_after = _retry_after(response)
            text = (await read_capped(response, _KEPT_ANSWER)).decode("utf-8", "replace").replace("\0", "\ufffd")
    except EgressRefused as refusal:
        error = str(refusal)
    except TimeoutError:
        error = "no complete answer within 15 seconds"
    except (aiohttp.ClientError, OSError, ValueError) as failure:
        error = f"{type(failure).__name__}: the connection failed"
    return Result(status, error, text, round((time.perf_counter() - started) * 1000), retry_after)


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    value = response.headers.get("retry-after", "")
    if response.status in (429, 503) and value.isascii() and value.isdigit():
        return float(min(int(value[:9]), _LONGEST_RETRY_AFTER))
    return None
