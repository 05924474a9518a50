"""Reading kept answers again, without the platform: after records have got new fields, or a fault was mended."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import current_time
from app.host.binding import InstanceData
from app.mirrors.forgotten import read_forgotten
from app.mirrors.mirrors import Mirrors, tables_for
from app.mirrors.pages import ADD_GROWTH, check_page
from app.mirrors.rows import Growth, Source, write_rows
from app.mirrors.walking import find_walk
from app.runtime.calls import PluginCrashed, run
from metagov_sdk import Page, Place, PluginError, Rejected
from metagov_sdk.provider import ProviderSpec

_BATCH = 100

_Answer: TypeAlias = tuple[str, str, httpx.Response]
"""Method, path with query, answer."""


@dataclass(slots=True)
class Replayed:
    """What came of it."""

    pages: int = 0
    rows: int = 0
    unreadable: int = 0
    """Pages that the plugin's code of today cannot read from what was answered then."""


# In the order in which they were read: where two hold the same row, the later one counts.
_KEPT = """
SELECT p.number, p.walk, p.pass_number, a.place_sha256, a.at, a.place::text AS place, a.answers::text AS answers
FROM mirror_answers a JOIN mirror_partitions p ON p.number = a.partition
WHERE p.instance_id = $1 AND p.status <> 'gone' AND (a.at, a.partition, a.place_sha256) > ($2, $3, $4)
ORDER BY a.at, a.partition, a.place_sha256 LIMIT $5
"""


async def replay(use: Mirrors, instance: InstanceData, spec: ProviderSpec) -> Replayed:
    """Normalise every kept page again. No request is sent, nothing is deleted, cursors stay where they are."""
    done = Replayed()
    after: tuple[Any, ...] = (await use.db.pool.fetchval("SELECT '-infinity'::timestamptz"), 0, b"")
    while True:
        kept = await use.db.pool.fetch(_KEPT, instance.id, *after, _BATCH)
        for row in kept:
            await _replay_page(use, instance, spec, row, done)
        if len(kept) < _BATCH:
            return done
        after = (kept[-1]["at"], kept[-1]["number"], kept[-1]["place_sha256"])


async def _replay_page(use: Mirrors, instance: InstanceData, spec: ProviderSpec, row: Any, done: Replayed) -> None:
    walk = find_walk(spec, row["walk"])
    if walk is None:
        done.unreadable += 1
        return
    answers = await _read_answers(use, instance.id, json.loads(row["answers"]))
    plugin = use.host.bind(instance, now=await use.db.now(), idempotency_key="replay", may_emit=False)
    # In place of the client that would ask the platform.
    plugin._http = httpx.AsyncClient(transport=_Kept(answers), base_url=plugin.base_url(plugin.config, plugin.settings))
    try:
        call = getattr(spec.cls(plugin), walk.name)(Place(**json.loads(row["place"])))
        page = await run(call, seconds=use.timeout, what=f"the walk {walk.name}", instance=instance)
        if not isinstance(page, Page):
            raise Rejected(f"the walk {walk.name} returned no Page")
        check_page(spec, walk, page)
    except (PluginError, PluginCrashed):
        done.unreadable += 1
        return
    page = (await read_forgotten(use.db, use.vault, instance, spec)).without(page)
    async with use.db.begin() as session:
        await _write(session, spec, instance, row, page)
    done.pages += 1
    done.rows += len(page.rows)


_COUNT = text(f"UPDATE mirror_partitions p SET rows = {ADD_GROWTH} WHERE p.number = :number")  # noqa: S608


async def _write(session: AsyncSession, spec: ProviderSpec, instance: InstanceData, row: Any, page: Page) -> None:
    tables = tables_for(spec)
    growth = Growth()
    # Under the partition's present pass: a row that was deleted since is not brought back by what was said before.
    source = Source(instance, row["number"], row["pass_number"], await current_time(session))
    await write_rows(session, tables, source, page.rows, growth, revive=False)
    await session.execute(_COUNT, {"number": row["number"], "growth": json.dumps(growth.rows)})


async def _read_answers(use: Mirrors, instance_id: str, answers: Sequence[Any]) -> list[_Answer]:
    hashes = [bytes.fromhex(each[4]) for each in answers]
    found = await use.db.pool.fetch(
        "SELECT sha256, body FROM mirror_bodies WHERE instance_id = $1 AND sha256 = ANY($2::bytea[])",
        instance_id,
        hashes,
    )
    bodies = {bytes(row["sha256"]): zlib.decompress(row["body"]) for row in found}
    return [
        (method, url, httpx.Response(status, headers=headers, content=bodies.get(digest, b"")))
        for (method, url, status, headers, _), digest in zip(answers, hashes, strict=True)
    ]


class _Kept(httpx.AsyncBaseTransport):
    """Answers requests with what they were answered then; those that were not made then, with 404."""

    def __init__(self, answers: list[_Answer]) -> None:
        self._answers = answers

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url.raw_path.decode()
        for place, (method, asked, response) in enumerate(self._answers):
            if (method, asked) == (request.method, url):
                del self._answers[place]
                return response
        return httpx.Response(404, json={"message": "this was not asked when the answers were kept"})
