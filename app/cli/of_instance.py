"""Commands about one instance: the arguments that name it, and its community."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from app.core.db import Pool
from app.core.errors import NotFound

CommandT = TypeVar("CommandT", bound=Callable[..., object])


def of_instance(command: CommandT) -> CommandT:
    """Add the arguments COMMUNITY and PLUGIN, and the option --platform-id."""
    for decorate in (
        click.option("--platform-id", help="Which instance, where the community has several of the plugin."),
        click.argument("plugin"),
        click.argument("community"),
    ):
        command = decorate(command)
    return command


async def find_community(pool: Pool, slug: str) -> str:
    """The id of a community. Raises NotFound."""
    found: str | None = await pool.fetchval("SELECT id FROM communities WHERE slug = $1 AND deleted_at IS NULL", slug)
    if found is None:
        raise NotFound(f"there is no community with the slug {slug!r}")
    return found
