"""`metagov plugins`, `metagov plugin new`, `metagov openapi`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from app.core.settings import Settings
from app.host.discovery import discover


@click.command()
def plugins() -> None:
    """List every discovered plugin: version, actions, processes, events, webhooks, problems."""
    found = discover()
    table = Table("Plugin", "Package", "Actions", "Processes", "Events", "Webhooks", title="Plugins")
    for name, loaded in found.loaded.items():
        manifest = loaded.manifest
        table.add_row(
            f"[bold]{name}[/]",
            f"{loaded.distribution} {loaded.version}",
            "\n".join(manifest.actions),
            "\n".join(manifest.processes),
            "\n".join(event.event_type for event in manifest.events),
            "\n".join(slug or "(default)" for slug in manifest.webhooks),
        )
    console = Console()
    console.print(table)
    for broken in found.broken:
        console.print(f"[red]{broken.name}[/] ({broken.distribution}) could not be loaded: ", broken.reason, sep="")
    if found.broken:
        sys.exit(1)


@click.group()
def plugin() -> None:
    """Write plugins."""


@plugin.command()
@click.argument("name")
@click.option("--directory", type=click.Path(path_type=Path, file_okay=False), help="Default: metagov-plugin-NAME.")
def new(name: str, directory: Path | None) -> None:
    """Write a new plugin package called NAME, with tests that pass."""
    from metagov_sdk.scaffold import write_plugin

    target = directory or Path(f"metagov-plugin-{name}")
    try:
        written = write_plugin(name, target)
    except (ValueError, FileExistsError) as error:
        raise click.ClickException(str(error)) from error
    for path in written:
        click.echo(f"  {path}")
    click.echo(f"\nNext:  cd {target} && pip install -e . && pytest")


@click.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    from app.main import create_app

    api = create_app(Settings(secret_keys=_any_key(), log_level="error"))
    json.dump(api.openapi(), sys.stdout, indent=2)
    click.echo()


def _any_key() -> str:
    """The document needs no secrets, creating the app does."""
    from cryptography.fernet import Fernet

    return Fernet.generate_key().decode()
