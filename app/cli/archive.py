"""`metagov archive …`: what was archived, whether it is genuine, and getting it out again."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from app.archives.export import NoParquet, export_parquet
from app.archives.places import find_name, provider_of
from app.archives.postgres import open_sink
from app.archives.read import VerifiedReader, ancestors, open_archive
from app.archives.restore import restore as restore_rows
from app.archives.service import Archives, deployment
from app.archives.stores import open_store
from app.core.crypto import Vault
from app.core.db import Database, plain_dsn
from app.core.errors import Problem
from app.core.settings import Settings, load_settings
from app.host.binding import InstanceData
from app.host.discovery import discover
from app.mirrors.schema import find_pending
from app.mirrors.source import open_sink as open_mirror
from app.runtime.instances import candidates
from metagov_sdk.archive import ArchiveError
from metagov_sdk.provider import ProviderSpec

ResultT = TypeVar("ResultT")
Command = Callable[..., Any]


def _of_archive(command: Command) -> Command:
    """The arguments that name an archive."""
    for decorate in (
        click.option("--url", default="", help="Where it lies, instead of METAGOV_ARCHIVE_URL; asks no database."),
        click.argument("name", metavar="ARCHIVE"),
        click.argument("community"),
    ):
        command = decorate(command)
    return command


_snapshot = click.option("--snapshot", default=None, help="A snapshot's id; the newest if not given.")


@click.group()
def archive() -> None:
    """Snapshots of mirrored data: list, verify, restore and export them.

    ARCHIVE is the plugin's name, `discord`; where a community has several instances of it, that of the archive.
    """


@archive.command(name="list")
@click.argument("community", required=False)
@click.argument("name", metavar="[ARCHIVE]", required=False)
@click.option("--url", default="", help="Where it lies, instead of METAGOV_ARCHIVE_URL; asks no database.")
def list_(community: str | None, name: str | None, url: str) -> None:
    """List the archives of this deployment, or with COMMUNITY and ARCHIVE one archive's snapshots."""
    if community and name:
        Console().print(_run(_snapshots(community, name, url)))
    elif community or url:
        raise click.UsageError("name both COMMUNITY and ARCHIVE")
    else:
        Console().print(_run(_archives()))


@archive.command()
@_of_archive
@_snapshot
@click.option("--all", "whole", is_flag=True, help="Also the blobs of every earlier snapshot.")
@click.option("--accept", is_flag=True, help="Take the HEAD that is there for the newest, although a newer was seen.")
def verify(community: str, name: str, url: str, snapshot: str | None, whole: bool, accept: bool) -> None:
    """Read an archive to the last byte: signatures, chain, digests, order. Ends with 1 when anything is wrong."""

    async def work() -> str:
        if accept:
            await _accept(community, name)
        async with _open(community, name, url, snapshot) as reader:
            rows = await _verify_one(reader)
            count = 1
            async for earlier, manifest in ancestors(reader.archive, reader.snapshot, reader.manifest, reader.trusted):
                count += 1
                if whole:
                    rows += await _verify_one(await reader.at(earlier, manifest))
            read = f"{rows:,} rows" if whole else f"{rows:,} rows of the newest"
            return f"Genuine: {count} snapshots, {read}; newest {reader.snapshot}"

    click.secho(_run(work()), fg="green")


@archive.command()
@_of_archive
@_snapshot
@click.option("--database", default="", help="Where to, instead of METAGOV_DATABASE_URL.")
@click.option("--schema", default="", help='The Postgres schema that is made anew. Default: "archive_<ARCHIVE>".')
@click.option("--mirror", "refill", is_flag=True, help="Into the mirror of the community's instance, in place of it.")
@click.option("--platform-id", help="With --mirror: which instance, where the community has several of the plugin.")
def restore(
    community: str,
    name: str,
    url: str,
    snapshot: str | None,
    database: str,
    schema: str,
    refill: bool,
    platform_id: str | None,
) -> None:
    """Write an archive's rows as plain SQL tables, or into a mirror: all once all are found genuine, or none.

    Into a mirror: `metagov migrate` has made its tables, and the community has the plugin. The mirror is as it was when
    it was archived; its next sweep finds what has changed on the platform since.
    """
    if refill:
        if schema or database:
            raise click.UsageError("--mirror goes into METAGOV_DATABASE_URL, without --schema and --database")
        click.echo(_run(_refill(community, name, url, snapshot, platform_id)))
        return
    into = schema or f"archive_{name}"
    if into.startswith("mirror_"):
        raise click.UsageError(f"the schema {into!r} is a mirror's: fill that with --mirror, or name another schema")
    if into in ("public", "information_schema") or into.startswith("pg_"):
        raise click.UsageError(f"the schema {into!r} is not to be made anew; name another with --schema")

    async def work() -> str:
        dsn = plain_dsn(database or load_settings().database_url)
        async with _open(community, name, url, snapshot) as reader, open_sink(dsn, into) as sink:
            with _progress(reader, "restoring") as progress:
                rows = await restore_rows(reader, sink, progress)
        return f"{rows:,} rows of the snapshot {reader.snapshot} are in the schema {into}"

    click.echo(_run(work()))


async def _refill(community: str, name: str, url: str, snapshot: str | None, platform_id: str | None) -> str:
    settings = load_settings()
    if not settings.fernet_keys:
        raise click.ClickException("set METAGOV_SECRET_KEYS: the instance's secrets are sealed with them")
    async with Database(settings) as db:
        vault = Vault(settings.fernet_keys)
        instance, spec = await _mirrored(db, vault, community, name, platform_id)
        async with _open(community, name, url, snapshot) as reader, open_mirror(db, instance, spec, vault) as sink:
            with _progress(reader, "restoring") as progress:
                rows = await restore_rows(reader, sink, progress)
    return (
        f"{rows:,} rows of the snapshot {reader.snapshot} are in the mirror; "
        f"`metagov mirror sync --sweep {community} {spec.name}` finds what has changed since"
    )


async def _mirrored(
    db: Database, vault: Vault, community: str, name: str, platform_id: str | None
) -> tuple[InstanceData, ProviderSpec]:
    """The instance whose mirror is filled: the one that is named, or the one whose archive it is."""
    plugin = provider_of(name)
    loaded = discover().loaded.get(plugin)
    spec = loaded.manifest.provider if loaded is not None else None
    if spec is None:
        raise click.ClickException(
            f"there is no plugin {plugin!r} that mirrors its platform; `metagov plugins` lists them"
        )
    async with db.begin() as session:
        if reason := (await find_pending(session, [spec])).get(spec.name):
            raise click.ClickException(reason)
    community_id = await db.pool.fetchval(
        "SELECT id FROM communities WHERE slug = $1 AND deleted_at IS NULL", community
    )
    if community_id is None:
        raise click.ClickException(
            f"there is no community {community!r}; its driver makes it, with the plugin {plugin!r}"
        )
    found = await candidates(db.pool, community_id, plugin)
    if platform_id is None and len(found.rows) > 1:
        for row in found.rows:
            instance, _ = found.choose(vault, row["community_platform_id"])
            if await find_name(db.pool, instance) == name:
                return instance, spec
    return found.choose(vault, platform_id)[0], spec


@archive.command()
@_of_archive
@_snapshot
@click.option("--to", required=True, type=click.Path(path_type=Path, file_okay=False), help="A folder.")
def export(community: str, name: str, url: str, snapshot: str | None, to: Path) -> None:
    """Write an archive's tables as Parquet files, for DuckDB, Spark or Trino."""

    async def work() -> str:
        async with _open(community, name, url, snapshot) as reader:
            with _progress(reader, "exporting") as progress:
                return "\n".join(map(str, await export_parquet(reader, to, progress)))

    click.echo(_run(work()))


@contextlib.asynccontextmanager
async def _open(community: str, name: str, url: str, snapshot: str | None = None) -> AsyncIterator[VerifiedReader]:
    settings = load_settings()
    if url:
        async with open_store(url, community, name, deployment(settings, os.environ)) as store:
            yield await open_archive(
                store, provider_of(name), community, snapshot=snapshot, trusted=settings.archive_public_keys
            )
    else:
        async with (
            _deployed(settings, community) as (archives, community_id),
            archives.reader(community_id, community, name, snapshot) as reader,
        ):
            yield reader


@contextlib.asynccontextmanager
async def _deployed(settings: Settings, community: str) -> AsyncIterator[tuple[Archives, str]]:
    async with Database(settings) as db:
        community_id = await db.pool.fetchval("SELECT id FROM communities WHERE slug = $1", community)
        if community_id is None:
            raise click.ClickException(f"there is no community {community!r}")
        yield Archives(settings, db.pool), community_id


async def _accept(community: str, name: str) -> None:
    async with _deployed(load_settings(), community) as (archives, community_id):
        await archives.forget_seen(community_id, name)


async def _archives() -> Table:
    query = """
        SELECT c.slug, h.provider, h.url, h.seq, h.snapshot, h.seen_at
        FROM archive_heads h JOIN communities c ON c.id = h.community_id ORDER BY c.slug, h.provider, h.url
    """
    async with Database(load_settings()) as db:
        rows = await db.pool.fetch(query)
    table = Table("Community", "Archive", "Place", "Number", "Newest snapshot seen", "Seen")
    for row in rows:
        seen = f"{row['seen_at']:%Y-%m-%d %H:%M}"
        table.add_row(row["slug"], row["provider"], row["url"], str(row["seq"]), row["snapshot"], seen)
    return table


async def _snapshots(community: str, name: str, url: str) -> Table:
    table = Table("Number", "Snapshot", "Synced", "Tables", "Rows", "Chunks")
    async with _open(community, name, url) as reader:
        found = [(reader.snapshot, reader.manifest)]
        found += [each async for each in ancestors(reader.archive, reader.snapshot, reader.manifest, reader.trusted)]
    for snapshot, manifest in found:
        counts = (
            len(manifest.tables),
            sum(each.rows for each in manifest.tables),
            sum(len(each.chunks) for each in manifest.tables),
        )
        table.add_row(str(manifest.seq), snapshot, (manifest.created_at or "")[:19], *(f"{n:,}" for n in counts))
    return table


async def _verify_one(reader: VerifiedReader) -> int:
    with _progress(reader, "verifying") as progress:
        return await reader.verify(progress)


@contextlib.contextmanager
def _progress(reader: VerifiedReader, what: str) -> Iterator[Callable[[str, int], None]]:
    """A bar per table, on stderr."""
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    tasks = {table.name: bars.add_task(f"{what} {table.name}", total=table.rows) for table in reader.tables()}
    with bars:
        yield lambda table, done: bars.update(tasks[table], completed=done)


def _run(work: Awaitable[ResultT]) -> ResultT:
    async def run() -> ResultT:
        return await work

    try:
        return asyncio.run(run())
    except Problem as problem:
        raise click.ClickException(problem.detail) from problem
    except ArchiveError as error:
        raise click.ClickException(f"{type(error).__name__}: {error}") from error
    except (NoParquet, ValueError) as error:
        raise click.ClickException(str(error)) from error
    except (OSError, asyncpg.PostgresError) as error:
        raise click.ClickException(f"{type(error).__name__}: {error}; check METAGOV_DATABASE_URL") from error
