"""`self.http` keeps to the platform's limits: it waits for its turn, and learns from the answers.

Below the client's authentication, so that a request that is authenticated anew is counted anew; above the connections,
which all calls share and none holds while it waits.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx
import structlog

from app.core.db import Database
from app.core.metrics import platform_refusals_of, platform_waits_of
from app.runtime.calls import Ambiguous, PutOff, time_left
from app.runtime.limits import MOST_LIMITS, Buckets, bounded_name
from metagov_sdk import Alias, Charge, Limit, Plugin, Retry, Wait
from metagov_sdk.limits import Learned

_PATIENCE = 5.0
"""Seconds that a request waits here for its turn; who is to wait longer is told so, and comes again."""
_TO_SEND = 1.0
"""Seconds of a call that are left for the request itself."""
_RESENDS = 3
_LEAST_PAUSE = 0.25
_MOST_LEARNED = 16
_SAFE = frozenset(["GET", "HEAD", "OPTIONS"])

_log = structlog.get_logger(__name__)


class PacedTransport(httpx.AsyncBaseTransport):
    """Sends one call's requests when the plugin's limits let it. Raises Retry where the wait would be long.

    Closing it leaves `inner` open: that is shared.
    """

    def __init__(self, db: Database, plugin: Plugin[Any, Any, Any], inner: httpx.AsyncBaseTransport) -> None:
        self._buckets = Buckets(db, plugin.name, plugin.limit_owner)
        self._plugin = plugin
        self._inner = inner
        self._acts = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Wait for the request's turn, send it, learn; after a 429 with a short wait, again."""
        try:
            return await self._send_in_turn(request, self._plugin.limits(request))
        except Retry as error:
            if self._acts:
                # The call is cut short in its middle: what it has done already is to be looked for the next time.
                raise Ambiguous(error.reason, after=error.after) from error
            raise

    async def _send_in_turn(self, request: httpx.Request, limits: Sequence[Limit]) -> httpx.Response:
        if not limits:
            return await self._send(request)
        if len(limits) > MOST_LIMITS:
            raise ValueError(f"limits() names {len(limits)} buckets for one request; {MOST_LIMITS} are the most")
        for resends_left in reversed(range(_RESENDS + 1)):
            known = await self._turn(limits)
            response = await self._send(request)
            try:
                asked = await self._learn(request, response, limits, known)
            except BaseException:
                await response.aclose()
                raise
            if response.status_code != 429 or asked is None:
                return response
            await response.aclose()
            pause = max(asked, _LEAST_PAUSE)
            if not resends_left or pause > _patience() or not isinstance(request.stream, httpx.ByteStream):
                self._put_off(pause, "the platform asks to wait")
            await self._sleep(pause)
        raise AssertionError("the last round returns or raises")

    async def _send(self, request: httpx.Request) -> httpx.Response:
        acts = request.method not in _SAFE
        # Counted before it is sent: one whose answer is lost may have done what it asks for.
        self._acts += acts
        response = await self._inner.handle_async_request(request)
        self._acts -= acts and response.is_client_error
        return response

    async def _turn(self, limits: Sequence[Limit]) -> Mapping[str, str]:
        """Wait until the request may go, charged to its buckets. Returns what each of them is known by."""
        give_up = asyncio.get_running_loop().time() + _patience()
        held = [False] * len(limits)
        while True:
            patience = max(give_up - asyncio.get_running_loop().time(), 0.0)
            taken = await self._buckets.take(limits, held, patience)
            if taken.wait <= 0:
                return taken.buckets
            if taken.wait > patience:
                self._put_off(taken.wait, "the platform's rate limit is used up")
            if taken.reserved is not None:
                held[taken.reserved] = True
            await self._sleep(taken.wait)

    async def _learn(
        self, request: httpx.Request, response: httpx.Response, limits: Sequence[Limit], known: Mapping[str, str]
    ) -> float | None:
        """Note what the answer says of limits. Returns the longest wait in it, None when it says none."""
        response.request = request
        refused = response.status_code == 429
        if refused:
            platform_refusals_of(self._plugin.name).inc()
            await response.aread()
        learned = self._plugin.learn(request, response)[:_MOST_LEARNED]
        waits = [fact for fact in learned if isinstance(fact, Wait)]
        try:
            await self._note(learned, limits, known)
        except Retry:
            # What the platform has done is done: its answer is not thrown away for want of a note.
            if refused:
                raise
            _log.warning("what an answer says of limits was not noted: the database is away", plugin=self._plugin.name)
        return max((wait.seconds for wait in waits), default=None)

    async def _note(self, learned: Sequence[Learned], limits: Sequence[Limit], known: Mapping[str, str]) -> None:
        renamed = _renamed(learned, known)
        if renamed:
            await self._buckets.rename(renamed)
        # What a request took under the name that its bucket had before, it has taken from the bucket.
        charges = [
            replace(limit, bucket=renamed[bounded_name(limit.bucket)])
            for limit in limits
            if limit.cost and bounded_name(limit.bucket) in renamed
        ]
        charges += [fact.limit for fact in learned if isinstance(fact, Charge)]
        waits: dict[str, float] = {}
        for fact in learned:
            if isinstance(fact, Wait) and fact.seconds > 0:
                waits[fact.bucket] = max(waits.get(fact.bucket, 0.0), fact.seconds)
        if charges or waits:
            await self._buckets.note(charges, waits)

    async def _sleep(self, seconds: float) -> None:
        platform_waits_of(self._plugin.name, "waited").inc()
        await asyncio.sleep(seconds)

    def _put_off(self, seconds: float, reason: str) -> None:
        platform_waits_of(self._plugin.name, "put_off").inc()
        raise PutOff(f"{reason}: it may be asked again in {max(1, math.ceil(seconds))} seconds", after=seconds)


def _renamed(learned: Sequence[Learned], known: Mapping[str, str]) -> dict[str, str]:
    """The aliases that are news."""
    told = {bounded_name(fact.name): bounded_name(fact.bucket) for fact in learned if isinstance(fact, Alias)}
    return {name: bucket for name, bucket in told.items() if known.get(name, name) != bucket}


def _patience() -> float:
    """Seconds that may be spent waiting now."""
    left = time_left()
    return _PATIENCE if left is None else max(min(_PATIENCE, left - _TO_SEND), 0.0)
