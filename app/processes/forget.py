"""Taking a person out of governance processes, so that what was counted can still be counted again.

While a process is open its history is repeated without what the person did, as if they had never voted: they may come
back and vote anew, and must not count twice. What is over stays as it was decided; there a pseudonym, the same in
parameters, signals, state and outcome, stands where the person did. Either way replaying the history gives the counts
that are stored.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, String, cast, delete, func, literal, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.crypto import Vault
from app.core.db import Database, current_time
from app.events.service import record
from app.host.binding import Host
from app.identity.person import NOBODY, Person
from app.processes import history
from app.processes.fold import Course, Parked, digest, read_state
from app.processes.history import Causes, Transition
from app.processes.models import EffectRow, ProcessRow, TransitionRow
from app.processes.step import told
from app.runtime import instances
from metagov_sdk import ProcessSpec, Received

_WINDOW = 50
PersonFor = Callable[[str], Person]
"""The person as what comes from a plugin names them."""

_NAMED = """
SELECT p.id, concat_ws(' ', p.params::text, p.state::text, p.outcome::text, p.errors::text, p.url, p.key,
        p.correlation_id) ~ $3
    OR EXISTS (SELECT FROM process_transitions t WHERE t.process_id = p.id
        AND concat_ws(' ', t.signals::text, t.state::text, t.outcome::text, t.errors::text) ~ $3)
    OR EXISTS (SELECT FROM effects e WHERE e.process_id = p.id AND concat_ws(' ', e.args::text, e.error) ~ $3) AS named
FROM processes p WHERE p.community_id = $1 AND p.id > $2 ORDER BY p.id LIMIT $4
"""
_SIGNALS = text("""
SELECT s.id, i.plugin, s.applied_at IS NOT NULL AS applied, s.data FROM signals s
JOIN instances i ON i.id = s.instance_id WHERE i.community_id = :community AND s.data::text ~ :trace
""")
_UNHURRIED = text("SET LOCAL idle_in_transaction_session_timeout = 0")


@dataclass(slots=True)
class Withdrawn:
    """In how many processes what was done. `busy` are those that a worker holds: to be tried again."""

    withdrawn: int = 0
    renamed: int = 0
    busy: int = 0
    told: bool = False
    """Drivers are told of open processes that have changed."""


async def forget_in_processes(
    db: Database, host: Host, vault: Vault, community_id: str, person_for: PersonFor
) -> Withdrawn:
    """Take a person out of the processes of a community and out of the signals that are on their way to them."""
    done = Withdrawn()
    # What is told of the account alone fits what comes from elsewhere, too.
    trace = person_for("").posix
    own = {person_for(name).posix for name in host.plugins.loaded}
    trace = "|".join(sorted({trace, *own}))
    await _forget_signals(db, community_id, trace, person_for)
    after = ""
    while True:
        rows = await db.pool.fetch(_NAMED, community_id, after, trace, _WINDOW)
        for row in rows:
            if row["named"]:
                await _forget_in(db, host, vault, row["id"], person_for, done)
        if len(rows) < _WINDOW:
            return done
        after = rows[-1]["id"]


async def _forget_signals(db: Database, community_id: str, trace: str, person_for: PersonFor) -> None:
    """Those of the person go, and those that were folded already: histories have them."""
    async with db.begin() as session:
        for row in await session.execute(_SIGNALS, {"community": community_id, "trace": trace}):
            person = person_for(row.plugin)
            clean = person.out_of(row.data)
            if person.acts_in(row.data) or (row.applied and clean != row.data):
                await session.execute(text("DELETE FROM signals WHERE id = :id"), {"id": row.id})
            elif clean != row.data:
                values = {"id": row.id, "data": json.dumps(clean)}
                await session.execute(text("UPDATE signals SET data = CAST(:data AS json) WHERE id = :id"), values)


async def _forget_in(
    db: Database, host: Host, vault: Vault, process_id: str, person_for: PersonFor, done: Withdrawn
) -> None:
    async with db.begin() as session:
        await session.execute(_UNHURRIED)
        now = func.clock_timestamp()
        free = or_(ProcessRow.lease_until.is_(None), ProcessRow.lease_until < now)
        row = await session.scalar(
            select(ProcessRow).where(ProcessRow.id == process_id, free).with_for_update(skip_locked=True)
        )
        if row is None:
            done.busy += 1
            return
        person = person_for(row.plugin)
        steps = list(
            await session.scalars(
                select(TransitionRow).where(TransitionRow.process_id == row.id).order_by(TransitionRow.version)
            )
        )
        session.expunge_all()
        loaded = host.plugins.loaded.get(row.plugin)
        spec = loaded.manifest.processes.get(row.name) if loaded else None
        open_ = row.status == "pending"
        made = await asyncio.to_thread(_rewrite, spec, row, steps, person, open_)
        changed = await _write(session, row, steps, made, person)
        if not changed:
            return
        if open_ and made.repeated:
            done.withdrawn += 1
            await _step(session, db, vault, row, made)
            done.told = True
        else:
            done.renamed += 1


@dataclass(slots=True)
class _Made:
    """What a process is to be: JSON values, by column; of each step the same. `repeated`: its history was folded."""

    columns: dict[str, Any]
    steps: list[dict[str, Any]]
    repeated: bool = False
    update: Any = None


_PLAIN = ("params", "state", "outcome", "errors", "url", "key", "correlation_id")
_JSON = frozenset({"params", "state", "outcome", "errors", "signals"})


def _rewrite(
    spec: ProcessSpec | None, row: ProcessRow, steps: Sequence[TransitionRow], person: Person, open_: bool
) -> _Made:
    pseudonym = _pseudonym(row, steps)

    def clean(value: Any, name: str = "") -> Any:
        return person.out_of(value, pseudonym, keep_places=True, name=name)

    made = _Made(
        # Signals find an open process by its key.
        {name: clean(getattr(row, name), name) for name in _PLAIN if not (open_ and name == "key")},
        [
            {
                "signals": None if step.signals is None else [_cleaned(signal, clean) for signal in step.signals],
                "state": clean(step.state),
                "outcome": clean(step.outcome),
                "errors": clean(step.errors),
                "state_digest": step.state_digest,
            }
            for step in steps
        ],
    )
    texts = _fold(spec, row.id, steps, [_same(step) for step in steps]) if spec is not None else None
    faithful = texts is not None and texts[-1][1].digest == steps[-1].state_digest
    if open_ and faithful and spec is not None and _withdraw(spec, row, steps, made, person):
        return made
    _digest(spec if faithful else None, row, steps, made)
    return made


def _cleaned(signal: Sequence[Any], clean: Callable[..., Any]) -> list[Any]:
    position, kind, data, at = signal
    return [position, kind, clean(data), at]


def _same(step: TransitionRow) -> dict[str, Any]:
    return {"signals": step.signals, "state": step.state}


def _pseudonym(row: ProcessRow, steps: Sequence[TransitionRow]) -> str:
    """One that nobody in this process has: of two who were forgotten each goes on counting."""
    everything = json.dumps(
        [[getattr(row, name) for name in _PLAIN], [[step.signals, step.state, step.outcome] for step in steps]],
        default=str,
    )
    number, name = 1, NOBODY
    while name in everything:
        number += 1
        name = f"{NOBODY[:-1]} {number})"
    return name


@dataclass(slots=True)
class _Stands:
    """A process after a step that was repeated."""

    status: str
    digest: str | None
    state: str | None
    outcome: str | None
    update: str | None
    gave: bool
    """Whether this step gave an outcome."""


def _fold(
    spec: ProcessSpec, process_id: str, steps: Sequence[TransitionRow], given: Sequence[dict[str, Any]]
) -> list[tuple[TransitionRow, _Stands]] | None:
    """Fold a history anew from its first state, as `given` has signals and states. None where that cannot be."""
    if not steps or steps[0].kind != "start" or steps[0].state is None:
        return None
    found: list[tuple[TransitionRow, _Stands]] = []
    course: Course | None = None
    try:
        for step, values in zip(steps, given, strict=True):
            if course is None:
                course = Course(spec, process_id, read_state(spec, values["state"], step.state_version), step.status)
                as_given = None if step.state_version == spec.cls.version else step.state_digest
                stands = _stands(course, gave=False)
                stands.digest = as_given or stands.digest
            else:
                before = course.outcome
                _repeat(course, step, values["signals"])
                stands = _stands(course, gave=course.outcome is not before)
            found.append((step, stands))
    except (Parked, ValueError, TypeError, KeyError):
        return None
    return found


def _repeat(course: Course, step: TransitionRow, signals: Sequence[Any] | None) -> None:
    course.fold(
        [Received(kind, data, position, datetime.fromisoformat(at)) for position, kind, data, at in signals or ()]
    )
    if step.woken:
        course.wake(step.at)
    if step.reason is not None:
        # Written by `close`, so one of the reasons there are.
        course.close(step.reason, step.unread)  # type: ignore[arg-type]


def _stands(course: Course, *, gave: bool) -> _Stands:
    state, outcome, update = course.texts()
    return _Stands(course.status, digest(state), state, outcome, update, gave)


def _digest(spec: ProcessSpec | None, row: ProcessRow, steps: Sequence[TransitionRow], made: _Made) -> None:
    """Digests of the states under the pseudonym; none where they cannot be found: the old ones could be guessed at."""
    folded = None if spec is None else _fold(spec, row.id, steps, made.steps)
    for place, values in enumerate(made.steps):
        changed = values != {**_same(steps[place]), **{name: getattr(steps[place], name) for name in values}}
        if folded is not None:
            values["state_digest"] = folded[place][1].digest
        elif changed or made.columns["state"] != row.state:
            values["state_digest"] = None


def _withdraw(spec: ProcessSpec, row: ProcessRow, steps: Sequence[TransitionRow], made: _Made, person: Person) -> bool:
    """Repeat an open process without what the person did. False: it would not have come to stand where it does."""
    given = []
    for step, values in zip(steps, made.steps, strict=True):
        kept = [
            clean
            for signal, clean in zip(step.signals or (), values["signals"] or (), strict=True)
            if not person.acts_in(signal[2])
        ]
        given.append({**values, "signals": kept or None})
    folded = _fold(spec, row.id, steps, given)
    if folded is None or any(stands.status != step.status for step, stands in folded):
        return False
    for step, values, (_, stands) in zip(steps, given, folded, strict=True):
        values["state_digest"] = stands.digest
        if step.kind != "start" and step.state is not None and stands.state is not None:
            values["state"], values["state_version"] = json.loads(stands.state), spec.cls.version
        if step.kind != "start" and step.outcome is not None:
            values["outcome"] = None if stands.update is None or not stands.gave else json.loads(stands.update)
        signals = values["signals"] or []
        values["signal_count"] = len(signals)
        values["first_position"] = signals[0][0] if signals else None
        values["last_position"] = signals[-1][0] if signals else None
    last = folded[-1][1]
    made.steps, made.repeated = given, True
    if last.state is not None:
        made.columns["state"], made.columns["state_version"] = json.loads(last.state), spec.cls.version
    # Where no step but the start has given an outcome, it is as that is written down.
    made.columns["outcome"] = given[0]["outcome"] if last.outcome is None else json.loads(last.outcome)
    made.update = given[0]["outcome"] if last.update is None else json.loads(last.update)
    return True


async def _write(
    session: AsyncSession, row: ProcessRow, steps: Sequence[TransitionRow], made: _Made, person: Person
) -> bool:
    """Write what has changed. Returns whether anything has."""
    values = {name: value for name, value in made.columns.items() if value != getattr(row, name)}
    if values:
        await session.execute(update(ProcessRow).where(ProcessRow.id == row.id).values(**_spelt(values)))
    changed = bool(values)
    for step, after in zip(steps, made.steps, strict=True):
        values = {name: value for name, value in after.items() if value != getattr(step, name)}
        if values:
            changed = True
            where = (TransitionRow.process_id == step.process_id, TransitionRow.version == step.version)
            await session.execute(update(TransitionRow).where(*where).values(**_spelt(values)))
    effects = await session.scalars(select(EffectRow).where(EffectRow.process_id == row.id))
    named = [effect.id for effect in effects if person.is_in(effect.args) or person.is_in_text(effect.error or "")]
    session.expunge_all()
    if named:
        # Nobody is told what was to be told to them, and what was told is over.
        await session.execute(delete(EffectRow).where(EffectRow.id.in_(named)))
    return changed or bool(named)


def _spelt(values: dict[str, Any]) -> dict[str, Any]:
    """With JSON as processes are stored: its digests are of that text."""
    return {
        name: cast(literal(_json(value), String), JSON) if name in _JSON and value is not None else value
        for name, value in values.items()
    }


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


async def _step(session: AsyncSession, db: Database, vault: Vault, row: ProcessRow, made: _Made) -> None:
    """A step of its own, so that whoever shows the process or waits for it sees that it has changed."""
    for name, value in made.columns.items():
        setattr(row, name, value)
    row.version += 1
    state, outcome, update_ = (None if each is None else _json(each) for each in (row.state, row.outcome, made.update))
    step = Transition(
        process_id=row.id,
        version=row.version,
        at=await current_time(session),
        kind="step",
        status=row.status,
        state_version=row.state_version,
        state=state,
        outcome=outcome,
        update=update_,
        errors=row.errors,
        keep_state=True,
        causes=Causes(),
    )
    await history.write(session, [step])
    await session.execute(
        update(ProcessRow).where(ProcessRow.id == row.id).values(version=row.version, next_at=func.now())
    )
    found = await instances.by_id(db.pool, vault, row.instance_id)
    if found is not None and not found[0].deleted:
        await record(session, [told(found[0], row, step)])
