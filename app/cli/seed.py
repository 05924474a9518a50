"""`metagov seed`: a demo community on the running dev server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import httpx
from rich.console import Console

_COMMUNITY = "demo"
_BODY = {
    "name": _COMMUNITY,
    "readable_name": "Demo community",
    "plugins": [{"name": "randomness", "config": {"default_low": 1, "default_high": 6}}],
}


@click.command()
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="The running gateway.")
@click.option("--data-dir", default=".metagov", show_default=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--api-key", default="", help="Default: the one that `metagov dev` keeps in the data dir.")
def seed(url: str, data_dir: Path, api_key: str) -> None:
    """Create the community "demo", roll a die, and start a vote by lot that closes in six seconds."""
    key = api_key or _kept_key(data_dir)
    console = Console(highlight=False)
    with httpx.Client(
        base_url=url,
        headers={"Authorization": f"Bearer {key}", "X-Metagov-Community": _COMMUNITY},
        trust_env=False,
        timeout=20,
    ) as client:
        _call(client, "PUT", f"/api/internal/community/{_COMMUNITY}", _BODY)
        console.print(f"[green]✓[/] community [bold]{_COMMUNITY}[/] with the plugin randomness")
        rolled = _call(client, "POST", "/api/action/randomness.random-int", {"parameters": {}})
        console.print(f"[green]✓[/] randomness.random-int rolled [bold]{rolled['value']}[/]")
        vote = {"options": ["tea", "coffee", "water"], "delay": 0.1}
        started = _call(client, "POST", "/api/internal/process/randomness.delayed-stochastic-vote", vote)
        console.print(f"[green]✓[/] process [bold]{started['id']}[/] closes in six seconds; watch it with")
        console.print(
            f"  curl {url}/api/internal/process/{started['name']}/{started['id']} "
            f"-H 'Authorization: Bearer {key}' -H 'X-Metagov-Community: {_COMMUNITY}'",
            markup=False,
            soft_wrap=True,
        )


def _kept_key(data_dir: Path) -> str:
    try:
        return str(json.loads((data_dir / "dev.json").read_text())["api_key"])
    except OSError as error:
        raise click.ClickException(f"no key in {data_dir}: start `metagov dev` first, or pass --api-key") from error


def _call(client: httpx.Client, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        answer = client.request(method, path, json=body)
    except httpx.TransportError as error:
        raise click.ClickException(f"the gateway does not answer at {client.base_url}: start `metagov dev`") from error
    if answer.is_error:
        raise click.ClickException(f"{method} {path}: {answer.json().get('detail', answer.text)}")
    result: dict[str, Any] = answer.json()
    return result
