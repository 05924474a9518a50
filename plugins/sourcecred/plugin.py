"""The plugin: public actions over a SourceCred instance's accounts file."""

from __future__ import annotations

from metagov_sdk import NoSettings, Plugin, action
from plugins.sourcecred.fetch import Kept, current_accounts
from plugins.sourcecred.models import (
    AccountCred,
    Cred,
    Nothing,
    SourceCredConfig,
    TopAccounts,
    TopAccountsParams,
    UserCredParams,
    WeeklyCred,
    WeeklyCredParams,
)


class SourceCred(Plugin[SourceCredConfig]):
    """SourceCred: how much cred people have earned, read from the community's SourceCred instance."""

    name = "sourcecred"

    @classmethod
    def platform_id(cls, config: SourceCredConfig) -> str | None:
        """The server's address."""
        return config.server_url

    @classmethod
    def base_url(cls, config: SourceCredConfig, settings: NoSettings) -> str:
        """The server's address."""
        return config.server_url

    @action("user-cred", public=True)
    async def user_cred(self, params: UserCredParams) -> Cred:
        """All the cred that a person has earned."""
        kept = await self._kept()
        return Cred(value=kept.accounts.find(params).total_cred, age_seconds=kept.age(self.now))

    @action("total-cred", public=True)
    async def total_cred(self, params: Nothing) -> Cred:
        """All the cred in the community."""
        kept = await self._kept()
        return Cred(value=kept.accounts.total(), age_seconds=kept.age(self.now))

    @action("weekly-cred", public=True)
    async def weekly_cred(self, params: WeeklyCredParams) -> WeeklyCred:
        """Cred per week, of a person or of the whole community."""
        kept = await self._kept()
        somebody = params.username is not None or params.id is not None
        accounts = [kept.accounts.find(params)] if somebody else kept.accounts.accounts
        return WeeklyCred(weeks=kept.accounts.weeks(accounts, params.weeks), age_seconds=kept.age(self.now))

    @action("top-accounts", public=True)
    async def top_accounts(self, params: TopAccountsParams) -> TopAccounts:
        """The accounts with the most cred, in order; equals by name."""
        kept = await self._kept()
        ranked = sorted(kept.accounts.accounts, key=lambda item: (-item.total_cred, item.account.identity.name))
        top = [
            AccountCred(id=item.account.identity.id, name=item.account.identity.name, value=item.total_cred)
            for item in ranked[: params.limit]
        ]
        return TopAccounts(accounts=top, age_seconds=kept.age(self.now))

    async def _kept(self) -> Kept:
        return await current_accounts(self.http, self.config.server_url, self.now)
