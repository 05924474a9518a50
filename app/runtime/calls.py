"""One call into a plugin, and its outcome as one of few known errors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
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


class PluginCrashed(Exception):
    """The plugin's code raised something it did not mean to; the traceback is in the log."""


class Ambiguous(Retry):
    """The platform did not answer: whether it did what it was asked is unknown."""


async def run(call: Awaitable[ResultT], *, seconds: float, what: str, instance: InstanceData) -> ResultT:
    """Await a plugin's method. Raises only Rejected, Retry, Unauthorized or PluginCrashed.

    A platform that cannot be reached or is slow is a Retry; any other exception is the plugin's own fault.
    """
    try:
        async with asyncio.timeout(seconds):
            return await call
    except PluginError:
        raise
    except TimeoutError as error:
        raise Ambiguous(f"{what} took longer than {seconds:g} seconds") from error
    except EgressRefused as error:
        raise Rejected(str(error)) from error
    except BodyTooLarge as error:
        raise Rejected("the platform's answer is too large") from error
    except httpx.TransportError as error:
        raise Ambiguous(f"the platform cannot be reached ({type(error).__name__})") from error
    except Exception as error:
        # Plugin code is foreign: whatever it raises must not take the request or the batch with it.
        _log.exception("plugin failed", what=what, plugin=instance.plugin, instance=instance.id)
        raise PluginCrashed(f"{what}: {type(error).__name__}") from error


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
        return Unavailable(f"{plugin}: {error.reason}", retry_after=max(1, round(error.after or 1)))
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
