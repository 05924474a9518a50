"""Delivering events: POST them signed, record each attempt, try again on the schedule of the contract."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import aiohttp
import structlog

from app.core.crypto import UnreadableSecret, Vault
from app.core.db import Database
from app.core.egress import EgressRefused, read_capped
from app.core.metrics import DELIVERIES
from app.events.claim import Outgoing, claim
from app.events.messages import render
from app.events.settle import Settled, settle

IN_HAND = 256
"""How many deliveries a worker posts at a time."""
SCHEDULE = tuple(timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 1800, 7200, 18000, 36000, 36000))
"""The wait after the first, second, … failed attempt; after the last the delivery is dead."""
_LONGEST_RETRY_AFTER = 24 * 3600
_KEPT_ANSWER = 64 * 1024
_LOOK_AGAIN = 0.05

_log = structlog.get_logger(__name__)


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
    """Attempt what is due, all at once, until none is in hand. Returns how many there were.

    While slow endpoints take their time, more is claimed for the others.
    """
    total = 0
    in_hand: dict[asyncio.Task[None], str] = {}
    try:
        while True:
            if len(in_hand) < IN_HAND:
                async with db.begin() as session:
                    claimed = await claim(session, room=IN_HAND - len(in_hand), busy=Counter(in_hand.values()))
                total += len(claimed)
                for item in claimed:
                    in_hand[asyncio.create_task(_guarded(db, http, vault, item))] = item.endpoint.id
            if not in_hand:
                return total
            done, _ = await asyncio.wait(in_hand, timeout=_LOOK_AGAIN)
            for task in done:
                del in_hand[task]
            if not in_hand:
                return total
    finally:
        for task in in_hand:
            task.cancel()
        await asyncio.gather(*in_hand, return_exceptions=True)


async def _guarded(db: Database, http: aiohttp.ClientSession, vault: Vault, item: Outgoing) -> None:
    try:
        await _deliver(db, http, vault, item)
    except Exception:
        # The row keeps its lease and is due again when it ends: one bad row never fails the others.
        _log.exception("work failed unexpectedly; it is retried", row=item.delivery_id)


async def _deliver(db: Database, http: aiohttp.ClientSession, vault: Vault, item: Outgoing) -> None:
    at = datetime.now(UTC)
    result = await post(http, vault, item)
    DELIVERIES.labels("delivered" if result.delivered else "failed").inc()
    async with db.begin() as session:
        written = await settle(
            session,
            item,
            Settled(
                at=at,
                answer=result.status,
                latency_ms=result.latency_ms,
                error=result.error,
                response_text=result.text,
                delivered=result.delivered,
                retry_in=None if result.delivered else _wait(item, result),
                pause=None if result.retry_after is None else timedelta(seconds=result.retry_after),
            ),
        )
    if not written:
        _log.warning("lease lost, another worker goes on", row=item.delivery_id)


def _wait(item: Outgoing, result: Result) -> timedelta | None:
    """How long until the next attempt; None when there is none."""
    if result.status == 410 or item.attempt > len(SCHEDULE):
        return None
    wait = SCHEDULE[item.attempt - 1] * random.uniform(0.8, 1.2)  # noqa: S311 -- spreads load, guards nothing
    return wait if result.retry_after is None else max(wait, timedelta(seconds=result.retry_after))


async def post(http: aiohttp.ClientSession, vault: Vault, item: Outgoing) -> Result:
    """One signed POST. Every way it can fail is a Result, none an exception."""
    started = time.perf_counter()
    status: int | None = None
    error: str | None = None
    text: str | None = None
    retry_after: float | None = None
    try:
        body, headers = render(item, vault)
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
