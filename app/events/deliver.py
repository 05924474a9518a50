"""Delivering events: POST them signed, record each attempt, try again on the schedule of the contract."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import aiohttp

from app.core.crypto import UnreadableSecret, Vault
from app.core.db import Database, is_away
from app.core.egress import EgressRefused, read_capped
from app.core.group import Group
from app.core.killpoints import KillPoint, reached
from app.core.metrics import deliveries_of
from app.core.work import LostLease, drain, keeping
from app.events.claim import Outgoing, claim
from app.events.messages import render
from app.events.models import Delivery
from app.events.settle import Attempted, Result, settle_delivered, settle_failed

IN_HAND = 512
"""How many deliveries a worker posts at a time."""
SCHEDULE = tuple(timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 1800, 7200, 18000, 36000, 36000))
"""The wait after the first, second, … failed attempt; after the last the delivery is dead."""
_LONGEST_RETRY_AFTER = 24 * 3600
_KEPT_ANSWER = 64 * 1024
_KEPT_SECRETS = 256


async def deliver_due(
    db: Database, http: aiohttp.ClientSession, vault: Vault, news: asyncio.Event | None = None
) -> int:
    """Attempt what is due, all at once, until none is in hand. Returns how many there were.

    While slow endpoints take their time, more is claimed for the others.
    """
    busy: Counter[str] = Counter()
    # The same few secrets sign everything, and opening one costs as much as a post.
    unseal = lru_cache(_KEPT_SECRETS)(vault.open)
    results = Group[Attempted, bool](
        lambda batch: settle_delivered(db, batch), is_ones_fault=lambda error: not is_away(error), most_items=IN_HAND
    )

    async def take(room: int) -> Sequence[Outgoing]:
        async with db.begin() as session:
            claimed = await claim(session, room=room, busy=busy)
        busy.update(item.endpoint.id for item in claimed)
        return claimed

    async def deliver(item: Outgoing) -> None:
        try:
            attempted = await _attempt(http, unseal, item)
            if attempted.result.delivered:
                written = await results.add(attempted)
            else:
                written = await _settle_failed(db, attempted)
        finally:
            busy[item.endpoint.id] -= 1
        reached(KillPoint.DELIVERY_SETTLED)
        if not written:
            raise LostLease

    return await drain(take, deliver, limit=IN_HAND, news=news, keep=keeping(db, Delivery))


async def _attempt(http: aiohttp.ClientSession, unseal: Callable[[str], Any], item: Outgoing) -> Attempted:
    reached(KillPoint.DELIVERY_CLAIMED)
    at = datetime.now(UTC)
    result = await post(http, unseal, item)
    reached(KillPoint.DELIVERY_ANSWERED)
    deliveries_of("delivered" if result.delivered else "failed").inc()
    return Attempted(item, at, result)


async def _settle_failed(db: Database, attempted: Attempted) -> bool:
    result = attempted.result
    pause = None if result.retry_after is None else timedelta(seconds=result.retry_after)
    async with db.begin() as session:
        return await settle_failed(session, attempted, retry_in=_wait(attempted.item, result), pause=pause)


def _wait(item: Outgoing, result: Result) -> timedelta | None:
    """How long until the next attempt; None when there is none."""
    if result.status == 410 or item.attempt > len(SCHEDULE):
        return None
    wait = SCHEDULE[item.attempt - 1] * random.uniform(0.8, 1.2)  # noqa: S311 -- spreads load, guards nothing
    return wait if result.retry_after is None else max(wait, timedelta(seconds=result.retry_after))


async def post(http: aiohttp.ClientSession, unseal: Callable[[str], Any], item: Outgoing) -> Result:
    """One signed POST. Every way it can fail is a Result, none an exception."""
    started = time.perf_counter()
    status: int | None = None
    error: str | None = None
    text: str | None = None
    retry_after: float | None = None
    try:
        body, headers = render(item, unseal)
        reached(KillPoint.DELIVERY_SIGNED)
        async with http.post(item.endpoint.url, data=body, headers=headers, allow_redirects=False) as response:
            status = response.status
            retry_after = _retry_after(response)
            text = (await read_capped(response, _KEPT_ANSWER)).decode("utf-8", "replace").replace("\0", "\ufffd")
    except (EgressRefused, UnreadableSecret) as refusal:
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
