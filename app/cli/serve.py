"""`metagov serve`, `metagov worker`, `metagov migrate`."""

from __future__ import annotations

import gc
from importlib.resources import files

import click
from starlette.types import ASGIApp

from app.core.settings import load_settings

_GARBAGE = 10_000
"""How many objects more than were freed before the collector looks at the young ones: a request leaves few cycles."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="API processes.")
def serve(host: str, port: int, workers: int) -> None:
    """Run the API on the Postgres and Redis that METAGOV_DATABASE_URL and METAGOV_REDIS_URL name."""
    import uvicorn

    require_settings()
    uvicorn.run(
        "app.cli.serve:make_app",
        factory=True,
        http="app.core.quick_posts:QuickPostsProtocol",
        host=host,
        port=port,
        workers=workers,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # create_app reads them, past which webhooks go
        timeout_graceful_shutdown=5,
    )


def make_app() -> ASGIApp:
    """The application of one API process."""
    from app.main import create_app

    api = create_app()
    # What is built by now stays: the garbage collector need not walk it again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE)
    return api


@click.command()
def worker() -> None:
    """Run a worker: webhooks' handlers, deliveries, processes, polls, schedules."""
    require_settings()
    from app.worker import main

    main()


@click.command()
def migrate() -> None:
    """Bring the database's schema up to date, and the tables that plugins mirror platforms into."""
    require_settings(redis=False)
    run_migrations()
    refused = migrate_mirrors()
    for provider, reason in refused.items():
        click.secho(f"{provider} cannot be mirrored as it is: {reason}", fg="red", err=True)
    if refused:
        raise SystemExit(1)
    click.echo("The database is up to date.")


def run_migrations() -> None:
    """Apply every migration that is missing to the database of METAGOV_DATABASE_URL."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(files("migrations")).replace("%", "%%"))
    command.upgrade(config, "head")


def migrate_mirrors() -> dict[str, str]:
    """Make and extend the tables of the installed plugins' providers. Returns the providers refused, and why."""
    import asyncio

    from app.core.db import Database
    from app.host.discovery import discover
    from app.mirrors.schema import Migrated, apply_schemas

    manifests = [loaded.manifest for loaded in discover().loaded.values()]
    specs = [manifest.provider for manifest in manifests if manifest.provider is not None]

    async def work() -> Migrated:
        async with Database(load_settings()) as db:
            return await apply_schemas(db, specs)

    return asyncio.run(work()).refused


def require_settings(*, redis: bool = True) -> None:
    """Stop with the mend when a setting that these commands need is missing."""
    settings = load_settings()
    missing = (
        [] if settings.database_url else ["METAGOV_DATABASE_URL (a Postgres, postgresql://user:password@host/name)"]
    )
    if redis and not settings.redis_url:
        missing.append("METAGOV_REDIS_URL (a Redis or Valkey, redis://host:6379)")
    if redis and not settings.fernet_keys:
        missing.append("METAGOV_SECRET_KEYS (one or more Fernet keys)")
    if missing:
        raise click.ClickException("set " + ", ".join(missing) + "; or run `metagov dev`, which brings its own servers")
