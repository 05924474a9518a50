"""What calls into plugins emitted, as rows: state changes, links, events, signals; of many calls in few statements."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

import structlog
from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import NotFound
from app.events.service import NewEvent, core_event, record
from app.host.binding import Host, InstanceData, read_state
from app.identity.links import Account, find_owners
from app.identity.service import link_emitted
from app.runtime.calls import PluginCrashed
from app.runtime.credentials import NewCredential, keep
from app.runtime.models import InstanceState
from metagov_sdk import Emitted, EmittedEvent

_LONGEST_KEY = 200

_log = structlog.get_logger(__name__)

_CLAIM_KEYS = text("""
INSERT INTO seen (instance_id, key)
SELECT * FROM unnest(CAST(:instances AS text[]), CAST(:keys AS text[])) AS new(instance_id, key)
ORDER BY instance_id, key
ON CONFLICT DO NOTHING RETURNING instance_id, key
""")
# The transaction's id before the clock: what is stamped before a deadline has an id by then, and is waited for.
_POST = text("""
INSERT INTO signals (position, instance_id, process, key, kind, data, at)
SELECT coalesce(position, nextval('positions')), instance_id, process, key, kind, data, coalesce(at, clock_timestamp())
FROM unnest(
    CAST(:positions AS bigint[]), CAST(:instances AS text[]), CAST(:processes AS text[]), CAST(:keys AS text[]),
    CAST(:kinds AS text[]), CAST(:data AS json[]), CAST(:at AS timestamptz[])
) WITH ORDINALITY AS new(position, instance_id, process, key, kind, data, at, place)
WHERE (SELECT pg_current_xact_id()) IS NOT NULL
ORDER BY place
""")
# By its key, or its id. A process that is due by now, or in a moment, is not touched: nobody queues for one that many
# write to, and it takes what they write in few steps. In one order for all.
_MAKE_DUE = text("""
WITH new AS MATERIALIZED (
    SELECT DISTINCT * FROM unnest(CAST(:instances AS text[]), CAST(:processes AS text[]), CAST(:keys AS text[]))
        AS new(instance_id, process, key)
), idle AS MATERIALIZED (
    SELECT p.id FROM processes p
    WHERE p.id = ANY(ARRAY(
        SELECT p.id FROM new JOIN processes p
            ON p.instance_id = new.instance_id AND p.name = new.process AND p.key = new.key AND p.status = 'pending'
        UNION ALL
        SELECT p.id FROM new JOIN processes p
            ON p.instance_id = new.instance_id AND p.name = new.process AND p.id = new.key AND p.status = 'pending'
    )) AND (p.next_at IS NULL OR p.next_at > now()) AND (p.paced_until IS NULL OR p.paced_until <= now())
      AND p.paused_at IS NULL
    ORDER BY p.id FOR NO KEY UPDATE OF p
)
UPDATE processes SET next_at = now() WHERE id = ANY(ARRAY(SELECT id FROM idle))
""")


@dataclass(frozen=True, slots=True)
class Cause:
    """The receipt behind a call: signals carry its time and its place in the order of arrival."""

    at: datetime
    position: int


@dataclass(frozen=True, slots=True)
class Emission:
    """What one call emitted. `cause` is the webhook it came of."""

    instance: InstanceData
    emitted: Emitted
    cause: Cause | None = None


async def commit(session: AsyncSession, host: Host, emissions: Sequence[Emission]) -> list[str]:
    """Write what calls emitted, in their order. Returns queues to wake.

    Raises PluginCrashed when a change of an instance's state fails: the whole transaction is to be undone.
    """
    # Instances before their states, which is the order that installing locks them in.
    ends = await _disable(session, [emission for emission in emissions if emission.emitted.disabled is not None])
    await _change(session, host, [emission for emission in emissions if emission.emitted.changes])
    await _link(session, emissions)
    await keep(
        session,
        host.vault,
        [
            NewCredential(each.instance.id, name, "kept", token)
            for each in emissions
            for name, token in each.emitted.credentials.items()
        ],
    )
    queues = []
    fresh = await _unseen(session, [(each.instance, event) for each in emissions for event in each.emitted.events])
    if fresh or ends:
        initiators = await _initiators(session, fresh)
        events = [_event(*each, initiator) for each, initiator in zip(fresh, initiators, strict=True)]
        await record(session, [*events, *ends])
        queues.append("deliveries")
    if any(emission.emitted.signals for emission in emissions):
        await _post(session, emissions)
        queues.append("processes")
    if await _mark(session, emissions):
        queues.append("mirrors")
    return queues


# In one order for all, so that nobody waits in a circle. Bounded: what comes from a webhook names the rows.
_MARK = text("""
INSERT INTO dirty_marks (instance_id, table_name, key)
SELECT DISTINCT instance_id, table_name, key
FROM unnest(CAST(:instances AS text[]), CAST(:tables AS text[]), CAST(:keys AS text[]))
    AS new(instance_id, table_name, key)
WHERE length(key) BETWEEN 1 AND 1000 AND EXISTS (SELECT FROM mirrors m WHERE m.instance_id = new.instance_id)
ORDER BY instance_id, table_name, key
ON CONFLICT DO NOTHING
""")


async def _mark(session: AsyncSession, emissions: Sequence[Emission]) -> bool:
    """Note which rows of mirrors have changed. Whether there were any."""
    marks = [
        (each.instance.id, mark) for each in emissions for mark in each.emitted.dirty if "\0" not in mark.partition
    ]
    if marks:
        await session.execute(
            _MARK,
            {
                "instances": [instance for instance, _ in marks],
                "tables": [mark.table for _, mark in marks],
                "keys": [mark.partition for _, mark in marks],
            },
        )
    return bool(marks)


# What changed the instance after the call began wins, a renewed install above all. Credentials found void do not count:
# an app that was uninstalled has none, and the refusal may be heard first.
_DISABLE = text("""
WITH leaving AS MATERIALIZED (
    SELECT i.id FROM instances i
    JOIN unnest(CAST(:ids AS text[]), CAST(:generations AS integer[])) AS new(id, generation) ON new.id = i.id
    WHERE i.status <> 'disabled' AND (i.generation = new.generation OR i.status = 'needs_auth')
    ORDER BY i.id FOR NO KEY UPDATE OF i
)
UPDATE instances i SET status = 'disabled', generation = i.generation + 1, updated_at = now()
FROM leaving WHERE i.id = leaving.id RETURNING i.id
""")


async def _disable(session: AsyncSession, emissions: Sequence[Emission]) -> list[NewEvent]:
    """Take instances out of use. Returns what is to be told of those that were in use until now."""
    if not emissions:
        return []
    # One of several calls for an instance is enough.
    asked = {emission.instance.id: emission for emission in reversed(emissions)}
    generations = [emission.instance.generation for emission in asked.values()]
    left = await session.scalars(_DISABLE, {"ids": list(asked), "generations": generations})
    return [_disabled(asked[instance_id]) for instance_id in left]


def _disabled(emission: Emission) -> NewEvent:
    instance = emission.instance
    data = {"plugin": instance.plugin, "instance": instance.id, "reason": emission.emitted.disabled}
    return core_event(
        instance.driver_id, instance.community_id, instance.community, instance.id, "instance.disabled", data
    )


async def _change(session: AsyncSession, host: Host, emissions: Sequence[Emission]) -> None:
    """Apply the changes in order under their rows' locks: concurrent calls queue here, and none is lost."""
    if not emissions:
        return
    # One order for all who lock several, so that they cannot wait for each other in a circle.
    by_instance = sorted(emissions, key=lambda emission: emission.instance.id)
    kinds = {each.instance.id: host.loaded(each.instance.plugin).manifest.state for each in by_instance}
    await session.execute(
        insert(InstanceState)
        .values([{"instance_id": key, "state": None, "state_version": kind.version} for key, kind in kinds.items()])
        .on_conflict_do_nothing()
    )
    locked = await session.scalars(
        select(InstanceState)
        .where(InstanceState.instance_id.in_(kinds))
        .order_by(InstanceState.instance_id)
        .with_for_update()
    )
    rows = {row.instance_id: row for row in locked}
    for instance_id, group in groupby(by_instance, key=lambda emission: emission.instance.id):
        row, kind = rows[instance_id], kinds[instance_id]
        state = read_state(kind, row.state, row.state_version)
        for emission in group:
            for change in emission.emitted.changes:
                state = _changed(state, change, kind, emission.instance)
        row.state = state.model_dump(mode="json")
        row.state_version = kind.version


def _changed(state: Any, change: Callable[[Any], Any], kind: type[Any], instance: InstanceData) -> Any:
    try:
        state = change(state)
    except Exception as error:
        _log.exception("a state change failed", plugin=instance.plugin, instance=instance.id)
        raise PluginCrashed(f"a change of {instance.plugin}'s state: {type(error).__name__}") from error
    if not isinstance(state, kind):
        raise PluginCrashed(f"a change of {instance.plugin}'s state returned {type(state).__name__}")
    return state


async def _link(session: AsyncSession, emissions: Sequence[Emission]) -> None:
    """Before the events: they name the people that were linked together with them."""
    wanted = [
        (_account(each.instance, each.instance.plugin, link.platform_identifier), link)
        for each in emissions
        for link in each.emitted.links
    ]
    if wanted:
        try:
            await link_emitted(session, wanted)
        except NotFound as error:
            raise PluginCrashed(f"an account cannot be linked: {error.detail}") from error


def _account(instance: InstanceData, platform_type: str, identifier: str) -> Account:
    return Account(instance.community_id, platform_type, instance.community_platform_id or "", identifier)


async def _initiators(
    session: AsyncSession, events: Sequence[tuple[InstanceData, EmittedEvent]]
) -> list[dict[str, Any] | None]:
    """Who caused each event, with the MetagovID where the account is linked."""
    accounts = [
        None if item.initiator is None else _account(instance, item.initiator.provider, item.initiator.user_id)
        for instance, item in events
    ]
    named = {account for account in accounts if account}
    owners = await find_owners(session, list(named)) if named else {}
    return [
        None
        if item.initiator is None or account is None
        else item.initiator.model_dump(mode="json") | ({"external_id": owners[account]} if account in owners else {})
        for (_, item), account in zip(events, accounts, strict=True)
    ]


async def _unseen(
    session: AsyncSession, events: Sequence[tuple[InstanceData, EmittedEvent]]
) -> list[tuple[InstanceData, EmittedEvent]]:
    """The events whose key is new to their instance; those without a key always are."""
    # The first of several with one key counts.
    keyed = {(instance.id, _seen_key(item.key)): item for instance, item in reversed(events) if item.key is not None}
    if not keyed:
        return list(events)
    added = await session.execute(
        _CLAIM_KEYS, {"instances": [instance for instance, _ in keyed], "keys": [key for _, key in keyed]}
    )
    fresh = {id(keyed[instance_id, key]) for instance_id, key in added}
    return [(instance, item) for instance, item in events if item.key is None or id(item) in fresh]


def _seen_key(key: str) -> str:
    if len(key) > _LONGEST_KEY or "\0" in key:
        key = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return f"event:{key}"


def _event(instance: InstanceData, item: EmittedEvent, initiator: dict[str, Any] | None) -> NewEvent:
    return NewEvent(
        driver_id=instance.driver_id,
        community_id=instance.community_id,
        community=instance.community,
        instance_id=instance.id,
        source=instance.plugin,
        event_type=item.event.wire_type(),
        data=item.event.wire_data(),
        initiator=initiator,
        timestamp=item.at,
    )


async def _post(session: AsyncSession, emissions: Sequence[Emission]) -> None:
    signals = [(emission, signal) for emission in emissions for signal in emission.emitted.signals]
    addressed = {
        "instances": [emission.instance.id for emission, _ in signals],
        "processes": [signal.process for _, signal in signals],
        "keys": [signal.key for _, signal in signals],
    }
    await session.execute(
        _POST,
        {
            **addressed,
            "positions": [emission.cause and emission.cause.position for emission, _ in signals],
            "kinds": [signal.kind for _, signal in signals],
            "data": [json.dumps(signal.data) for _, signal in signals],
            "at": [emission.cause and emission.cause.at for emission, _ in signals],
        },
    )
    await session.execute(_MAKE_DUE, addressed)
