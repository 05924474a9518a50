"""One call into a plugin, and its outcome as one of few known errors."""

from __future__ import annotations

import asyncio
import math
import traceback
from collections.abc import Awaitable
from contextvars import ContextVar
from typing import TypeVar

import httpx
import structlog
from sqlalchemy import func, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.egress import BodyTooLarge, EgressRefused
from app.core.errors import Conflict, Forbidden, Invalid, NotFound, Problem, Unavailable, Upstream
from app.events.service import core_event, record
from app.host.binding import InstanceData
from app.runtime.models import Instance
from metagov_sdk import PluginError, Rejected, Retry, Unauthorized, errors

ResultT = TypeVar("ResultT")

_log = structlog.get_logger(__name__)

_ends_at: ContextVar[float | None] = ContextVar("call_ends_at", default=None)


class PluginCrashed(Exception):
    """The plugin's code raised something it did not mean to; the traceback is in the log."""


class Ambiguous(Retry):
    """The platform did not answer: whether it did what it was asked is unknown."""


class PutOff(Retry):
    """The platform's limits leave no room yet, and the call has done nothing so far: it counts as no attempt."""


async def run(call: Awaitable[ResultT], *, seconds: float, what: str, instance: InstanceData) -> ResultT:
    """Await a plugin's method. Raises only Rejected, Retry, Unauthorized or PluginCrashed.

    A platform that cannot be reached or is slow is a Retry; any other exception is the plugin's own fault.
    """
    outer = _ends_at.set(asyncio.get_running_loop().time() + seconds)
    try:
        async with asyncio.timeout(seconds):
            return await call
    except Exception as error:
        # Plugin code is foreign: whatever it raises must not take the request or the batch with it.
        known = _known(error, what, seconds)
        if known is error:
            raise
        if known is not None:
            raise known from error
        _log.exception("plugin failed", what=what, plugin=instance.plugin, instance=instance.id)
        raise PluginCrashed(f"{what}: {type(error).__name__}") from error
    finally:
        _ends_at.reset(outer)


def time_left() -> float | None:
    """Seconds until the call that this is part of is cut off; None outside of `run`."""
    ends_at = _ends_at.get()
    return None if ends_at is None else ends_at - asyncio.get_running_loop().time()


async def ask(call: Awaitable[ResultT], *, seconds: float, what: str, plugin: str) -> ResultT:
    """As `run`, for what has tokens in hand: of an accident the log gets the place alone, its words may name one."""
    outer = _ends_at.set(asyncio.get_running_loop().time() + seconds)
    try:
        async with asyncio.timeout(seconds):
            return await call
    except Exception as error:
        # Foreign code, as in `run`.
        known = _known(error, what, seconds)
        if known is not None:
            raise known from None
        places = [f"{frame.name}, line {frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        _log.error("plugin failed", what=what, plugin=plugin, error=type(error).__name__, at=places[-3:])
        raise PluginCrashed(f"{what}: {type(error).__name__}") from None
    finally:
        _ends_at.reset(outer)


def _known(error: Exception, what: str, seconds: float) -> PluginError | None:
    """What is foreseen: an error that the plugin means, or a platform that is away, slow or out of bounds."""
    if isinstance(error, PluginError):
        return error
    if isinstance(error, TimeoutError):
        return Ambiguous(f"{what} took longer than {seconds:g} seconds")
    if isinstance(error, EgressRefused):
        return Rejected(str(error))
    if isinstance(error, BodyTooLarge):
        return Rejected("the platform's answer is too large")
    if isinstance(error, httpx.TransportError):
        return Ambiguous(f"the platform cannot be reached ({type(error).__name__})")
    return None


def as_problem(error: PluginError | PluginCrashed, plugin: str, below: str = "") -> Problem:
    """What a driver is told of a failed call; `below` is where in the body the call's parameters are."""
    if isinstance(error, Unauthorized):
        return Conflict(f"{plugin} needs its credentials renewed: {error.reason}", slug="needs_auth")
    if isinstance(error, errors.NotFound):
        return NotFound(error.reason)
    if isinstance(error, errors.Forbidden):
        return Forbidden(error.reason)
    if isinstance(error, errors.Conflict):
        return Conflict(error.reason)
    if isinstance(error, errors.Invalid):
        return Invalid.field(below + error.pointer, error.reason)
    if isinstance(error, Rejected):
        return Upstream(f"{plugin}: {error.reason}", slug="rejected")
    if isinstance(error, Retry):
        return Unavailable(f"{plugin}: {error.reason}", retry_after=max(1, math.ceil(error.after or 1)))
    return Upstream(f"{plugin} failed; the request id names the reason in the gateway's log", slug="plugin-failed")


async def needs_auth(session: AsyncSession, instance: InstanceData, reason: str) -> None:
    """Show that the platform refuses the instance's credentials; tell the driver once."""
    changed = await session.execute(
        update(Instance)
        .where(Instance.id == instance.id, Instance.status == "enabled", Instance.generation == instance.generation)
        .values(status="needs_auth", generation=Instance.generation + 1, updated_at=func.now())
        .returning(Instance.id)
    )
    if changed.scalar() is not None:
        data = {"plugin": instance.plugin, "instance": instance.id, "reason": reason}
        await record(
            session,
            [
                core_event(
                    instance.driver_id,
                    instance.community_id,
                    instance.community,
                    instance.id,
                    "instance.needs_auth",
                    data,
                )
            ],
        )
