"""Forgetting an account: what a person's deletion request takes out of a community, and what it cannot reach."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import Database
from app.host.binding import InstanceData
from app.mirrors.columns import Table, quoted
from app.mirrors.forgotten import Forgotten
from app.mirrors.mirrors import Mirrors, tables_for
from app.mirrors.models import MirrorForgotten
from metagov_sdk.provider import Key, ProviderSpec

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Held:
    """An archived snapshot that still holds what was forgotten."""

    archive: str
    snapshot: str
    tables: Sequence[str]


class Archived(Protocol):
    """What knows of archives. `rows` are the keys of what was taken out, by full table names."""

    async def holding(self, instance: InstanceData, rows: Mapping[str, Sequence[Key]]) -> Sequence[Held]:
        """The snapshots in which any of these rows are."""
        ...


@dataclass(slots=True)
class ForgottenReport:
    """What was taken out, counted."""

    rows: dict[str, list[Key]] = field(default_factory=dict)
    """By full table names."""
    texts: int = 0
    """Rows of others that named the account, and do not any more."""
    answers: int = 0
    receipts: int = 0
    events: int = 0
    accounts: int = 0
    held: list[Held] = field(default_factory=list)


async def forget(
    use: Mirrors, instance: InstanceData, spec: ProviderSpec, account: str, archived: Archived | None = None
) -> ForgottenReport:
    """Take an account out of an instance's mirror and its community's receipts, events and identities.

    It is not mirrored again. Repeating it takes out what has come since; a crash in between is mended so, too.
    """
    report = ForgottenReport()
    async with use.db.begin() as session:
        await session.execute(
            insert(MirrorForgotten)
            .values(
                community_id=instance.community_id,
                provider=spec.name,
                hash=hashlib.sha256(account.encode()).digest(),
                sealed=use.vault.seal({"account": account}),
            )
            .on_conflict_do_nothing()
        )
    forgotten = Forgotten(frozenset({account}), spec.cls.names_of(account))
    for table in tables_for(spec).values():
        async with use.db.begin() as session:
            taken = await _forget_rows(session, table, instance, account)
        if taken:
            report.rows[table.name] = taken
        report.texts += await _forget_names(use.db, table, instance, forgotten)
    report.answers = await _forget_answers(use.db, instance, account)
    async with use.db.begin() as session:
        values = {"community": instance.community_id, "plugin": spec.name, "account": account}
        report.events = await _count(session, _EVENTS, values)
        report.accounts = await _count(session, _ACCOUNTS, values)
    report.receipts = await _forget_receipts(use.db, instance, account)
    if archived is not None and report.rows:
        report.held = list(await archived.holding(instance, report.rows))
    return report


async def _forget_rows(session: AsyncSession, table: Table, instance: InstanceData, account: str) -> list[Key]:
    if not table.record.people:
        return []
    theirs = " OR ".join(f"t.{quoted(name)}::text = :account" for name in table.record.people)
    keys = ", ".join(f"t.{quoted(name)}" for name in table.record.key)
    rows = await session.execute(
        text(
            f"DELETE FROM {table.sql} t WHERE t.instance_id = :instance AND ({theirs}) "  # noqa: S608
            f"RETURNING {keys}, t.deleted_at"
        ),
        {"instance": instance.id, "account": account},
    )
    found = list(rows)
    live = sum(row.deleted_at is None for row in found)
    if live:
        await session.execute(_UNCOUNT, {"instance": instance.id, "table": table.record.table, "count": live})
    return [tuple(row)[:-1] for row in found]


# From whichever partition has counted that many: only the sum is shown.
_UNCOUNT = text("""
UPDATE mirror_partitions SET rows = jsonb_set(rows, ARRAY[CAST(:table AS text)],
    to_jsonb(coalesce((rows ->> CAST(:table AS text))::bigint, 0) - CAST(:count AS bigint)))
WHERE number = (SELECT min(number) FROM mirror_partitions WHERE instance_id = :instance)
""")


async def _forget_names(db: Database, table: Table, instance: InstanceData, forgotten: Forgotten) -> int:
    """Take the account's name out of the texts of others, some rows per transaction."""
    columns = [column for column in table.columns if column.kind in ("text", "json") and not column.in_key]
    if not forgotten.names or not columns:
        return 0
    anywhere = " || ' ' || ".join(f"coalesce(t.{quoted(column.name)}::text, '')" for column in columns)
    keys = ", ".join(f"t.{quoted(name)}" for name in table.record.key)
    listed = ", ".join(f"t.{quoted(column.name)}" for column in columns)
    page = text(
        f"SELECT t.ctid::text AS place, {keys}, {listed}, t.extra FROM {table.sql} t "  # noqa: S608
        f"WHERE t.instance_id = :instance AND ({anywhere} || t.extra::text) LIKE ANY(CAST(:names AS text[])) "
        f"LIMIT {_BATCH} FOR UPDATE"
    )
    assigned = ", ".join(
        f"{quoted(column.name)} = new.n{place}{'::jsonb' if column.kind == 'json' else ''}"
        for place, column in enumerate(columns)
    )
    arrays = ", ".join(f"CAST(:v{place} AS text[])" for place in range(len(columns)))
    names = ", ".join(f"n{place}" for place in range(len(columns)))
    write = text(
        f"UPDATE {table.sql} t SET {assigned}, extra = new.extra::jsonb, synced_at = clock_timestamp() "  # noqa: S608
        f"FROM unnest(CAST(:places AS text[]), {arrays}, CAST(:extras AS text[])) AS new(place, {names}, extra) "
        "WHERE t.ctid = new.place::tid AND t.instance_id = :instance"
    )
    # A name in quotes is the same within JSON: none of its characters is written differently there.
    patterns = ["%" + re.sub(r"([\\%_])", r"\\\1", name) + "%" for name in forgotten.names]
    total = 0
    while True:
        async with db.begin() as session:
            rows = (await session.execute(page, {"instance": instance.id, "names": patterns})).mappings().all()
            if rows:
                values: dict[str, Any] = {
                    f"v{place}": [_scrubbed(row[column.name], column.kind == "json", forgotten) for row in rows]
                    for place, column in enumerate(columns)
                }
                values |= {
                    "places": [row["place"] for row in rows],
                    "extras": [_scrubbed(row["extra"], True, forgotten) for row in rows],
                    "instance": instance.id,
                }
                await session.execute(write, values)
        total += len(rows)
        if len(rows) < _BATCH:
            return total


def _scrubbed(value: Any, is_json: bool, forgotten: Forgotten) -> Any:
    if value is None:
        return None
    if not is_json:
        return forgotten.scrub(value)
    return json.dumps(forgotten.scrub(value), ensure_ascii=False)


# As a whole value in quotes: what stands in JSON as a text of its own.
_EVENTS = text("""
WITH theirs AS MATERIALIZED (
    SELECT id FROM events WHERE community_id = :community AND (
        (initiator ->> 'user_id' = :account AND initiator ->> 'provider' = :plugin)
        OR (source = :plugin AND position('"' || :account || '"' IN data::text) > 0))
), undelivered AS (
    DELETE FROM deliveries d USING theirs WHERE d.event_id = theirs.id RETURNING d.id
), gone AS (
    DELETE FROM events e USING theirs WHERE e.id = theirs.id RETURNING 1
)
SELECT (SELECT count(*) FROM gone)
""")
_ACCOUNTS = text("""
WITH gone AS (
    DELETE FROM linked_accounts WHERE community_id = :community AND platform_type = :plugin
      AND platform_identifier = :account RETURNING metagov_id
), nobody AS (
    DELETE FROM metagov_ids m USING gone WHERE m.id = gone.metagov_id AND m.primary_id = m.id
      AND NOT EXISTS (SELECT FROM linked_accounts l WHERE l.metagov_id = m.id AND l.platform_identifier <> :account)
      AND NOT EXISTS (SELECT FROM metagov_ids o WHERE o.primary_id = m.id AND o.id <> m.id)
    RETURNING 1
)
SELECT (SELECT count(*) FROM gone)
""")
_RECEIPTS = """
WITH gone AS (
    DELETE FROM receipts WHERE id = ANY($1::text[]) AND next_at IS NULL RETURNING 1
)
SELECT count(*) FROM gone
"""


async def _count(session: AsyncSession, statement: Any, values: Mapping[str, Any]) -> int:
    return int((await session.execute(statement, values)).scalar_one())


async def _forget_receipts(db: Database, instance: InstanceData, account: str) -> int:
    """Of the instance, and handled: what waits is handled first, and is found when this is repeated."""

    def names(body: bytes) -> bool:
        return account.encode() in body

    return await _each_body(
        db,
        "SELECT id AS key, body FROM receipts "
        "WHERE instance_id = $1 AND next_at IS NULL AND id > $2 ORDER BY id LIMIT $3",
        _RECEIPTS,
        instance.id,
        "",
        names,
    )


_ANSWERS = """
WITH named AS (SELECT encode(hash, 'hex') AS hex FROM unnest($1::bytea[]) AS named(hash)), pages AS (
    DELETE FROM mirror_answers a USING mirror_partitions p, named
    WHERE p.number = a.partition AND p.instance_id = $2 AND position(named.hex IN a.answers::text) > 0
), gone AS (
    DELETE FROM mirror_bodies WHERE instance_id = $2 AND sha256 = ANY($1::bytea[]) RETURNING 1
)
SELECT count(*) FROM gone
"""


async def _forget_answers(db: Database, instance: InstanceData, account: str) -> int:
    """Kept answers that name the account go as a whole: they cannot be kept by their content and without it."""

    def names(body: bytes) -> bool:
        return account.encode() in zlib.decompress(body)

    return await _each_body(
        db,
        "SELECT sha256 AS key, body FROM mirror_bodies WHERE instance_id = $1 AND sha256 > $2 ORDER BY sha256 LIMIT $3",
        _ANSWERS,
        instance.id,
        b"",
        names,
        instance.id,
    )


async def _each_body(
    db: Database, page: str, drop: str, owner: str, after: Any, names: Callable[[bytes], bool], *more: str
) -> int:
    total = 0
    while True:
        rows = await db.pool.fetch(page, owner, after, _BATCH)
        found = [row["key"] for row in rows if names(row["body"])]
        if found:
            total += int(await db.pool.fetchval(drop, found, *more))
        if len(rows) < _BATCH:
            return total
        after = rows[-1]["key"]
