"""`metagov driver …`: accounts of governance engines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click
from rich.console import Console
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts import service
from app.core.crypto import Vault
from app.core.db import Database
from app.core.settings import load_settings

ResultT = TypeVar("ResultT")


@click.group()
def driver() -> None:
    """Create drivers, their API keys and their OAuth redirect URIs."""


@driver.command()
@click.argument("name")
def create(name: str) -> None:
    """Create a driver; prints its API key and signing secret, once."""

    async def work(session: AsyncSession) -> service.NewDriver:
        return await service.create_driver(session, Vault(load_settings().fernet_keys), name)

    made = in_transaction(work)
    click.echo(f"Driver          {made.name} ({made.id})")
    click.echo(f"API key         {made.api_key}")
    click.echo(f"Signing secret  {made.signing_secret}")
    click.secho("Neither can be shown again: keep them now.", fg="yellow", err=True)


@driver.command(name="list")
def list_() -> None:
    """List the drivers."""
    table = Table("Name", "Id", "Keys in force", "Created")
    for row, keys in in_transaction(service.list_drivers):
        table.add_row(row.name, row.id, str(keys), f"{row.created_at:%Y-%m-%d %H:%M}")
    Console().print(table)


@driver.group()
def key() -> None:
    """API keys of a driver: several at a time, so that they can be rotated."""


@key.command(name="add")
@click.argument("name")
def key_add(name: str) -> None:
    """Add a key; prints it, once."""

    async def work(session: AsyncSession) -> str:
        return await service.add_key(session, (await service.find_driver(session, name)).id)

    click.echo(in_transaction(work))


@key.command(name="list")
@click.argument("name")
def key_list(name: str) -> None:
    """List a driver's keys by their first characters."""

    async def work(session: AsyncSession) -> list[tuple[str, ...]]:
        keys = await service.list_keys(session, (await service.find_driver(session, name)).id)
        return [
            (key.id, f"{key.hint}…", f"{key.created_at:%Y-%m-%d %H:%M}", "revoked" if key.revoked_at else "in force")
            for key in keys
        ]

    table = Table("Id", "Key", "Created", "Status")
    for row in in_transaction(work):
        table.add_row(*row)
    Console().print(table)


@key.command(name="revoke")
@click.argument("name")
@click.argument("key_id")
def key_revoke(name: str, key_id: str) -> None:
    """Revoke a key, at once."""

    async def work(session: AsyncSession) -> None:
        await service.revoke_key(session, (await service.find_driver(session, name)).id, key_id)

    in_transaction(work)
    click.echo("Revoked.")


@driver.group()
def redirect() -> None:
    """Where OAuth may send people back to."""


@redirect.command(name="add")
@click.argument("name")
@click.argument("uri")
def redirect_add(name: str, uri: str) -> None:
    """Register a redirect URI."""

    async def work(session: AsyncSession) -> None:
        await service.add_redirect(session, (await service.find_driver(session, name)).id, uri)

    in_transaction(work)
    click.echo("Registered.")


@redirect.command(name="list")
@click.argument("name")
def redirect_list(name: str) -> None:
    """List a driver's redirect URIs."""

    async def work(session: AsyncSession) -> list[str]:
        return list(await service.list_redirects(session, (await service.find_driver(session, name)).id))

    for uri in in_transaction(work):
        click.echo(uri)


@redirect.command(name="remove")
@click.argument("name")
@click.argument("uri")
def redirect_remove(name: str, uri: str) -> None:
    """Take a redirect URI away."""

    async def work(session: AsyncSession) -> None:
        await service.remove_redirect(session, (await service.find_driver(session, name)).id, uri)

    in_transaction(work)
    click.echo("Removed.")


def in_transaction(work: Callable[[AsyncSession], Awaitable[ResultT]]) -> ResultT:
    """Run `work` in one transaction on the configured database. Stops with the mend when it cannot be reached."""

    async def run() -> ResultT:
        async with Database(load_settings()) as db, db.begin() as session:
            return await work(session)

    try:
        return asyncio.run(run())
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"the database cannot be reached ({error}); check METAGOV_DATABASE_URL") from error
