"""`metagov mirror forget`: a person's deletion request, carried out while the operator watches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.cli.on_gateway import run_on_gateway
from app.core.errors import NotFound
from app.gateway import Gateway
from app.mirrors import service
from app.mirrors.forget import ForgottenReport, Request, ask, find_request, forget_now

_LOOK_SECONDS = 0.5
_PATIENCE_SECONDS = 600.0

_COUNTED = {
    "texts": "rows of others that named them",
    "oddities": "things that were no rows",
    "answers": "kept answers of the platform",
    "receipts": "webhooks",
    "events": "events by them or about them",
    "renamed_events": "events of others, with a pseudonym now",
    "attempts": "answers of endpoints",
    "accounts": "linked accounts",
    "withdrawn": "open processes that they took part in, without them now",
    "renamed": "processes that are over, with a pseudonym now",
    "states": "states, positions and keys of plugins",
}


@dataclass(frozen=True, slots=True)
class _Done:
    community: str
    request: Request


@click.command()
@click.argument("account")
@click.option("--plugin", required=True, help="The platform whose account it is.")
@click.option("--community", help="In this community only; in all of them if not given.")
@click.option("--name", "names", multiple=True, help="A text to be taken out of what others wrote, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def forget(account: str, plugin: str, community: str | None, names: Sequence[str], as_json: bool) -> None:
    """Take ACCOUNT (the platform's id of a person) out of all that is kept of a community.

    That is mirrors, webhooks, events, processes and identities; it is not mirrored again. Archives get a new snapshot
    without it; those before cannot be changed, and the ones that still hold it are named. What cannot be done now is
    done by the worker.
    """

    async def work(gateway: Gateway) -> list[_Done]:
        spec = gateway.mirrors.spec(plugin)
        if spec is None:
            raise NotFound(f"there is no plugin {plugin!r} that mirrors its platform; `metagov plugins` lists them")
        found = await service.find_instances(gateway.mirrors, plugin, community)
        slugs = {instance.community_id: instance.community for instance in found}
        # All are written down before the first is begun: whatever happens here, none is lost.
        asked = [(slug, await ask(gateway.mirrors, each, spec, account, names)) for each, slug in slugs.items()]
        return [_Done(slug, await _watch(gateway, slug, request)) for slug, request in asked]

    done = run_on_gateway(work)
    if as_json:
        click.echo(json.dumps([_as_json(each) for each in done], indent=2))
        return
    for each in done:
        _show(each)


async def _watch(gateway: Gateway, slug: str, request_id: str) -> Request:
    """Carry it out, or look on while a worker does."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(slug, total=None)

        def say(what: str, done: int, known: int | None) -> None:
            far = f" {done:,}" + (f" of {known:,}" if known else "") if done else ""
            bar.update(task, description=f"{slug}: {what}{far}")

        async with asyncio.timeout(_PATIENCE_SECONDS):
            request = await forget_now(gateway.forgetting, request_id, say)
            while request.held_by_worker:
                await asyncio.sleep(_LOOK_SECONDS)
                request = await find_request(gateway.mirrors, request_id)
    return request


def _as_json(done: _Done) -> dict[str, Any]:
    request = done.request
    return {
        "community": done.community,
        "finished": request.finished,
        "waits": request.waits,
        **request.report.to_json(),
    }


def _show(done: _Done) -> None:
    console, report = Console(), done.request.report
    table = Table("Taken out", "", title=done.community)
    for name, count in sorted(report.rows.items()):
        table.add_row(f"{name}: rows", f"{count:,}")
    for name, what in _COUNTED.items():
        if count := getattr(report, name):
            table.add_row(what, f"{count:,}")
    if not table.row_count:
        table.add_row("nothing: there was nothing of it", "0")
    console.print(table)
    _show_archive(console, report)
    for note in report.notes:
        click.secho(note, fg="yellow")
    if not done.request.finished:
        left = done.request.waits or "a step has failed; the gateway's log names the reason"
        click.secho(f"Not finished, a worker goes on: {left}", fg="yellow")


def _show_archive(console: Console, report: ForgottenReport) -> None:
    for name, snapshot in sorted(report.snapshots.items()):
        click.echo(f"The newest snapshot of the archive {name}, {snapshot}, has nothing of them.")
    if not report.held:
        return
    table = Table(title="Archived snapshots that still hold them")
    for column in ("Number", "Snapshot", "Tables", "Archive"):
        # Nothing of an id or an address is cut off, however narrow the terminal is.
        table.add_column(column, overflow="fold")
    for held in report.held:
        tables = [f"{name} (damaged)" if name in held.unreadable else name for name in held.tables]
        number = f"{held.seq} (newest)" if held.newest else str(held.seq)
        table.add_row(number, held.snapshot, ", ".join(tables), f"{held.name} in {held.archive}")
    console.print(table)
