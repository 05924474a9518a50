"""Taking an account out of what the gateway itself has kept: receipts, events and their deliveries, identities."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from sqlalchemy import text

from app.core.db import Database
from app.identity.person import NOBODY, Person
from app.mirrors.forget import Erasure
from app.processes.forget import forget_in_processes

_MANY, _SOME = 1000, 100


async def forget_receipts(erasure: Erasure) -> None:
    """Handled webhooks that name the person go. What waits is handled first: the request is gone through again."""
    pool, waiting = erasure.use.db.pool, 0
    async for ids in _named(erasure.use.db, _RECEIPTS, erasure.community_id, erasure.person.posix_in_bytes, size=_SOME):
        for row_id in ids:
            # One at a time: a body may have many megabytes.
            row = await pool.fetchrow(
                "SELECT plugin, body, headers::text AS headers, error, next_at IS NOT NULL AS waits, received_at "
                "FROM receipts WHERE id = ANY($1::text[])",
                [row_id],
            )
            if row is None or not _is_in_receipt(erasure.person_for(row["plugin"]), row):
                continue
            if row["waits"]:
                waiting += row["received_at"] <= erasure.asked_at
            else:
                gone = await pool.execute(
                    "DELETE FROM receipts WHERE id = ANY($1::text[]) AND next_at IS NULL", [row_id]
                )
                erasure.report.receipts += int(gone.rpartition(" ")[2])
    if waiting:
        erasure.waits.append(f"{waiting} webhooks that name them have still to be handled")


def _is_in_receipt(person: Person, row: Any) -> bool:
    return (
        person.is_in_body(row["body"])
        or any(person.is_in_key(str(value)) for _, value in json.loads(row["headers"]))
        or person.is_in_text(row["error"] or "")
    )


# A body is bytes: what it may hold is looked for as bytes, and read closely afterwards.
_RECEIPTS = """
SELECT id, encode(body, 'escape') ~ $3 OR headers::text ~ $3 OR coalesce(error, '') ~ $3 AS named
FROM receipts WHERE community_id = $1 AND id > $2 ORDER BY id LIMIT $4
"""


async def _named(db: Database, window: str, owner: Any, trace: str, *, size: int) -> AsyncIterator[Sequence[str]]:
    """The ids of rows that may name the person, a window of them at a time."""
    after = ""
    while True:
        rows = await db.pool.fetch(window, owner, after, trace, size)
        if found := [row["id"] for row in rows if row["named"]]:
            yield found
        if len(rows) < size:
            return
        after = rows[-1]["id"]


async def forget_processes(erasure: Erasure) -> None:
    """Votes are withdrawn while they are open; of what is over, a pseudonym keeps the counts."""
    use = erasure.use
    done = await forget_in_processes(use.db, use.host, use.vault, erasure.community_id, erasure.person_for)
    erasure.report.withdrawn += done.withdrawn
    erasure.report.renamed += done.renamed
    if done.busy:
        erasure.waits.append(f"{done.busy} processes are in a worker's hands")
    if done.told:
        use.wake.poke("deliveries", "processes")


async def forget_events(erasure: Erasure) -> None:
    """Events by the person or about them go, with their deliveries; in others' a pseudonym stands for them."""
    db = erasure.use.db
    async for ids in _named(db, _EVENTS, erasure.community_id, erasure.person.posix, size=_MANY):
        async with db.begin() as session:
            rows = list(await session.execute(_EVENT_ROWS, {"ids": ids}))
            gone = [row.id for row in rows if _goes(erasure, row)]
            if gone:
                erasure.report.events += int((await session.execute(_NO_EVENTS, {"ids": gone})).scalar_one())
            for row in rows:
                if row.id not in gone and (clean := _cleaned(erasure.person_for(row.source), row)) is not None:
                    await session.execute(_CLEAN_EVENT, {"id": row.id, **clean})
                    erasure.report.renamed_events += 1
    drivers = [instance.driver_id for instance in erasure.instances]
    async for ids in _named(db, _ATTEMPTS, drivers, erasure.person.posix, size=_MANY):
        erasure.report.attempts += await _clean_attempts(db, ids, erasure.person)


def _goes(erasure: Erasure, row: Any) -> bool:
    """Whether an event is the platform's word of the person, and not what has become of a process."""
    initiator = row.initiator or {}
    by_them = initiator.get("provider") == erasure.plugin and str(initiator.get("user_id")) == erasure.person.account
    if row.event_type == "process.updated":
        return False
    return by_them or (row.source == erasure.plugin and erasure.person.is_in(row.data))


def _cleaned(person: Person, row: Any) -> dict[str, str | None] | None:
    data = person.out_of(row.data, keep_places=True)
    initiator = None if row.initiator and person.is_in(row.initiator) else row.initiator
    if (data, initiator) == (row.data, row.initiator):
        return None
    return {"data": json.dumps(data), "initiator": None if initiator is None else json.dumps(initiator)}


_EVENTS = """
SELECT id, data::text ~ $3 OR coalesce(initiator::text, '') ~ $3 AS named
FROM events WHERE community_id = $1 AND id > $2 ORDER BY id LIMIT $4
"""
_EVENT_ROWS = text("""
SELECT id, source, event_type, data, initiator FROM events WHERE id = ANY(CAST(:ids AS text[])) FOR UPDATE
""")
_NO_EVENTS = text("""
WITH undelivered AS (
    DELETE FROM deliveries WHERE event_id = ANY(CAST(:ids AS text[])) RETURNING id
), untried AS (
    DELETE FROM attempts WHERE delivery_id = ANY(ARRAY(SELECT id FROM undelivered))
), gone AS (
    DELETE FROM events WHERE id = ANY(CAST(:ids AS text[])) RETURNING 1
)
SELECT count(*) FROM gone
""")
_CLEAN_EVENT = text("""
UPDATE events SET data = CAST(:data AS json), initiator = CAST(:initiator AS json) WHERE id = ANY(ARRAY[:id])
""")
_ATTEMPTS = """
WITH sent AS (
    SELECT d.id FROM deliveries d JOIN endpoints e ON e.id = d.endpoint_id
    WHERE e.driver_id = ANY($1::text[]) AND d.id > $2 ORDER BY d.id LIMIT $4
)
SELECT s.id, EXISTS (SELECT FROM attempts a WHERE a.delivery_id = s.id
    AND concat_ws(' ', a.response_text, a.error) ~ $3) AS named
FROM sent s ORDER BY s.id
"""


async def _clean_attempts(db: Database, deliveries: Sequence[str], person: Person) -> int:
    """What endpoints answered, where it names the person. Returns how many answers did."""
    count = 0
    async with db.begin() as session:
        for row in await session.execute(_ANSWERED, {"ids": deliveries}):
            answered, error = (_without(person, each) for each in (row.response_text, row.error))
            if (answered, error) != (row.response_text, row.error):
                await session.execute(_CLEAN_ATTEMPT, {"id": row.id, "answered": answered, "error": error})
                count += 1
    return count


def _without(person: Person, answered: str | None) -> str | None:
    if answered is None or not person.is_in_body(answered.encode(errors="replace")):
        return None if answered is None else person.out_of_text(answered)
    return NOBODY


_ANSWERED = text("""
SELECT id, response_text, error FROM attempts WHERE delivery_id = ANY(CAST(:ids AS text[])) FOR UPDATE
""")
_CLEAN_ATTEMPT = text("""
UPDATE attempts SET response_text = :answered, error = :error WHERE id = ANY(ARRAY[:id])
""")


async def forget_identity(erasure: Erasure) -> None:
    """The linked account goes, and the person's MetagovIDs if nothing else is linked to them."""
    values = {"community": erasure.community_id, "plugin": erasure.plugin, "account": erasure.person.account}
    async with erasure.use.db.begin() as session:
        erasure.report.accounts += int((await session.execute(_ACCOUNTS, values)).scalar_one())
        await session.execute(_IDS, {"ids": list(erasure.person.ids), "community": erasure.community_id})


_ACCOUNTS = text("""
WITH gone AS (
    DELETE FROM linked_accounts WHERE community_id = :community AND platform_type = :plugin
      AND platform_identifier = :account RETURNING 1
)
SELECT count(*) FROM gone
""")
_IDS = text("""
DELETE FROM metagov_ids m WHERE m.community_id = :community AND m.id = ANY(CAST(:ids AS text[]))
  AND NOT EXISTS (
    SELECT FROM linked_accounts l JOIN metagov_ids x ON x.id = l.metagov_id WHERE x.primary_id = m.primary_id)
""")


async def forget_states(erasure: Erasure) -> None:
    """What plugins of the community have remembered: their states, and where their polls are."""
    async with erasure.use.db.begin() as session:
        values = {"community": erasure.community_id, "trace": erasure.person.posix}
        for row in await session.execute(_STATES, values):
            state = erasure.person_for(row.plugin).out_of(row.state, keep_places=True)
            if state != row.state:
                await session.execute(_CLEAN_STATE, {"instance": row.instance_id, "state": json.dumps(state)})
                erasure.report.states += 1
        for row in await session.execute(_POLLS, values):
            person = erasure.person_for(row.plugin)
            cursor = None if row.cursor is None or person.is_in_key(json.dumps(row.cursor)) else row.cursor
            error = None if row.error is None else person.out_of_text(row.error)
            if (cursor, error) != (row.cursor, row.error):
                spelt = None if cursor is None else json.dumps(cursor)
                await session.execute(_CLEAN_POLL, {"id": row.id, "cursor": spelt, "error": error})
                erasure.report.states += 1
        # Of the limits themselves a minute is remembered; of which names share one, a week.
        for row in await session.execute(_ALIASES, {"plugin": erasure.plugin, "trace": erasure.person.posix}):
            if erasure.person.is_in_key(row.name) or erasure.person.is_in_key(row.bucket):
                await session.execute(_NO_ALIAS, {"plugin": erasure.plugin, "owner": row.owner, "name": row.name})


async def forget_seen_keys(erasure: Erasure) -> None:
    """Keys that tell repeats may name somebody, too."""
    db = erasure.use.db
    for row in await db.pool.fetch("SELECT id, plugin FROM instances WHERE community_id = $1", erasure.community_id):
        person = erasure.person_for(row["plugin"])
        async for keys in _named(db, _SEEN, row["id"], person.posix, size=_MANY):
            named = [key for key in keys if person.is_in_key(key)]
            await db.pool.execute("DELETE FROM seen WHERE instance_id = $1 AND key = ANY($2::text[])", row["id"], named)
            erasure.report.states += len(named)


_STATES = text("""
SELECT s.instance_id, i.plugin, s.state FROM instance_states s JOIN instances i ON i.id = s.instance_id
WHERE i.community_id = :community AND s.state::text ~ :trace FOR UPDATE OF s
""")
_CLEAN_STATE = text("UPDATE instance_states SET state = CAST(:state AS json) WHERE instance_id = :instance")
_POLLS = text("""
SELECT p.id, i.plugin, p.cursor, p.error FROM polls p JOIN instances i ON i.id = p.instance_id
WHERE i.community_id = :community AND concat_ws(' ', p.cursor::text, p.error) ~ :trace FOR UPDATE OF p
""")
_CLEAN_POLL = text("UPDATE polls SET cursor = CAST(:cursor AS json), error = :error WHERE id = :id")
_SEEN = """
SELECT key AS id, key ~ $3 AS named FROM seen WHERE instance_id = $1 AND key > $2 ORDER BY key LIMIT $4
"""
_ALIASES = text("""
SELECT owner, name, bucket FROM rate_limit_aliases WHERE plugin = :plugin AND concat_ws(' ', name, bucket) ~ :trace
""")
_NO_ALIAS = text("DELETE FROM rate_limit_aliases WHERE (plugin, owner, name) = (:plugin, :owner, :name)")
