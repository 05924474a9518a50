"""Forgetting an account: what a person's deletion request takes out of a community, step by step, until it is done.

A request is a row, and work like all other: whoever asks begins it, and a worker goes on where that was cut off. Every
step takes out what there is of the person, whether it has been gone through before or not; so repeating all of them is
how a crash is mended. `MIRROR_STEPS` are those of the floors up to this one; archives add theirs, and so will whatever
else keeps something that is made of mirrors (`app.gateway` puts them together).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from typing import Any, NamedTuple

import structlog
from sqlalchemy import func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import work
from app.core.ids import new_id
from app.host.binding import InstanceData
from app.identity.person import Person
from app.mirrors.forgotten import open_person, seal_person
from app.mirrors.mirrors import Mirrors
from app.mirrors.models import MirrorForgotten
from app.runtime import instances
from metagov_sdk.provider import Key, ProviderSpec

SAMPLE = 100
"""So many keys of what was taken out are remembered of each table, to look for them in archives first."""
_AT_ONCE = 2
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Held:
    """An archived snapshot that still holds what was forgotten."""

    archive: str
    """Its URL, as far as it is the same for all archives of the deployment."""
    name: str
    """Of the archive: the plugin's, or of several instances each its own."""
    seq: int
    snapshot: str
    tables: list[str]
    unreadable: list[str] = field(default_factory=list)
    """Of these tables: what is damaged, and may hold it."""
    newest: bool = False


@dataclass(slots=True)
class ForgottenReport:
    """What was taken out, counted. It names nobody."""

    rows: dict[str, int] = field(default_factory=dict)
    """By full table names."""
    texts: int = 0
    """Rows of others that named the account, and do not any more."""
    oddities: int = 0
    answers: int = 0
    receipts: int = 0
    events: int = 0
    renamed_events: int = 0
    """Events of others that named the account, and do not any more."""
    attempts: int = 0
    """Answers of endpoints that named it."""
    accounts: int = 0
    withdrawn: int = 0
    """Open votes that its vote was withdrawn from."""
    renamed: int = 0
    """Processes in which a pseudonym stands for it."""
    states: int = 0
    """What plugins remembered of it: states of instances, positions of polls, keys of what was seen."""
    snapshots: dict[str, str] = field(default_factory=dict)
    """The newest of each archive, by its name, where it has nothing of it."""
    held: list[Held] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What cannot be done, and is the operator's to know."""

    def add(self, table: str, count: int) -> None:
        """Count rows of a table."""
        if count:
            self.rows[table] = self.rows.get(table, 0) + count

    def to_json(self) -> dict[str, Any]:
        """For the database, and for `--json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any] | None) -> ForgottenReport:
        """What `to_json` gave."""
        known = {each.name for each in fields(cls)}
        report = cls(**{name: value for name, value in (stored or {}).items() if name in known})
        report.held = [each if isinstance(each, Held) else Held(**each) for each in report.held]
        return report


Say = Callable[[str, int, int | None], None]
"""Told what is being done, how much of it is done, and of how much, where that is known."""


@dataclass(slots=True)
class Erasure:
    """One request, as its steps go through it."""

    use: Mirrors
    spec: ProviderSpec
    community_id: str
    asked_at: datetime
    person: Person
    instances: Sequence[InstanceData]
    """Of the provider's plugin in this community; deleted ones too."""
    report: ForgottenReport
    say: Say
    waits: list[str] = field(default_factory=list)
    """What cannot be done yet, in words: the request is gone through again."""
    samples: dict[str, list[Key]] = field(default_factory=dict)
    """Some keys of rows that were taken out, by full table names."""
    seal: Callable[[Person], Awaitable[None]] | None = None
    """Keeps what more is known of the person, before what tells it is gone."""

    @property
    def plugin(self) -> str:
        """The platform's."""
        return self.spec.name

    def person_for(self, plugin: str) -> Person:
        """The person as what comes from a plugin names them."""
        return self.person if plugin == self.plugin else self.person.elsewhere()


class Step(NamedTuple):
    """One thing that is gone through. It can be repeated, and says in `Erasure.waits` what it had to leave."""

    name: str
    run: Callable[[Erasure], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Forgetting:
    """All steps there are, in the order in which they are gone through."""

    mirrors: Mirrors
    steps: Sequence[Step]


@dataclass(frozen=True, slots=True)
class Request:
    """How a request stands."""

    id: str
    community_id: str
    finished: bool
    waits: str | None
    report: ForgottenReport
    held_by_worker: bool


async def ask(use: Mirrors, community_id: str, spec: ProviderSpec, account: str, names: Collection[str] = ()) -> str:
    """Write down that an account is to be forgotten, now or once more. From then on it is not mirrored.

    names: texts to be taken out of what others wrote as well. Returns the request's id.
    """
    digest = hashlib.sha256(account.encode()).digest()
    async with use.db.begin() as session:
        # Two that ask at once wait for each other.
        await session.execute(
            text("SELECT pg_advisory_xact_lock(hashtext('forget'), hashtext(:c))"), {"c": community_id}
        )
        row = await session.get(MirrorForgotten, (community_id, spec.name, digest), with_for_update=True)
        person = Person(account) if row is None else open_person(use.vault, row.sealed)
        marks = dict.fromkeys([*person.marks, *spec.cls.names_of(account), *(name for name in names if name)])
        sealed = seal_person(use.vault, replace(person, marks=tuple(marks)))
        if row is None:
            row = MirrorForgotten(
                id=new_id("fgt"), community_id=community_id, provider=spec.name, hash=digest, sealed=sealed
            )
            session.add(row)
            await session.flush()
            return row.id
        row.sealed, row.report, row.waits, row.finished_at = sealed, None, None, None
        row.forgotten_at = row.next_at = func.now()
        # Whoever is at it has begun too early: what it finds out last is not written.
        row.lease_until, row.epoch, row.attempt = None, row.epoch + 1, 0
        await session.flush()
        return row.id


async def forget_due(forgetting: Forgetting, news: asyncio.Event | None = None) -> int:
    """Work on due requests. Returns how many there were."""
    db = forgetting.mirrors.db
    return await work.drain(
        work.claiming(db, MirrorForgotten, work.LEASE),
        lambda row: _carry_out(forgetting, row, _say_nothing),
        limit=_AT_ONCE,
        news=news,
        keep=work.keeping(db, MirrorForgotten),
    )


async def forget_now(forgetting: Forgetting, request_id: str, say: Say | None = None) -> Request:
    """Work on one request, unless a worker is at it, and tell how it stands then."""
    db = forgetting.mirrors.db

    async def claim(limit: int) -> Sequence[MirrorForgotten]:
        async with db.begin() as session:
            return await _claim(session, request_id)

    await work.drain(
        claim,
        lambda row: _carry_out(forgetting, row, say or _say_nothing),
        limit=1,
        keep=work.keeping(db, MirrorForgotten),
    )
    return await find_request(forgetting.mirrors, request_id)


async def find_request(use: Mirrors, request_id: str) -> Request:
    """How a request stands."""
    async with use.db.begin() as session:
        row = (await session.scalars(select(MirrorForgotten).where(MirrorForgotten.id == request_id))).one()
        held = await session.scalar(
            select(MirrorForgotten.lease_until > func.clock_timestamp()).where(MirrorForgotten.id == request_id)
        )
        report = ForgottenReport.from_json(row.report)
        return Request(row.id, row.community_id, row.finished_at is not None, row.waits, report, bool(held))


async def _claim(session: AsyncSession, request_id: str) -> Sequence[MirrorForgotten]:
    now = func.clock_timestamp()
    rows = await session.scalars(
        update(MirrorForgotten)
        .where(
            MirrorForgotten.id == request_id,
            MirrorForgotten.next_at <= now,
            or_(MirrorForgotten.lease_until.is_(None), MirrorForgotten.lease_until < now),
        )
        .values(lease_until=now + work.LEASE, epoch=MirrorForgotten.epoch + 1, attempt=MirrorForgotten.attempt + 1)
        .returning(MirrorForgotten)
        .execution_options(synchronize_session=False)
    )
    return rows.all()


async def _carry_out(forgetting: Forgetting, row: MirrorForgotten, say: Say) -> None:
    """All steps of one request. What is counted is kept after each, with those that were cut off before."""
    use = forgetting.mirrors
    spec = use.spec(row.provider)
    if spec is None:
        await _put_off(use, row, f"the plugin {row.provider!r} is not installed", None)
        return
    erasure = Erasure(
        use,
        spec,
        row.community_id,
        row.forgotten_at,
        open_person(use.vault, row.sealed),
        await _instances(use, row.community_id, spec.name),
        ForgottenReport.from_json(row.report),
        say,
        seal=lambda person: _keep(use, row, sealed=seal_person(use.vault, person)),
    )
    for step in forgetting.steps:
        say(step.name, 0, None)
        await step.run(erasure)
        await _keep(use, row, report=erasure.report.to_json())
    if erasure.waits:
        await _put_off(use, row, "; ".join(erasure.waits), erasure.report)
        return
    async with use.db.begin() as session:
        # The MetagovIDs are gone, and nothing is to be recognised by them any more.
        sealed = seal_person(use.vault, replace(erasure.person, ids=()))
        done = await work.finish(session, row, finished_at=func.clock_timestamp(), waits=None, sealed=sealed)
        if not done:
            raise work.LostLease
    _log.info("somebody was forgotten", provider=spec.name, community=row.community_id, held=len(erasure.report.held))


async def _instances(use: Mirrors, community_id: str, plugin: str) -> list[InstanceData]:
    rows = await use.db.pool.fetch(
        "SELECT id FROM instances WHERE community_id = $1 AND plugin = $2 ORDER BY id", community_id, plugin
    )
    found, _ = await instances.by_ids(use.db.pool, use.vault, [row["id"] for row in rows])
    return [found[row["id"]] for row in rows if row["id"] in found]


async def _keep(use: Mirrors, row: MirrorForgotten, **values: Any) -> None:
    async with use.db.begin() as session:
        kept = await session.scalars(
            update(MirrorForgotten)
            .where(MirrorForgotten.id == row.id, MirrorForgotten.epoch == row.epoch)
            .values(**values)
            .returning(MirrorForgotten.id)
            .execution_options(synchronize_session=False)
        )
        if kept.one_or_none() is None:
            raise work.LostLease


async def _put_off(use: Mirrors, row: MirrorForgotten, waits: str, report: ForgottenReport | None) -> None:
    values: dict[str, Any] = {"waits": waits[:2000]}
    if report is not None:
        values["report"] = report.to_json()
    pause = work.backoff(row.attempt, first=_FIRST_PAUSE, most=_LONGEST_PAUSE)
    async with use.db.begin() as session:
        if not await work.fail(session, row, retry_in=pause, **values):
            raise work.LostLease
    _log.info("forgetting somebody goes on later", provider=row.provider, community=row.community_id, waits=waits)


def _say_nothing(what: str, done: int, known: int | None) -> None:
    return None
