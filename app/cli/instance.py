"""`metagov instance …`: the operator's word about instances."""

from __future__ import annotations

import click
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.models import Community
from app.cli.driver import in_transaction
from app.core.errors import NotFound
from app.runtime.models import PlatformBinding


@click.group()
def instance() -> None:
    """Plugin instances."""


@instance.command()
@click.argument("community")
@click.argument("plugin")
@click.argument("platform_id")
def bind(community: str, plugin: str, platform_id: str) -> None:
    """Let COMMUNITY use PLATFORM_ID (a team, guild, installation) of PLUGIN under the deployment's own credentials."""

    async def work(session: AsyncSession) -> None:
        community_id = await session.scalar(
            select(Community.id).where(Community.slug == community, Community.deleted_at.is_(None))
        )
        if community_id is None:
            raise NotFound(f"there is no community with the slug {community!r}")
        await session.execute(
            insert(PlatformBinding)
            .values(community_id=community_id, plugin=plugin, community_platform_id=platform_id)
            .on_conflict_do_nothing()
        )

    in_transaction(work)
    click.echo(f"{community} may use {platform_id} of {plugin}.")
