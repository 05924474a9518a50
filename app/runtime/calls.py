"""One call into a plugin: its outcome as one of few known errors, and what it emitted as rows."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import httpx
import structlog
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.egress import BodyTooLarge, EgressRefused
from app.core.errors import Conflict, Problem, Unavailable, Upstream
from app.events.service import NewEvent, core_event, record
from app.host.binding import Host, InstanceData, read_state
from app.runtime.models import Instance, InstanceState, Seen, SignalRow
from metagov_sdk import Emitted, EmittedEvent, PluginError, Rejected, Retry, Unauthorized

ResultT = TypeVar("ResultT")

_LONGEST_KEY = 200

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


def as_problem(error: PluginError | PluginCrashed, plugin: str) -> Problem:
    """What a driver is told of a failed call."""
    if isinstance(error, Unauthorized):
        return Conflict(f"{plugin} needs its credentials renewed: {error.reason}", slug="needs_auth")
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


@dataclass(frozen=True, slots=True)
class Cause:
    """The receipt behind a call: signals carry its time and its place in the order of arrival."""

    at: datetime
    position: int


async def commit(
    session: AsyncSession, host: Host, instance: InstanceData, emitted: Emitted, *, cause: Cause | None = None
) -> list[str]:
    """Write what a call emitted. `cause` is the webhook it came of. Returns queues to wake."""
    if emitted.changes:
        await _change(session, host, instance, emitted)
    queues = []
    fresh = await _unseen(session, instance, emitted.events)
    if fresh:
        await record(session, [_event(instance, item) for item in fresh])
        queues.append("deliveries")
    if emitted.signals:
        when = {"at": func.clock_timestamp()} if cause is None else {"at": cause.at, "position": cause.position}
        await session.execute(
            insert(SignalRow).values(
                [
                    {
                        "instance_id": instance.id,
                        "process": signal.process,
                        "key": signal.key,
                        "kind": signal.kind,
                        "data": signal.data,
                        **when,
                    }
                    for signal in emitted.signals
                ]
            )
        )
        queues.append("processes")
    return queues


async def _change(session: AsyncSession, host: Host, instance: InstanceData, emitted: Emitted) -> None:
    """Apply the changes in order under the row's lock: concurrent calls queue here, and none is lost."""
    kind = host.loaded(instance.plugin).manifest.state
    await session.execute(
        insert(InstanceState)
        .values(instance_id=instance.id, state=None, state_version=kind.version)
        .on_conflict_do_nothing()
    )
    row = (
        await session.scalars(select(InstanceState).where(InstanceState.instance_id == instance.id).with_for_update())
    ).one()
    state = read_state(kind, row.state, row.state_version)
    for change in emitted.changes:
        try:
            state = change(state)
        except Exception as error:
            _log.exception("a state change failed", plugin=instance.plugin, instance=instance.id)
            raise PluginCrashed(f"a change of {instance.plugin}'s state: {type(error).__name__}") from error
        if not isinstance(state, kind):
            raise PluginCrashed(f"a change of {instance.plugin}'s state returned {type(state).__name__}")
    row.state = state.model_dump(mode="json")
    row.state_version = kind.version


async def _unseen(session: AsyncSession, instance: InstanceData, events: Sequence[EmittedEvent]) -> list[EmittedEvent]:
    """The events whose key is new to the instance; those without a key always are."""
    # The first of several with one key counts.
    keyed = {_seen_key(item.key): item for item in reversed(events) if item.key is not None}
    new: set[str] = set()
    if keyed:
        added = await session.scalars(
            insert(Seen)
            .values([{"instance_id": instance.id, "key": key} for key in sorted(keyed)])
            .on_conflict_do_nothing()
            .returning(Seen.key)
        )
        new = set(added)
    fresh = {id(keyed[key]) for key in new}
    return [item for item in events if item.key is None or id(item) in fresh]


def _seen_key(key: str) -> str:
    if len(key) > _LONGEST_KEY or "\0" in key:
        key = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return f"event:{key}"


def _event(instance: InstanceData, item: EmittedEvent) -> NewEvent:
    return NewEvent(
        driver_id=instance.driver_id,
        community_id=instance.community_id,
        community=instance.community,
        instance_id=instance.id,
        source=instance.plugin,
        event_type=item.event.wire_type(),
        data=item.event.wire_data(),
        initiator=None if item.initiator is None else item.initiator.model_dump(mode="json"),
        timestamp=item.at,
    )
