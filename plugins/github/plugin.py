"""The plugin: GitHub's webhooks as events."""

from __future__ import annotations

from pydantic import ValidationError

from metagov_sdk import HookRequest, NoState, Plugin, Rejected, by_header, config, hmac_sha256, setting, webhook
from plugins.github.models import GithubConfig, GithubEvent, GithubSettings
from plugins.github.payloads import answer, end_of_access, event_kind, initiator, installations, read_payload

_DELIVERY = "X-GitHub-Delivery"


class Github(Plugin[GithubConfig, NoState, GithubSettings]):
    """GitHub: issues, pull requests, pushes and all else that a GitHub App hears of, as events."""

    name = "github"

    @classmethod
    def platform_id(cls, config: GithubConfig) -> str | None:
        """The installation's id."""
        return None if config.installation_id is None else str(config.installation_id)

    @classmethod
    def needs_binding(cls, config: GithubConfig) -> bool:
        """Under the deployment's secret, an installation's webhooks go only to who has proved it is theirs."""
        return config.webhook_secret is None

    @webhook(
        verify=hmac_sha256(config("webhook_secret") | setting("webhook_secret")),
        dedupe=by_header(_DELIVERY),
        reply=answer,
        shared=True,
        locate=installations,
        # GitHub signs the body alone: under another delivery id a captured one would pass for news.
        flag_repeats=True,
    )
    async def hear(self, request: HookRequest) -> None:
        """Every webhook becomes one event; where it ends the app's access, that disables the instance.

        A redelivery has the first delivery's id and is dropped.
        """
        payload = read_payload(request)
        kind = event_kind(request, payload)
        try:
            event = GithubEvent(kind=kind, data=payload)
        except ValidationError as error:
            raise Rejected("the webhook's body is nested too deeply") from error
        sender = initiator(payload, self.settings.app_slug)
        self.emit(event, initiator=sender, key=request.headers.get(_DELIVERY) or None)
        if self.config.installation_id is not None and (reason := end_of_access(payload)):
            self.disable(reason)
