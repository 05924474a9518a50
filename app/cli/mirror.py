"""`metagov mirror …`: what the operator does with mirrors of platforms."""

from __future__ import annotations

import asyncio

import click
from rich.console import Console
from rich.table import Table

from app.cli.forget import forget
from app.cli.of_instance import find_community, of_instance
from app.cli.on_gateway import run_on_gateway
from app.cli.watching import LOOK_SECONDS, progress_bar, working
from app.gateway import Gateway
from app.host.binding import InstanceData
from app.mirrors import service
from app.mirrors.replay import replay as replay_answers
from app.mirrors.status import MirrorStatus, Progress, read_status
from app.mirrors.walking import sync_due
from metagov_sdk.provider import ProviderSpec


@click.group()
def mirror() -> None:
    """Mirrors of platforms in the database: read them, look at them, take people out of them."""


@mirror.command()
@of_instance
@click.option("--sweep", is_flag=True, help="Read everything again: finds edits and deletions.")
def sync(community: str, plugin: str, platform_id: str | None, sweep: bool) -> None:
    """Read what is new of COMMUNITY's PLUGIN, and show how far it is. Works beside running workers, or alone."""

    async def work(gateway: Gateway) -> MirrorStatus:
        instance, spec = await _find(gateway, community, plugin, platform_id)
        await service.sync(gateway.mirrors, instance.community_id, plugin, platform_id, sweep=sweep)
        async with working(lambda: sync_due(gateway.mirrors)):
            return await _watch(gateway, instance, spec)

    status = run_on_gateway(work)
    _show(status)
    if status.state == "failed":
        raise click.ClickException(status.run.error if status.run and status.run.error else "the run failed")


async def _watch(gateway: Gateway, instance: InstanceData, spec: ProviderSpec) -> MirrorStatus:
    """Show a bar until no run is under way."""
    with progress_bar(spec.name) as show:
        while True:
            async with gateway.db.begin() as session:
                status = await read_status(session, instance.id, spec)
            if status.progress is None:
                return status
            show(_line(spec.name, status.progress), status.progress.done, status.progress.known)
            await asyncio.sleep(LOOK_SECONDS)


def _line(name: str, progress: Progress) -> str:
    """What stands before the bar."""
    waits = f", {progress.waits} waits" if progress.waits else ""
    left = "" if progress.eta_seconds is None else f", about {progress.eta_seconds:.0f} s left"
    return f"{name}: {progress.requests} requests{waits}{left}"


@mirror.command()
@of_instance
def status(community: str, plugin: str, platform_id: str | None) -> None:
    """Show the tables of COMMUNITY's PLUGIN: rows, times, what went wrong."""

    async def work(gateway: Gateway) -> MirrorStatus:
        instance, _ = await _find(gateway, community, plugin, platform_id)
        return await service.status(gateway.mirrors, instance.community_id, plugin, platform_id)

    _show(run_on_gateway(work))


@mirror.command()
@of_instance
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
    community_id = await find_community(gateway.db.pool, community)
    return await service.find_instance(gateway.mirrors, community_id, plugin, platform_id)


def _show(status: MirrorStatus) -> None:
    state = "incomplete" if status.run is not None and status.run.state == "incomplete" else status.state
    table = Table("Table", "Rows", "Complete through", "Latest", "Error", title=f"{status.provider}: {state}")
    for row in status.tables:
        times = (f"{moment:%Y-%m-%d %H:%M:%S}" if moment else "" for moment in (row.complete_through, row.high_water))
        table.add_row(row.name, f"{row.rows:,}", *times, row.error or "")
    Console().print(table)


mirror.add_command(forget)
