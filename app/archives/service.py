"""A community's archives: opened where the deployment keeps them, and watched so that none goes back unnoticed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator, Mapping
from importlib.metadata import version
from typing import Any

from pydantic import SecretStr

from app.archives.format import HeadFile, Signer, check_keys
from app.archives.places import provider_of
from app.archives.read import SeenHead, VerifiedReader, open_archive, read_head
from app.archives.snapshot import Marks, Progress, Remembered, Written, write_snapshot
from app.archives.source import Part, TableSource
from app.archives.stores import Deployment, NoArchives, open_store
from app.core.db import Pool
from app.core.settings import Settings
from metagov_sdk.archive import DataArchive

_PREFIX = "METAGOV_ARCHIVE_"
_SEEN = """
SELECT seq, snapshot, marked, marks::text AS marks FROM archive_heads WHERE (community_id, provider, url) = ($1, $2, $3)
"""
_REMEMBER = """
INSERT INTO archive_heads (community_id, provider, url, seq, snapshot) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (community_id, provider, url) DO UPDATE
SET seq = excluded.seq, snapshot = excluded.snapshot, seen_at = now() WHERE archive_heads.seq < excluded.seq
"""
_MARK = "UPDATE archive_heads SET marked = $4, marks = $5 WHERE (community_id, provider, url) = ($1, $2, $3)"
_FORGET = "DELETE FROM archive_heads WHERE (community_id, provider, url) = ($1, $2, $3)"


class Archives:
    """The deployment's archives, by community and name: `discord`, or `discord.<platform id>` (see `places`)."""

    def __init__(self, settings: Settings, pool: Pool, environment: Mapping[str, str] | None = None) -> None:
        """environment: where stores from outside find their METAGOV_ARCHIVE_* variables; os.environ if not given.

        Raises ValueError, naming the variable, for a key that is none.
        """
        self.url = settings.archive_url.rstrip("/")
        """Where they lie; empty where none are kept."""
        self._pool = pool
        self.deployment = deployment(settings, os.environ if environment is None else environment)
        self.trusted = settings.archive_public_keys
        self._signer = _signer(settings.archive_signing_key)

    @contextlib.asynccontextmanager
    async def store(self, community: str, name: str) -> AsyncIterator[DataArchive]:
        """Where one of a community's archives lies. Raises NoArchives, UnusableArchive."""
        if not self.url:
            raise NoArchives("this deployment keeps no archives; set METAGOV_ARCHIVE_URL, for example file:///archives")
        async with open_store(self.url, community, name, self.deployment) as archive:
            yield archive

    async def head(self, community_id: str, community: str, name: str) -> HeadFile | None:
        """HEAD; None when nothing was archived yet. Raises RolledBack, BrokenChain, NotCanonical, ArchiveAway."""
        seen = await self.seen(community_id, name)
        async with self.store(community, name) as archive:
            head = read_head(await archive.head(), provider_of(name), community, seen)
            if head is not None and (seen is None or head.seq > seen.seq):
                # What is remembered has to be found genuine first, or a stranger's number would lock the next ones out.
                await open_archive(archive, provider_of(name), community, seen=seen, trusted=self.trusted)
                await self._remember(community_id, name, head)
        return head

    @contextlib.asynccontextmanager
    async def reader(
        self, community_id: str, community: str, name: str, snapshot: str | None = None
    ) -> AsyncIterator[VerifiedReader]:
        """A reader of the newest snapshot, or of the one that is named.

        Raises NoSnapshot, CorruptArchive, ArchiveAway.
        """
        seen = await self.seen(community_id, name)
        async with self.store(community, name) as archive:
            reader = await open_archive(
                archive, provider_of(name), community, snapshot=snapshot, seen=seen, trusted=self.trusted
            )
            await self._remember(community_id, name, reader.head)
            yield reader

    async def write(
        self, community_id: str, source: TableSource, progress: Progress | None = None, *, name: str = ""
    ) -> Written:
        """Archive what a mirror holds, under the provider's name if no other is given. Raises as `write_snapshot`."""
        name = name or source.provider
        row = await self._row(community_id, name)
        async with self.store(source.community, name) as archive:
            written = await write_snapshot(
                archive,
                source,
                producer=f"metagov-gateway {version('metagov-gateway')}",
                signer=self._signer,
                remembered=_remembered(row),
                seen=_seen(row),
                progress=progress,
            )
        await self._remember(community_id, name, written.head)
        marks = {table: [[*part, mark] for part, mark in parts.items()] for table, parts in written.marks.items()}
        named = (community_id, name, self.url)
        await self._pool.execute(_MARK, *named, written.head.snapshot, json.dumps(marks))
        return written

    async def seen(self, community_id: str, name: str) -> SeenHead | None:
        """The newest HEAD that this deployment has seen."""
        return _seen(await self._row(community_id, name))

    async def forget_seen(self, community_id: str, name: str) -> None:
        """Take whatever HEAD is there next for the newest: an operator's word that the archive was started anew."""
        await self._pool.execute(_FORGET, community_id, name, self.url)

    async def _row(self, community_id: str, name: str) -> Any:
        return await self._pool.fetchrow(_SEEN, community_id, name, self.url)

    async def _remember(self, community_id: str, name: str, head: HeadFile) -> None:
        await self._pool.execute(_REMEMBER, community_id, name, self.url, head.seq, head.snapshot)


def deployment(settings: Settings, environment: Mapping[str, str]) -> Deployment:
    """What stores are given: the gateway's own settings for them, and variables that only a store from outside knows.

    Raises ValueError when a trusted key is none.
    """
    try:
        check_keys(settings.archive_public_keys)
    except ValueError as error:
        raise ValueError(f"METAGOV_ARCHIVE_PUBLIC_KEYS: {error}") from None
    given = {
        name.removeprefix(_PREFIX): value for name, value in environment.items() if name.startswith(_PREFIX) and value
    }
    for name in type(settings).model_fields:
        if name.startswith("archive_"):
            value = getattr(settings, name)
            text = value.get_secret_value() if isinstance(value, SecretStr) else value
            if isinstance(text, str):
                given[name.removeprefix("archive_").upper()] = text
    return Deployment({name: value for name, value in given.items() if value})


def _signer(seed: SecretStr) -> Signer | None:
    try:
        return Signer(seed.get_secret_value()) if seed.get_secret_value() else None
    except ValueError as error:
        raise ValueError(f"METAGOV_ARCHIVE_SIGNING_KEY: {error}") from None


def _seen(row: Any) -> SeenHead | None:
    return None if row is None else SeenHead(row["seq"], row["snapshot"])


def _remembered(row: Any) -> Remembered | None:
    if row is None or row["marked"] is None:
        return None
    marks: Marks = {
        table: {Part(partition, period): mark for partition, period, mark in parts}
        for table, parts in json.loads(row["marks"]).items()
    }
    return Remembered(row["marked"], marks)
