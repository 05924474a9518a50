"""`metagov dev`: the whole gateway on one machine, with servers of its own unless real ones are named."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

import click
import httpx
from cryptography.fernet import Fernet
from rich.console import Console
from rich.panel import Panel

from app.cli.serve import migrate_mirrors, run_migrations
from app.cli.supervise import Command, run
from app.core.crypto import Vault, hash_api_key, new_api_key
from app.core.db import Database
from app.core.embedded import EmbeddedServer, EmbeddedServerError, Postgres, Valkey, revive_all, start_all, stop_all
from app.core.embedded.home import Lock
from app.core.settings import load_settings

_DRIVER = "dev"
_LEDGER = "dev.json"
_STOP_SECONDS = 1.5

Ledger = dict[str, str]
"""secret_keys, api_key, signing_secret, url: kept in the data dir."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--data-dir", default=".metagov", show_default=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--api-key", default="", help="The driver key to accept (default: generated once, kept in the data dir).")
@click.option("--reset", is_flag=True, help="Delete the data dir's contents first.")
def dev(host: str, port: int, data_dir: Path, api_key: str, reset: bool) -> None:
    """Run API and worker on embedded servers; Ctrl-C stops everything, the data stays."""
    try:
        code = _run(host, port, data_dir.absolute(), api_key, reset=reset)
    except EmbeddedServerError as error:
        raise click.ClickException(str(error)) from error
    sys.exit(code)


def _run(host: str, port: int, data_dir: Path, api_key: str, *, reset: bool) -> int:
    data_dir.mkdir(parents=True, exist_ok=True)
    lock = Lock(data_dir / "lock")
    lock.acquire()
    if reset:
        _empty(data_dir)
    ledger = _ledger(data_dir, api_key)
    _load_dotenv()
    servers: list[EmbeddedServer] = []
    if not os.environ.get("METAGOV_DATABASE_URL"):
        servers.append(Postgres(data_dir))
    if not os.environ.get("METAGOV_REDIS_URL"):
        servers.append(Valkey(data_dir))
    start_all(*servers)
    try:
        for server in servers:
            os.environ["METAGOV_DATABASE_URL" if isinstance(server, Postgres) else "METAGOV_REDIS_URL"] = server.url
        _set_defaults(host, port, data_dir, ledger)
        run_migrations()
        migrate_mirrors()
        url = f"http://{host}:{port}"
        ledger |= {"signing_secret": asyncio.run(_ensure_driver(ledger["api_key"])), "url": url}
        _keep(data_dir, ledger)
        return asyncio.run(
            run(
                [
                    Command("api", [sys.executable, "-m", "app.cli", "serve", "--host", host, "--port", str(port)]),
                    Command("worker", [sys.executable, "-m", "app.cli", "worker"]),
                ],
                ready=lambda: _is_ready(url),
                on_ready=lambda: _welcome(ledger, data_dir),
                upkeep=lambda: _revive(servers),
            )
        )
    finally:
        stop_all(*servers, timeout=_STOP_SECONDS)
        lock.release()


def _empty(data_dir: Path) -> None:
    """Delete all but the lock that we hold. Starting and stopping the servers once ends what an earlier run left."""
    for name in ("postgres", "valkey"):
        if (data_dir / name).exists():
            server: EmbeddedServer = Postgres(data_dir) if name == "postgres" else Valkey(data_dir)
            server.start()
            server.stop()
            shutil.rmtree(data_dir / name)
    (data_dir / _LEDGER).unlink(missing_ok=True)


def _ledger(data_dir: Path, api_key: str) -> Ledger:
    """The secrets of this data dir, made once."""
    path = data_dir / _LEDGER
    kept: Ledger = json.loads(path.read_text()) if path.exists() else {}
    kept["secret_keys"] = kept.get("secret_keys") or Fernet.generate_key().decode()
    kept["api_key"] = api_key or kept.get("api_key") or new_api_key()
    _keep(data_dir, kept)
    return kept


def _keep(data_dir: Path, ledger: Ledger) -> None:
    """Write the ledger, whole or not at all. The file is its owner's alone; examples and `metagov seed` read it."""
    fresh = data_dir / f"{_LEDGER}.new"
    fresh.touch(mode=0o600)
    fresh.write_text(json.dumps(ledger, indent=2) + "\n")
    fresh.replace(data_dir / _LEDGER)


def _load_dotenv() -> None:
    """Variables from `.env`, for this command only; what is set already wins."""
    from dotenv import dotenv_values

    for name, value in dotenv_values(".env").items():
        if name.startswith("METAGOV_") and value is not None:
            os.environ.setdefault(name, value)


def _set_defaults(host: str, port: int, data_dir: Path, ledger: Ledger) -> None:
    loopback = host in ("127.0.0.1", "localhost", "::1")
    # A key from outside encrypts from now on; what this data dir's own key has sealed stays readable.
    keys = [os.environ.get("METAGOV_SECRET_KEYS", ""), ledger["secret_keys"]]
    os.environ["METAGOV_SECRET_KEYS"] = ",".join(filter(None, keys))
    defaults = {
        "METAGOV_PUBLIC_URL": f"http://{host}:{port}",
        "METAGOV_ALLOW_PRIVATE_NETWORKS": "true",
        "METAGOV_METRICS_OPEN": "true" if loopback else "false",
        "METAGOV_ARCHIVE_URL": (data_dir.resolve() / "archives").as_uri(),
        "METAGOV_GRAPH_DIR": str(data_dir.resolve() / "graphs"),
        "METAGOV_LOG_FORMAT": "console",
        "METAGOV_LOG_LEVEL": "warning",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


async def _ensure_driver(api_key: str) -> str:
    """The dev driver with this key, made when missing; returns its signing secret."""
    from app.accounts import service
    from app.core.errors import NotFound

    settings = load_settings()
    vault = Vault(settings.fernet_keys)
    async with Database(settings) as db, db.begin() as session:
        try:
            driver = await service.find_driver(session, _DRIVER)
        except NotFound:
            return (await service.create_driver(session, vault, _DRIVER, api_key=api_key)).signing_secret
        keys = await service.list_keys(session, driver.id)
        if not any(key.hash == hash_api_key(api_key) and key.revoked_at is None for key in keys):
            await service.add_key(session, driver.id, api_key)
        return str(vault.open(driver.signing_secret))


async def _is_ready(url: str) -> bool:
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
            return (await client.get(f"{url}/readyz")).status_code == 200
    except httpx.TransportError:
        return False


def _revive(servers: list[EmbeddedServer]) -> None:
    for name in revive_all(*servers):
        click.secho(f"{name} ended and was started again", fg="yellow", err=True)


def _welcome(ledger: Ledger, data_dir: Path) -> None:
    url, api_key = ledger["url"], ledger["api_key"]
    console = Console(highlight=False, soft_wrap=True)
    facts = (
        f"[bold]URL[/]             {url}     docs at {url}/docs\n"
        f"[bold]API key[/]         {api_key}\n"
        f"[bold]Signing secret[/]  {ledger['signing_secret']}\n"
        f"[bold]Data[/]            {data_dir}"
    )
    console.print(Panel(facts, title="Metagov Gateway is ready", border_style="green", expand=False))
    auth = f"-H 'Authorization: Bearer {api_key}'"
    json_body = "-H 'Content-Type: application/json'"
    die = {"name": "randomness", "config": {"default_low": 1, "default_high": 6}}
    demo = json.dumps({"readable_name": "Demo", "plugins": [die]})
    community = "-H 'X-Metagov-Community: demo'"
    console.print("\nTry:\n", markup=False)
    for line in (
        f"curl -X PUT {url}/api/internal/community/demo {auth} {json_body} -d '{demo}'",
        f"curl -X POST {url}/api/action/randomness.random-int {auth} {community} {json_body} -d '{{}}'",
        f"curl {url}/api/internal/events {auth}",
    ):
        console.print(f"  {line}\n", markup=False)
    console.print("Ctrl-C stops everything; the data stays.", markup=False)
    sys.stdout.flush()
