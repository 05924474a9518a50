"""`metagov graph …`: building graphs, getting them out, and looking at them."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sqlite3
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.cli.of_instance import find_community, of_instance
from app.cli.on_gateway import run_on_gateway
from app.cli.watching import LOOK_SECONDS, progress_bar, working
from app.core.errors import NotFound
from app.gateway import Gateway
from app.graphs import service
from app.graphs.builds import build_due
from app.graphs.files import GraphFiles
from app.graphs.picture import draw, plain_label
from app.graphs.reader import Index, Top, open_index
from app.graphs.service import GraphStatus
from app.graphs.shares import FILES
from app.host.binding import InstanceData

ResultT = TypeVar("ResultT")


@click.group()
def graph() -> None:
    """Graphs that rule sets make of archives: build them, get them out, look at their top."""


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else.")


@graph.command()
@of_instance
@_as_json
def build(community: str, plugin: str, platform_id: str | None, as_json: bool) -> None:
    """Build COMMUNITY's graph by PLUGIN's rules, and show how far it is. Works beside running workers, or alone."""

    async def work(gateway: Gateway) -> GraphStatus:
        instance = await _find(gateway, community, plugin, platform_id)
        asked = await service.ask_for_build(gateway.graphs, instance)
        async with working(lambda: build_due(gateway.graphs)):
            return await _watch(gateway, instance, asked)

    status = _run(work)
    if as_json:
        click.echo(json.dumps(_plain(status)))
    if status.state != "built" or status.put_off:
        raise click.ClickException(status.error or "it was not built")
    if not as_json:
        built = f"{status.nodes:,} nodes and {status.edges:,} edges"
        click.secho(f"{built}, from the snapshot {status.snapshot}", fg="green")


async def _watch(gateway: Gateway, instance: InstanceData, status: GraphStatus) -> GraphStatus:
    """Show a bar until nothing is due or in hand."""
    with progress_bar(instance.plugin) as show:
        while status.due or status.state == "building":
            await asyncio.sleep(LOOK_SECONDS)
            status = await service.status(gateway.graphs, instance)
            said = status.progress
            if said is not None:
                show(f"{instance.plugin}: {said['step']}", said["done"], said["total"])
            if status.put_off:
                # Put off: whoever waits at a terminal hears why, rather than of the next try.
                break
    return status


@graph.command()
@of_instance
@click.option("--to", required=True, type=click.Path(path_type=Path, file_okay=False), help="A folder.")
def export(community: str, plugin: str, platform_id: str | None, to: Path) -> None:
    """Write the three files that were built last, byte for byte as shares serve them."""

    async def work(gateway: Gateway) -> list[Path]:
        status, files = await _built(gateway, community, plugin, platform_id)
        return await asyncio.to_thread(_export, files, status.files or {}, to)

    for path in _run(work):
        click.echo(path)


def _export(files: GraphFiles, built: dict[str, Any], to: Path) -> list[Path]:
    """All of them, or none: each is written whole under another name first."""
    to.mkdir(parents=True, exist_ok=True)
    fresh: list[tuple[Path, Path]] = []
    try:
        for name, kind in FILES.items():
            path = to / f".{name}.{os.getpid()}"
            fresh.append((path, to / name))
            with path.open("wb") as file:
                for piece in files.read_packed(built[kind]["sha256"]):
                    file.write(piece)
        for path, target in fresh:
            path.replace(target)
    finally:
        for path, _ in fresh:
            path.unlink(missing_ok=True)
    return [target for _, target in fresh]


@graph.command()
@of_instance
@click.option("--top", "count", default=15, show_default=True, type=click.IntRange(1, 100), help="How many nodes.")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Also draw the top: an SVG file.")
@_as_json
def stats(
    community: str, plugin: str, platform_id: str | None, count: int, picture: Path | None, as_json: bool
) -> None:
    """Show what is in the graph that was built last: types, weights, its top."""

    async def work(gateway: Gateway) -> dict[str, Any]:
        status, files = await _built(gateway, community, plugin, platform_id)
        path = files.path((status.files or {})["index"])
        found, top = await asyncio.to_thread(_read, path, count)
        if picture is not None:
            svg = draw(top, f"{community}: {plugin}")
            await asyncio.to_thread(picture.write_text, svg, "utf-8")
        return {**_plain(status), **found}

    found = _run(work)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        _show(found)


def _read(path: Path, count: int) -> tuple[dict[str, Any], Top]:
    with open_index(path) as index:
        return _figures(index, count), index.picture(max(count, 40))


def _figures(index: Index, count: int) -> dict[str, Any]:
    return {
        "node_types": [dataclasses.asdict(each) for each in index.node_types()],
        "edge_types": [dataclasses.asdict(each) for each in index.edge_types()],
        "top": [node.model_dump(mode="json") for node in index.top(None, count)],
    }


def _show(found: dict[str, Any]) -> None:
    console = Console()
    console.print(f"{found['nodes']:,} nodes, {found['edges']:,} edges, built {found['built_at'] or '?'}")
    nodes = Table("Nodes", "Count", "Weight", title_justify="left")
    for each in found["node_types"]:
        nodes.add_row(escape(each["name"]), f"{each['count']:,}", f"{each['weight']:,.4g}")
    edges = Table("Edges", "Count", "Forwards", "Backwards")
    for each in found["edge_types"]:
        weights = f"{each['weight']:,.4g}", f"{each['backwards']:,.4g}"
        edges.add_row(escape(each["name"]), f"{each['count']:,}", *weights)
    top = Table("Top", "Type", "Inflow", "Edges", "Weight")
    for each in found["top"]:
        label = plain_label(each["label"]) or "/".join(each["address"])
        figures = f"{each['inflow']:,.4g}", f"{each['edges']:,}", f"{each['weight']:,.4g}"
        top.add_row(escape(label), escape(each["type"] or ""), *figures)
    for table in (nodes, edges, top):
        console.print(table)


def _plain(status: GraphStatus) -> dict[str, Any]:
    return {
        "name": status.name,
        "state": status.state,
        "error": status.error,
        "snapshot": status.snapshot,
        "built_at": status.built_at.isoformat() if status.built_at else None,
        "nodes": status.nodes,
        "edges": status.edges,
    }


async def _built(
    gateway: Gateway, community: str, plugin: str, platform_id: str | None
) -> tuple[GraphStatus, GraphFiles]:
    instance = await _find(gateway, community, plugin, platform_id)
    status = await service.status(gateway.graphs, instance)
    if status.files is None:
        reason = f": {status.error}" if status.error else f"; `metagov graph build {community} {plugin}` builds it"
        raise NotFound(f"the graph is not built yet{reason}")
    return status, gateway.graphs.require_files()


async def _find(gateway: Gateway, community: str, plugin: str, platform_id: str | None) -> InstanceData:
    community_id = await find_community(gateway.db.pool, community)
    return await service.find_instance(gateway.graphs, community_id, plugin, platform_id)


def _run(work: Callable[[Gateway], Awaitable[ResultT]]) -> ResultT:
    async def with_files(gateway: Gateway) -> ResultT:
        try:
            return await work(gateway)
        except (sqlite3.Error, zlib.error) as error:
            raise click.ClickException(f"a file of the graph cannot be read ({error}); build it again") from error
        except OSError as error:
            if error.filename is None:
                raise
            raise click.ClickException(_said(error, gateway.settings.graph_dir)) from error

    return run_on_gateway(with_files)


def _said(error: OSError, graph_dir: str) -> str:
    path = Path(os.fsdecode(error.filename))
    if isinstance(error, FileNotFoundError) and path.is_relative_to(Path(graph_dir).resolve()):
        return f"a file of the graph is not there: is METAGOV_GRAPH_DIR ({graph_dir}) the workers' folder?"
    return f"{path}: {error.strerror}"
