"""Performing an action: choose the instance, check the parameters, call the plugin, commit what it emitted."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from app.core.crypto import Vault
from app.core.db import Database
from app.core.errors import Conflict, Invalid, NotFound
from app.core.wake import Wake
from app.host.binding import Host, InstanceData, UnreadableInstance
from app.processes.access import Mailroom
from app.runtime import instances
from app.runtime.calls import PluginCrashed, as_problem, needs_auth, run
from app.runtime.emissions import Emission, commit
from app.runtime.instances import Candidates
from app.runtime.models import InstanceState
from app.runtime.turns import Turns
from metagov_sdk import ActionSpec, PluginError, Unauthorized
from metagov_sdk.graph import GraphReader

_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Performer:
    """What performing an action needs."""

    db: Database
    host: Host
    vault: Vault
    wake: Wake
    timeout: float
    mailroom: Mailroom
    graphs: Callable[[InstanceData], GraphReader | None]
    """What plugins of rule sets read their graph by."""
    turns: Turns = field(default_factory=Turns)


def find_action(host: Host, name: str) -> tuple[str, ActionSpec]:
    """The plugin's name and its action, from `<plugin>.<action>`. Raises NotFound."""
    plugin, _, slug = name.partition(".")
    spec = host.loaded(plugin).manifest.actions.get(slug)
    if spec is None:
        raise NotFound(f"the plugin {plugin!r} has no action {slug!r}")
    return plugin, spec


async def perform(
    use: Performer,
    candidates: Candidates,
    spec: ActionSpec,
    parameters: Any,
    platform_id: str | None,
    idempotency_key: str,
) -> bytes:
    """Perform an action on the one of `candidates` that is meant; returns its result as JSON.

    Raises Invalid with pointers below `/parameters`, NotFound, Forbidden, Conflict, Upstream or Unavailable.
    """
    plugin = candidates.plugin
    instance, now = candidates.choose(use.vault, platform_id)
    if instance.status == "needs_auth":
        raise Conflict(f"{plugin} needs its credentials renewed before it can act", slug="needs_auth")
    try:
        params = spec.params.validate_python(parameters)
    except ValidationError as error:
        raise Invalid.schema(error, ("parameters",)) from None
    async with _turn(use, spec, instance) as epoch:
        if epoch is not None:
            # What was read before the turn came may be stale by now.
            instance, now = await instances.choose(use.db.pool, use.vault, instance.community_id, plugin, platform_id)
        try:
            processes = use.mailroom.of(instance)
            bound = use.host.bind(
                instance,
                now=now,
                idempotency_key=idempotency_key,
                processes=processes,
                graph=use.graphs(instance),
            )
        except UnreadableInstance as error:
            raise Conflict(str(error), slug="parked") from error
        try:
            call = getattr(bound, spec.method)(params)
            result = await run(call, seconds=use.timeout, what=f"action {spec.slug}", instance=instance)
            if bound.emitted:
                await _commit(use, instance, bound.emitted, epoch)
        except Unauthorized as error:
            async with use.db.begin() as session:
                await needs_auth(session, instance, error.reason)
            raise as_problem(error, plugin) from error
        except (PluginError, PluginCrashed) as error:
            raise as_problem(error, plugin, "/parameters") from error
    return spec.result.dump_json(result, by_alias=True)


async def _commit(use: Performer, instance: InstanceData, emitted: Any, epoch: int | None) -> None:
    async with use.db.begin() as session:
        if epoch is not None:
            state = await session.get(InstanceState, instance.id, with_for_update=True)
            if state is None or state.epoch != epoch:
                raise Conflict("the action took longer than its turn; nothing was changed", slug="busy")
        queues = await commit(session, use.host, [Emission(instance, emitted)])
    use.wake.poke(*queues)


@contextlib.asynccontextmanager
async def _turn(use: Performer, spec: ActionSpec, instance: InstanceData) -> AsyncIterator[int | None]:
    if not spec.exclusive:
        yield None
        return
    async with use.turns.take(use.db, instance.id, lease=use.timeout + 5, patience=_PATIENCE) as epoch:
        yield epoch
