"""The plugin: one forum, its webhooks in and its pages read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import httpx
from pydantic import ValidationError

from metagov_sdk import HookRequest, NoSettings, Plugin, Rejected, Unauthorized, config, hmac_sha256, webhook
from metagov_sdk.limits import Limit
from metagov_sdk.plugin import AuthType
from plugins.discourse.api import Refused, ask
from plugins.discourse.models import DiscourseConfig, DiscourseEvent
from plugins.discourse.payloads import answer, author, dedupe, initiator, marks, read_notice


class Discourse(Plugin[DiscourseConfig]):
    """Discourse: what happens in a forum, as events, and a mirror of its topics, posts, likes and people."""

    name = "discourse"
    auth_type: ClassVar[AuthType] = "api_key"

    @classmethod
    def platform_id(cls, config: DiscourseConfig) -> str | None:
        """The forum's address."""
        return config.server_url

    @classmethod
    def base_url(cls, config: DiscourseConfig, settings: NoSettings) -> str:
        """The forum's address."""
        return config.server_url

    @property
    def limit_owner(self) -> str:
        """The forum: it counts the requests of all its admin keys together."""
        return self.config.server_url

    def limits(self, request: httpx.Request) -> Sequence[Limit]:
        """60 a minute by default, in fixed windows, so burst and rate together make no more.

        Source: https://meta.discourse.org/t/available-settings-for-global-rate-limits-and-throttling/78612
        """
        allowed = self.config.requests_per_minute
        burst = max(1, allowed // 6)
        return [Limit("admin-api", rate=allowed - burst, per=60, burst=burst)]

    async def authenticate(self, request: httpx.Request) -> None:
        """Add the key, and in whose name it is used."""
        request.headers["Api-Key"] = self.config.api_key.get_secret_value()
        request.headers["Api-Username"] = self.config.api_username

    async def ask(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """The forum's answer to a GET; see `api.ask` for what it raises.

        A void key is answered like a page that the key may not see, in words that differ by language. So after a 403
        the list of categories is asked for, which every key may see: if that is refused, it is the key.
        """
        try:
            return await ask(self.http, path, query)
        except Refused as error:
            if error.status != 403:
                raise
            await self._check_key()
            raise

    async def _check_key(self) -> None:
        try:
            await ask(self.http, "categories.json")
        except Refused as error:
            if error.status != 403:
                raise
            raise Unauthorized(
                "the forum does not accept the API key, or not for api_username: make a new one in its admin pages"
            ) from None

    @webhook(
        verify=hmac_sha256(config("webhook_secret"), header="X-Discourse-Event-Signature"),
        dedupe=dedupe,
        reply=answer,
        # The forum signs the body alone: under another event's name a captured one would pass for news.
        flag_repeats=True,
    )
    async def hear(self, request: HookRequest) -> None:
        """Every webhook becomes one event, and marks what it is about for the mirror to read again."""
        notice = read_notice(request)
        try:
            event = DiscourseEvent(kind=notice.event, data=notice.object)
        except ValidationError as error:
            raise Rejected("the webhook's body is nested too deeply") from error
        person = author(notice)
        if person is not None:
            self.accounts.link(person[0], custom_data={"username": person[1]})
        self.emit(event, initiator=initiator(notice, self.config.api_username), key=dedupe(request))
        for mark in marks(notice):
            self.emit(mark)
