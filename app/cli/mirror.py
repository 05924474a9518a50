"""`metagov mirror …`: what the operator does with mirrors of platforms."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.cli.serve import require_settings
from app.core.db import is_away
from app.core.errors import NotFound, Problem
from app.core.log import configure_logging
from app.core.settings import load_settings
from app.gateway import Gateway, open_gateway
from app.host.binding import InstanceData
from app.mirrors import service
from app.mirrors.forget import ForgottenReport
from app.mirrors.forget import forget as forget_account
from app.mirrors.replay import replay as replay_answers
from app.mirrors.status import MirrorStatus, read_status
from app.mirrors.walking import sync_due
from metagov_sdk.provider import ProviderSpec

ResultT = TypeVar("ResultT")
CommandT = TypeVar("CommandT", bound=Callable[..., object])

_LOOK_SECONDS = 0.25


@click.group()
def mirror() -> None:
    """Mirrors of platforms in the database: read them, look at them, take people out of them."""


def _which(command: CommandT) -> CommandT:
    for decorate in (
        click.option("--platform-id", help="Which instance, where the community has several of the plugin."),
        click.argument("plugin"),
        click.argument("community"),
    ):
        command = decorate(command)
    return command


@mirror.command()
@_which
@click.option("--sweep", is_flag=True, help="Read everything again: finds edits and deletions.")
def sync(community: str, plugin: str, platform_id: str | None, sweep: bool) -> None:
    """Read what is new of COMMUNITY's PLUGIN, and show how far it is. Works beside running workers, or alone."""

    async def work(gateway: Gateway) -> MirrorStatus:
        instance, spec = await _find(gateway, community, plugin, platform_id)
        await service.sync(gateway.mirrors, instance.community_id, plugin, platform_id, sweep=sweep)
        working = asyncio.create_task(_keep_reading(gateway))
        try:
            return await _watch(gateway, instance, spec)
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    status = _run(work)
    _show(status)
    if status.state == "failed":
        raise click.ClickException(status.run.error if status.run and status.run.error else "the run failed")


async def _keep_reading(gateway: Gateway) -> None:
    while True:
        if not await sync_due(gateway.mirrors):
            await asyncio.sleep(_LOOK_SECONDS)


async def _watch(gateway: Gateway, instance: InstanceData, spec: ProviderSpec) -> MirrorStatus:
    """Show a bar until no run is under way."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(plugin_line(spec.name, None), total=None)
        while True:
            async with gateway.db.begin() as session:
                status = await read_status(session, instance.id, spec)
            if status.progress is None:
                return status
            done = status.progress
            bar.update(task, completed=done.done, total=done.known, description=plugin_line(spec.name, status))
            await asyncio.sleep(_LOOK_SECONDS)


def plugin_line(name: str, status: MirrorStatus | None) -> str:
    """What stands before the bar."""
    if status is None or status.progress is None:
        return name
    waits = f", {status.progress.waits} waits" if status.progress.waits else ""
    left = "" if status.progress.eta_seconds is None else f", about {status.progress.eta_seconds:.0f} s left"
    return f"{name}: {status.progress.requests} requests{waits}{left}"


@mirror.command()
@_which
def status(community: str, plugin: str, platform_id: str | None) -> None:
    """Show the tables of COMMUNITY's PLUGIN: rows, times, what went wrong."""

    async def work(gateway: Gateway) -> MirrorStatus:
        instance, _ = await _find(gateway, community, plugin, platform_id)
        return await service.status(gateway.mirrors, instance.community_id, plugin, platform_id)

    _show(_run(work))


@mirror.command()
@_which
def replay(community: str, plugin: str, platform_id: str | None) -> None:
    """Read kept answers of COMMUNITY's PLUGIN again, without asking the platform (METAGOV_MIRROR_KEEP_ANSWERS)."""

    async def work(gateway: Gateway) -> str:
        instance, spec = await _find(gateway, community, plugin, platform_id)
        done = await replay_answers(gateway.mirrors, instance, spec)
        unreadable = f"; {done.unreadable} could not be read" if done.unreadable else ""
        return f"{done.pages} pages with {done.rows} rows{unreadable}."

    click.echo(_run(work))


@mirror.command()
@click.argument("account")
@click.option("--plugin", required=True, help="The platform whose account it is.")
@click.option("--community", help="In this community only; in all of them if not given.")
def forget(account: str, plugin: str, community: str | None) -> None:
    """Take ACCOUNT (the platform's id of a person) out of mirrors, receipts, events and identities.

    It is not mirrored again. Says which archived snapshots still hold it.
    """

    async def work(gateway: Gateway) -> None:
        spec = gateway.mirrors.spec(plugin)
        if spec is None:
            raise NotFound(f"there is no plugin {plugin!r} that mirrors its platform; `metagov plugins` lists them")
        for instance in await service.find_instances(gateway.mirrors, plugin, community):
            _tell(instance, await forget_account(gateway.mirrors, instance, spec, account))

    _run(work)


def _tell(instance: InstanceData, report: ForgottenReport) -> None:
    click.secho(f"{instance.community} ({instance.plugin})", bold=True)
    for name, keys in sorted(report.rows.items()):
        click.echo(f"  {name}: {len(keys)} rows")
    click.echo(f"  named in {report.texts} rows of others, {report.answers} kept answers")
    click.echo(f"  {report.receipts} receipts, {report.events} events, {report.accounts} linked accounts")
    for held in report.held:
        click.secho(f"  still in {held.archive}, snapshot {held.snapshot}: {', '.join(held.tables)}", fg="yellow")


async def _find(
    gateway: Gateway, community: str, plugin: str, platform_id: str | None
) -> tuple[InstanceData, ProviderSpec]:
    community_id = await gateway.db.pool.fetchval(
        "SELECT id FROM communities WHERE slug = $1 AND deleted_at IS NULL", community
    )
    if community_id is None:
        raise NotFound(f"there is no community with the slug {community!r}")
    return await service.find_instance(gateway.mirrors, community_id, plugin, platform_id)


def _show(status: MirrorStatus) -> None:
    state = "incomplete" if status.run is not None and status.run.state == "incomplete" else status.state
    table = Table("Table", "Rows", "Complete through", "Latest", "Error", title=f"{status.provider}: {state}")
    for row in status.tables:
        times = (f"{moment:%Y-%m-%d %H:%M:%S}" if moment else "" for moment in (row.complete_through, row.high_water))
        table.add_row(row.name, f"{row.rows:,}", *times, row.error or "")
    Console().print(table)


def _run(work: Callable[[Gateway], Awaitable[ResultT]]) -> ResultT:
    require_settings()
    settings = load_settings()
    configure_logging(settings)

    async def run() -> ResultT:
        async with open_gateway(settings) as gateway:
            return await work(gateway)

    try:
        return asyncio.run(run())
    except Problem as problem:
        raise click.ClickException(problem.detail) from problem
    except Exception as error:
        if is_away(error):
            raise click.ClickException("the database cannot be reached; check METAGOV_DATABASE_URL") from error
        raise
