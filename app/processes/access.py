"""What a plugin's actions can do with processes: read them, and send them signals that are committed at once."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import asyncpg
from pydantic import JsonValue

from app.core.db import Database
from app.core.group import Group
from app.core.wake import Wake
from app.host.binding import Host, InstanceData
from app.processes.fold import Parked, read_state
from metagov_sdk import Process, ProcessSpec
from metagov_sdk.errors import Conflict, Invalid, NotFound
from metagov_sdk.process import OutcomeT, ParamsT, StateT
from metagov_sdk.processes import Processes, ProcessView

_MOST_ITEMS = 256
_KEPT = 1024
_REFUSED = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)
"""What Postgres says when it is a signal that is wrong, and not the moment."""

# What is known already is not read again.
_GET = """
SELECT status, version, state_version, closing_at,
    CASE WHEN version = $4 THEN NULL ELSE params::text END AS params,
    CASE WHEN version = $4 THEN NULL ELSE state::text END AS state,
    CASE WHEN version = $4 THEN NULL ELSE outcome::text END AS outcome
FROM processes WHERE id = $1 AND instance_id = $2 AND name = $3
"""
# Closed or not is judged by the time that the signal gets. A process that is due anyway is not touched.
_SEND = """
WITH input AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::json[])
        WITH ORDINALITY AS t(process_id, instance_id, name, kind, data, place)
), found AS MATERIALIZED (
    SELECT input.*, p.id, coalesce(p.key, p.id) AS key, clock.at,
        p.status <> 'completed' AND (p.closing_at IS NULL OR p.closing_at > clock.at) AS open,
        p.status = 'pending' AND (p.next_at IS NULL OR p.next_at > now())
            AND (p.paced_until IS NULL OR p.paced_until <= now()) AS idle
    FROM input CROSS JOIN (SELECT clock_timestamp() AS at OFFSET 0) AS clock
    LEFT JOIN processes p ON p.id = input.process_id AND p.instance_id = input.instance_id AND p.name = input.name
), placed AS MATERIALIZED (
    SELECT *, nextval('positions') AS position FROM (SELECT * FROM found WHERE open ORDER BY place) AS accepted
), stored AS (
    INSERT INTO signals (position, instance_id, process, key, kind, data, at)
    SELECT position, instance_id, name, key, kind, data, at FROM placed ORDER BY place
), idle AS MATERIALIZED (
    SELECT p.id FROM processes p WHERE p.id = ANY(ARRAY(SELECT id FROM placed WHERE idle)) ORDER BY p.id
    FOR NO KEY UPDATE
), due AS (
    UPDATE processes SET next_at = now() WHERE id = ANY(ARRAY(SELECT id FROM idle))
)
SELECT found.id IS NOT NULL AS known, placed.position FROM found LEFT JOIN placed USING (place) ORDER BY place
"""


class _Sent(NamedTuple):
    process_id: str
    instance_id: str
    name: str
    kind: str
    data: str


class _Verdict(NamedTuple):
    known: bool
    position: int | None


class _Kept(NamedTuple):
    version: int
    params: Any
    read_state: Callable[[], Any]
    outcome: dict[str, Any] | None


class Mailroom:
    """Reads processes and takes signals in for them. One per API process: what comes together is committed together."""

    def __init__(self, db: Database, host: Host, wake: Wake) -> None:
        self._db = db
        self._host = host
        self._wake = wake
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._group = Group[_Sent, _Verdict](
            self._commit, is_ones_fault=lambda error: isinstance(error, _REFUSED), at_once=2, most_items=_MOST_ITEMS
        )

    def of(self, instance: InstanceData) -> Processes:
        """The processes of one instance."""
        return _InstanceProcesses(self, instance)

    async def get(self, instance: InstanceData, spec: ProcessSpec, process_id: str) -> ProcessView[Any, Any, Any]:
        """One process. Raises NotFound, or Conflict when the plugin cannot read its parameters any more."""
        kept = self._kept.get(process_id)
        row = await self._db.pool.fetchrow(
            _GET, process_id, instance.id, spec.name, -1 if kept is None else kept.version
        )
        if row is None:
            raise _unknown(spec, process_id)
        if kept is None or row["version"] != kept.version:
            kept = self._keep(spec, process_id, row)
        return ProcessView(
            id=process_id,
            status=row["status"],
            params=kept.params,
            read_state=kept.read_state,
            outcome=kept.outcome,
            closing_at=row["closing_at"],
        )

    def _keep(self, spec: ProcessSpec, process_id: str, row: asyncpg.Record) -> _Kept:
        try:
            params = spec.params.model_validate(json.loads(row["params"]))
        except ValueError as error:
            raise Conflict(
                "its parameters were written by a version of the plugin that this one cannot read"
            ) from error
        outcome = None if row["outcome"] is None else json.loads(row["outcome"])
        kept = _Kept(row["version"], params, _reader(spec, row["state"], row["state_version"]), outcome)
        self._kept[process_id] = kept
        self._kept.move_to_end(process_id)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return kept

    async def send(
        self, instance: InstanceData, spec: ProcessSpec, process_id: str, kind: str, data: Mapping[str, JsonValue]
    ) -> int:
        """Store a signal; its position, once it is committed. Raises NotFound, Conflict, Invalid."""
        try:
            encoded = json.dumps(dict(data), allow_nan=False)
            verdict = await self._group.add(_Sent(process_id, instance.id, spec.name, kind, encoded))
        except (ValueError, *_REFUSED) as error:
            raise Invalid("", "holds what JSON, or the database, cannot") from error
        if not verdict.known:
            raise _unknown(spec, process_id)
        if verdict.position is None:
            raise Conflict("the process is closed")
        return verdict.position

    async def _commit(self, batch: Sequence[_Sent]) -> list[_Verdict]:
        # Two statements: the second sees what was committed before the transaction had its id. So a process that was
        # closed before takes nothing any more, and one that closes later waits for this transaction.
        async with self._db.pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT pg_current_xact_id()")
            rows = await connection.fetch(_SEND, *(list(column) for column in zip(*batch, strict=True)))
        self._wake.poke("processes")
        return [_Verdict(row["known"], row["position"]) for row in rows]


class _InstanceProcesses:
    """`self.processes` of a plugin."""

    def __init__(self, mailroom: Mailroom, instance: InstanceData) -> None:
        self._mailroom = mailroom
        self._instance = instance

    async def get(
        self, kind: type[Process[ParamsT, StateT, OutcomeT]], process_id: str
    ) -> ProcessView[ParamsT, StateT, OutcomeT]:
        return await self._mailroom.get(self._instance, self._spec(kind), process_id)

    async def send(
        self, kind: type[Process[Any, Any, Any]], process_id: str, signal: str, data: Mapping[str, JsonValue]
    ) -> int:
        return await self._mailroom.send(self._instance, self._spec(kind), process_id, signal, data)

    def _spec(self, kind: type[Process[Any, Any, Any]]) -> ProcessSpec:
        specs = self._mailroom._host.loaded(self._instance.plugin).manifest.processes
        spec = specs.get(kind.name)
        if spec is None or spec.cls is not kind:
            raise LookupError(f"the manifest of {self._instance.plugin} does not list the process {kind.__name__}")
        return spec


def _reader(spec: ProcessSpec, state: str | None, version: int) -> Callable[[], Any]:
    """Reads the state when it is first asked for."""
    found: list[Any] = []

    def read() -> Any:
        if not found:
            try:
                found.append(None if state is None else read_state(spec, json.loads(state), version))
            except Parked as error:
                raise Conflict(str(error)) from error
        return found[0]

    return read


def _unknown(spec: ProcessSpec, process_id: str) -> NotFound:
    return NotFound(f"there is no {spec.name} {process_id!r} here")
