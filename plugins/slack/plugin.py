"""The plugin: a workspace's events, slash commands and clicks come in, messages and method calls go out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qs

import httpx
from pydantic import ValidationError

from metagov_sdk import (
    HookRequest,
    Initiator,
    Limit,
    NoState,
    Plugin,
    Rejected,
    action,
    config,
    setting,
    slack_v0,
    webhook,
)
from metagov_sdk.errors import Invalid
from metagov_sdk.plugin import AuthType
from plugins.slack.api import SlackApi, limits_of
from plugins.slack.models import (
    MethodParams,
    PostMessageParams,
    SlackAnswer,
    SlackConfig,
    SlackEvent,
    SlackSettings,
    SlashCommand,
)
from plugins.slack.payloads import (
    MASK,
    actor_of,
    answer,
    happened_at,
    is_own,
    read,
    repeat_key,
    teams,
    without_secrets,
)
from plugins.slack.processes import signal_of
from plugins.slack.vote import clicks_in

_TYPE = re.compile(r"[a-z][a-z0-9_.]{0,99}")
_PERSON = re.compile(r"[UW][A-Z0-9]{1,30}")
_ARGUMENT = re.compile(r"[a-z][a-z0-9_]{0,60}")
_TOKENS_IN_ANSWER = ("oauth.", "openid.", "tooling.")


class Slack(Plugin[SlackConfig, NoState, SlackSettings]):
    """Slack: messages, votes by buttons and menus, and all that happens in a workspace, as events."""

    name = "slack"
    auth_type: ClassVar[AuthType] = "oauth"

    @classmethod
    def platform_id(cls, config: SlackConfig) -> str | None:
        """The workspace's id."""
        return config.team_id

    @classmethod
    def needs_binding(cls, config: SlackConfig) -> bool:
        """Only with a token and a signing secret of its own does a workspace need no proof that it is the driver's."""
        return config.bot_token is None or config.signing_secret is None

    @classmethod
    def base_url(cls, config: SlackConfig, settings: SlackSettings) -> str:
        """The Web API's address."""
        return settings.api_base

    @property
    def limit_owner(self) -> str:
        """Slack counts by app and workspace: those of the deployment's app by workspace, of an own app by instance."""
        if self.config.bot_token is None and self.community_platform_id is not None:
            return self.community_platform_id
        return super().limit_owner

    def limits(self, request: httpx.Request) -> Sequence[Limit]:
        """By method, and for messages by channel."""
        base = httpx.URL(self.settings.api_base)
        if request.url.host != base.host or not request.url.path.startswith(base.path):
            return ()
        method = request.url.path.removeprefix(base.path)
        channel = parse_qs(request.content.decode()).get("channel", [""])[0] if method == "chat.postMessage" else ""
        return limits_of(method, channel, self.config.reads_per_minute)

    async def authenticate(self, request: httpx.Request) -> None:
        """The bot's token: the config's own, else the OAuth install's."""
        own = self.config.bot_token
        token = own.get_secret_value() if own is not None else await self.credential("bot")
        request.headers["Authorization"] = f"Bearer {token}"

    @action("post-message")
    async def post_message(self, params: PostMessageParams) -> SlackAnswer:
        """Post a message in a channel, or in the direct message with the users named, which is opened if need be."""
        if (params.channel is None) == (params.users is None):
            raise Invalid("/channel", "name either a channel or users")
        fields = _arguments(params.__pydantic_extra__)
        api = self._api
        channel = params.channel if params.users is None else await api.direct(params.users)
        posted = await api.call_joining("chat.postMessage", **fields, channel=channel, text=params.text)
        return SlackAnswer.model_validate(posted)

    @action("method")
    async def method(self, params: MethodParams) -> SlackAnswer:
        """Call a method of Slack's Web API with the app's bot token; join the public channel first if that is missing.

        Methods whose answers hold tokens are refused.
        """
        if params.method_name.startswith(_TOKENS_IN_ANSWER):
            raise Invalid("/method_name", "this method's answer would hold tokens; the gateway does what needs them")
        fields = _arguments(params.__pydantic_extra__)
        return SlackAnswer.model_validate(await self._api.call_joining(params.method_name, **fields))

    @webhook(
        verify=slack_v0(config("signing_secret") | setting("signing_secret")),
        dedupe=repeat_key,
        reply=answer,
        shared=True,
        locate=teams,
        mask=MASK,
    )
    async def hear(self, request: HookRequest) -> None:
        """Events, slash commands and interactions become events; clicks on votes go to their votes."""
        payload = read(request)
        team = next(iter(teams(request)), self.community_platform_id)
        try:
            if payload.kind == "event":
                self._hear_event(payload.body, team)
            elif payload.kind == "command":
                self._hear_command(payload.body, team)
            else:
                self._hear_interaction(payload.body, team, repeat_key(request))
        except ValidationError as error:
            raise Rejected("the webhook's body lacks what Slack's have, or is nested too deeply") from error

    def _hear_event(self, body: Mapping[str, Any], team: str | None) -> None:
        event = body.get("event")
        if body.get("type") != "event_callback" or not isinstance(event, dict):
            # Such as app_rate_limited, which has no envelope.
            event = without_secrets(body)
        kind = _type_of(event)
        actor = actor_of(event)
        initiator = None
        if actor is not None:
            initiator = Initiator(user_id=actor, provider=self.name, is_metagov_bot=is_own(body, event))
            if not initiator.is_metagov_bot:
                self._link(actor, team)
        event_id = body.get("event_id")
        key = event_id if isinstance(event_id, str) and event_id else None
        self.emit(SlackEvent(kind=kind, data=event), initiator=initiator, key=key, at=happened_at(body))
        if kind == "app_uninstalled":
            self.disable("the app was removed from the Slack workspace")
        elif kind == "tokens_revoked" and _revokes_bot(event):
            self.disable("the app's bot token was revoked in Slack")

    def _hear_command(self, body: Mapping[str, Any], team: str | None) -> None:
        command = SlashCommand(
            command=body["command"],
            text=body.get("text", ""),
            user_id=body.get("user_id", ""),
            user_name=body.get("user_name"),
            channel_id=body.get("channel_id", ""),
            channel_name=body.get("channel_name"),
            team_id=body.get("team_id", ""),
        )
        self._link(command.user_id, team)
        self.emit(command, initiator=Initiator(user_id=command.user_id, provider=self.name), key=body.get("trigger_id"))

    def _hear_interaction(self, body: Mapping[str, Any], team: str | None, key: str) -> None:
        user = body.get("user")
        actor = user.get("id") if isinstance(user, dict) else None
        initiator = None
        if isinstance(actor, str) and actor:
            initiator = Initiator(user_id=actor, provider=self.name)
            self._link(actor, team)
        signals = [signal for click in clicks_in(body) if (signal := signal_of(click)) is not None]
        for signal in signals:
            self.emit(signal)
        if not signals:
            self.emit(SlackEvent(kind=_type_of(body), data=without_secrets(body)), initiator=initiator, key=key)

    def _link(self, user_id: str, team: str | None) -> None:
        """Know a person's account; bots and workflows have none."""
        if _PERSON.fullmatch(user_id) and user_id != "USLACKBOT":
            self.accounts.link(user_id, custom_data={"team_id": team})

    @property
    def _api(self) -> SlackApi:
        return SlackApi(self.http, self.config.page_size)


def _arguments(fields: Mapping[str, Any] | None) -> dict[str, Any]:
    """A driver's arguments for a method. Raises Invalid.

    Slack reads a name that begins with a blank as if it did not, so only names as its own are let through.
    """
    for name in fields or ():
        pointer = "/" + name.replace("~", "~0").replace("/", "~1")
        if name == "token":
            raise Invalid(pointer, "the token cannot be chosen: calls are made as the app that is installed")
        if not _ARGUMENT.fullmatch(name):
            raise Invalid(pointer, "is no name of an argument: they have lower-case letters, digits and underscores")
    return dict(fields or {})


def _type_of(event: Mapping[str, Any]) -> str:
    kind = event.get("type")
    if not isinstance(kind, str) or not _TYPE.fullmatch(kind):
        raise Rejected("the webhook names no type of event")
    return kind


def _revokes_bot(event: Mapping[str, Any]) -> bool:
    tokens = event.get("tokens")
    return isinstance(tokens, dict) and bool(tokens.get("bot"))
