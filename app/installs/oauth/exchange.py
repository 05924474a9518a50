"""The driver's exchange of a one-time code: only now anything is enabled, bound or linked."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import asyncpg
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.auth import CommunityRef
from app.accounts.models import Community
from app.core.errors import Conflict, NotFound
from app.core.ids import new_id
from app.host.binding import InstanceData
from app.identity.links import Account, link_all
from app.installs.communities import live_rows, lock, lock_or_create
from app.installs.installer import Installer
from app.installs.oauth import grants
from app.installs.oauth.grants import Grant
from app.installs.oauth.schemas import ExchangeOut, OAuthUserOut
from app.installs.oauth.visits import OAuthFlow
from app.installs.passes import Prepared, apply_wanted, in_passes
from app.installs.plan import Wanted
from app.runtime.credentials import NewCredential, keep
from app.runtime.models import Credential, Instance, PlatformBinding
from metagov_sdk import AccountLink, Credentials, Installed, Mint, OAuthUser, SignedIn, Token
from metagov_sdk.credentials import UsedCredential


async def exchange(flow: OAuthFlow, driver_id: str, code: str) -> ExchangeOut:
    """Enable what a person installed, or link who signed in; the code is used up when that is done.

    Raises NotFound for a code that is none of this driver's, Conflict `wrong-workspace`, and what enabling a plugin
    raises; the code stays good then.
    """
    db = flow.installer.db
    grant = await grants.take(db, flow.installer.vault, driver_id, code)
    try:
        if isinstance(grant.given, Installed):
            return await _install(flow.installer, driver_id, grant, grant.given)
        async with db.begin() as session:
            answer = await _sign_in(session, grant, grant.given)
            await grants.use_up(session, grant)
        return answer
    except BaseException:
        with contextlib.suppress(asyncpg.PostgresError, OSError):
            await grants.give_back(db, grant)
        raise


async def _install(installer: Installer, driver_id: str, grant: Grant, given: Installed) -> ExchangeOut:
    slug = new_id("community").replace("_", "-")

    async def write(session: AsyncSession, prepared: Prepared) -> ExchangeOut:
        if grant.community_id is None:
            community, _ = await lock_or_create(session, driver_id, slug, "")
        else:
            community = await lock(session, grant.community_id)
        wanted = _wanted(grant.plugin, given, await live_rows(session, community.id))
        await _bind(session, community, grant.plugin, given.community_platform_id)
        planned, _ = await apply_wanted(session, installer, driver_id, community, [wanted], prepared, whole_set=False)
        instance_id = planned[0].after.id
        await _keep(session, installer, instance_id, given)
        user = await _link(session, community, grant.plugin, given.user, given.community_platform_id)
        await grants.use_up(session, grant)
        return ExchangeOut(
            plugin=grant.plugin,
            type="app",
            community=community.slug,
            community_platform_id=given.community_platform_id,
            instance=instance_id,
            scopes=list(given.scopes),
            user=user,
        )

    def credentials(instance: InstanceData) -> Credentials:
        return _Granted(given.credentials, installer.host.credentials(instance))

    return await in_passes(installer, write, Prepared(credentials=credentials))


def _wanted(plugin: str, given: Installed, rows: Sequence[Instance]) -> Wanted:
    """The instance that an install is for. Raises Conflict when the community's is another workspace's."""
    own = {row.community_platform_id: row for row in rows if row.plugin == plugin}
    row = own.get(given.community_platform_id)
    if row is None and set(own) - {""}:
        raise Conflict(
            f"the community is connected with {sorted(set(own) - {''})[0]!r} of {plugin}, and this install is of "
            f"{given.community_platform_id!r}; delete that instance first, or use another community",
            slug="wrong-workspace",
        )
    # One that was enabled before anybody knew its workspace becomes this one's.
    row = row or own.get("")
    return Wanted(
        plugin, dict(given.config), given.community_platform_id, instance_id=row.id if row else None, renewed=True
    )


async def _bind(session: AsyncSession, community: CommunityRef, plugin: str, platform_id: str) -> None:
    binding = {"community_id": community.id, "plugin": plugin, "community_platform_id": platform_id}
    await session.execute(insert(PlatformBinding).values(**binding).on_conflict_do_nothing())


async def _keep(session: AsyncSession, installer: Installer, instance_id: str, given: Installed) -> None:
    await session.execute(
        delete(Credential).where(
            Credential.instance_id == instance_id,
            Credential.source == "oauth",
            Credential.name.not_in(list(given.credentials)),
        )
    )
    new = [NewCredential(instance_id, name, "oauth", token) for name, token in given.credentials.items()]
    await keep(session, installer.vault, new)


async def _sign_in(session: AsyncSession, grant: Grant, given: SignedIn) -> ExchangeOut:
    found = await session.scalar(
        select(Community)
        .where(Community.id == grant.community_id, Community.deleted_at.is_(None))
        .with_for_update(read=True, key_share=True)
    )
    if found is None:
        raise NotFound("the community has just been deleted")
    community = CommunityRef(found.id, found.slug, found.readable_name)
    rows = await session.scalars(
        select(Instance)
        .where(
            Instance.community_id == community.id,
            Instance.plugin == grant.plugin,
            Instance.status != "disabled",
            Instance.deleted_at.is_(None),
        )
        .order_by(Instance.id)
    )
    workspace = given.user.community_platform_id
    enabled = list(rows)
    meant = [row for row in enabled if workspace is None or row.community_platform_id == workspace]
    if not enabled:
        raise NotFound(f"the plugin {grant.plugin!r} is not enabled for this community")
    if not meant:
        raise Conflict(
            f"the person signed in to {workspace!r} of {grant.plugin}, which is not the community's",
            slug="wrong-workspace",
        )
    return ExchangeOut(
        plugin=grant.plugin,
        type="user",
        community=community.slug,
        community_platform_id=workspace or (meant[0].community_platform_id or None if len(meant) == 1 else None),
        instance=meant[0].id if len(meant) == 1 else None,
        scopes=list(given.scopes),
        user=await _link(session, community, grant.plugin, given.user, workspace),
    )


async def _link(
    session: AsyncSession, community: CommunityRef, plugin: str, user: OAuthUser | None, workspace: str | None
) -> OAuthUserOut | None:
    """Link the account of somebody who proved that it is theirs; without a workspace, for the platform as a whole."""
    if user is None:
        return None
    account = Account(community.id, plugin, user.community_platform_id or workspace or "", user.user_id)
    link = AccountLink(user.user_id, None, "oauth", "confirmed (strong)", grants.account_data(user) or None)
    held = (await link_all(session, [(account, link)]))[account]
    return OAuthUserOut(user_id=user.user_id, provider=plugin, name=user.name, external_id=held.primary_id)


class _Granted:
    """What `setup` finds while its install is not committed: the tokens just given, and what is stored besides."""

    def __init__(self, given: Mapping[str, Token], stored: Credentials) -> None:
        self._given = given
        self._stored = stored

    async def read(self, name: str, mint: Mint | None) -> str:
        if name in self._given:
            return self._given[name].access_token
        return await self._stored.read(name, mint)

    async def invalidate(self, used: UsedCredential) -> bool:
        return used.name not in self._given and await self._stored.invalidate(used)
