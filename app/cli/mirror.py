"""`metagov mirror …`: what the operator does with mirrors of platforms."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.cli.forget import forget
from app.cli.on_gateway import run_on_gateway
from app.core.errors import NotFound
from app.gateway import Gateway
from app.host.binding import InstanceData
from app.mirrors import service
from app.mirrors.replay import replay as replay_answers
from app.mirrors.status import MirrorStatus, read_status
from app.mirrors.walking import sync_due
from metagov_sdk.provider import ProviderSpec

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

    status = run_on_gateway(work)
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

    _show(run_on_gateway(work))


@mirror.command()
@_which
def replay(community: str, plugin: str, platform_id: str | None) -> None:
    """Read kept answers of COMMUNITY's PLUGIN again, without asking the platform (METAGOV_MIRROR_KEEP_ANSWERS)."""

    async def work(gateway: Gateway) -> str:
        instance, spec = await _find(gateway, community, plugin, platform_id)
        done = await replay_answers(gateway.mirrors, instance, spec)
        unreadable = f"; {done.unreadable} could not be read" if done.unreadable else ""
        return f"{done.pages} pages with {done.rows} rows{unreadable}."

    click.echo(run_on_gateway(work))


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


mirror.add_command(forget)
