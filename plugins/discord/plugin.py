"""The plugin: one Discord server, its interactions in and its messages out."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any, ClassVar

import httpx
from pydantic import JsonValue

from metagov_sdk import (
    Checkpoint,
    HookRequest,
    Initiator,
    NoState,
    Plugin,
    Retry,
    Token,
    Unauthorized,
    action,
    config,
    ed25519,
    poll,
    setting,
    webhook,
)
from metagov_sdk.errors import Forbidden, Invalid, NotFound
from metagov_sdk.limits import Learned, Limit
from metagov_sdk.plugin import AuthType
from plugins.discord.api import FACTS, MISSING_ACCESS, UNKNOWN_GUILD, UNKNOWN_WEBHOOK, Refused, ask, has_own_token
from plugins.discord.buckets import learn_from, limits_of, read_route
from plugins.discord.commands import RegisterCommandParams
from plugins.discord.drawing import SILENT
from plugins.discord.interactions import (
    COMMAND,
    COMPONENT,
    TOKEN_SECONDS,
    Interaction,
    answer,
    command_event,
    dedupe,
    locate,
    read_interaction,
)
from plugins.discord.models import (
    CommandRegistered,
    DiscordConfig,
    DiscordSettings,
    MethodParams,
    NoParams,
    PostedMessage,
    PostMessageParams,
    Replied,
    ReplyParams,
)
from plugins.discord.posts import post_message
from plugins.discord.routes import Reference, Target, as_query, read_target, references
from plugins.discord.text import escape
from plugins.discord.vote import DiscordVote

_RECEIVED = "`/{name}` has been passed on. An answer may take the place of this text."
_TRIES, _BETWEEN_TRIES = 3, 0.4


class Discord(Plugin[DiscordConfig, NoState, DiscordSettings]):
    """Discord: slash commands, messages, votes by buttons and Discord's own polls, in one server."""

    name = "discord"
    auth_type: ClassVar[AuthType] = "oauth"

    @classmethod
    def platform_id(cls, config: DiscordConfig) -> str | None:
        """The server's id."""
        return config.guild_id

    @classmethod
    def needs_binding(cls, config: DiscordConfig) -> bool:
        """Under the deployment's bot, or its key, a server is only for who has proved that it is theirs."""
        return config.bot_token is None or config.public_key is None

    @classmethod
    def base_url(cls, config: DiscordConfig, settings: DiscordSettings) -> str:
        """Discord's API."""
        return settings.api_url

    # Requests.

    @property
    def limit_owner(self) -> str:
        """The bot: the deployment's own, or by a digest the one that the config brings."""
        if self.config.bot_token is None:
            return "bot"
        return f"bot:{hashlib.sha256(self.config.bot_token.get_secret_value().encode()).hexdigest()[:16]}"

    def limits(self, request: httpx.Request) -> Sequence[Limit]:
        """See `buckets`."""
        return limits_of(read_route(request.method, self._path(request)))

    def learn(self, request: httpx.Request, response: httpx.Response) -> Sequence[Learned]:
        """See `buckets`."""
        return learn_from(read_route(request.method, self._path(request)), response)

    async def authenticate(self, request: httpx.Request) -> None:
        """Add the bot's token, but where the path has its own. Raises Unauthorized when there is no bot."""
        if has_own_token(self._path(request)):
            return
        token = self.config.bot_token or self.settings.bot_token
        if token is None:
            raise Unauthorized("there is no bot: give the instance a bot_token, or set METAGOV_DISCORD_BOT_TOKEN")
        request.headers["Authorization"] = f"Bot {token.get_secret_value()}"

    async def ask(self, method: str, path: str, *, json: JsonValue = None, query: Any = None) -> Any:
        """Discord's answer; see `api.ask` for what it raises."""
        return await ask(self.http, method, path, json=json, query=query)

    def _path(self, request: httpx.Request) -> str:
        """The request's path below the API's address, as it is sent."""
        base = httpx.URL(self.settings.api_url).raw_path.decode().rstrip("/")
        return request.url.raw_path.decode().partition("?")[0].removeprefix(base)

    async def application_id(self) -> str:
        """The app's id, which is asked for once."""
        if self.config.bot_token is None and self.settings.client_id is not None:
            return self.settings.client_id
        return await self._own("application", "oauth2/applications/@me")

    async def bot_id(self) -> str:
        """The bot's user id, which is asked for once."""
        return await self._own("bot", "users/@me")

    async def _own(self, kind: str, path: str) -> str:
        key = (kind, self.settings.api_url, self.limit_owner)
        return FACTS.get(*key) or FACTS.keep(str((await self.ask("GET", path))["id"]), *key)

    async def check_channel(self, channel: str, pointer: str | None = None) -> None:
        """Raises Invalid at `pointer` (NotFound without one) unless the channel is one of the instance's own server.

        The bot may be in many servers: whether a channel of another one exists is not for this driver to know.
        """
        key = ("channel", self.settings.api_url, channel)
        guild = FACTS.get(*key)
        if guild is None:
            try:
                found = await self.ask("GET", f"channels/{channel}")
            except Refused as error:
                if error.status not in (403, 404):
                    raise
                found = {}
            if guild := found.get("guild_id"):
                FACTS.keep(guild, *key)
        if guild == self.config.guild_id:
            return
        reason = f"the server has no channel {channel} that the bot can see"
        raise NotFound(reason) if pointer is None else Invalid(pointer, reason)

    def message_url(self, channel: str, message: str) -> str:
        """Where people find a message."""
        return f"https://discord.com/channels/{self.config.guild_id}/{channel}/{message}"

    # Actions.

    @action("post-message")
    async def post_message(self, params: PostMessageParams) -> PostedMessage:
        """Post a message in a channel of the server. It notifies nobody unless `allowed_mentions` says so."""
        await self.check_channel(params.channel, "/channel")
        body: dict[str, JsonValue] = {
            "content": params.text,
            "allowed_mentions": params.allowed_mentions.wire(),
        }
        if params.embeds:
            body["embeds"] = list(params.embeds)
        if params.reply_to is not None:
            body["message_reference"] = {"message_id": params.reply_to, "channel_id": params.channel}
        message = await post_message(self, params.channel, body, f"message/{self.idempotency_key}")
        url = self.message_url(params.channel, message["id"])
        return PostedMessage(channel=params.channel, message_id=message["id"], url=url)

    @action("method")
    async def method(self, params: MethodParams) -> JsonValue:
        """Call Discord's REST API as the bot, within the instance's own server; the answer is Discord's own."""
        target = read_target(params.route, params.method)
        fields = dict(params.__pydantic_extra__ or {})
        if params.body is not None and (fields or params.method == "GET"):
            raise Invalid("/body", "a call takes either this list or fields of its own, and a GET has no body")
        await self._confine(target)
        for reference in (*references(fields), *references(params.body, "/body")):
            await self._confine_reference(reference)
        if params.method == "GET":
            return await self._answer(target, query=as_query(fields))
        if (message := target.message_in(fields)) is not None:
            message.setdefault("allowed_mentions", SILENT)
        return await self._answer(target, json=fields or params.body)

    async def _answer(self, target: Target, **sent: Any) -> JsonValue:
        answered: JsonValue = await self.ask(target.method, target.path, **sent)
        return answered

    async def _confine(self, target: Target) -> None:
        """Raises Forbidden for another server or app, NotFound for another server's channel."""
        if target.ids.get("guild", self.config.guild_id) != self.config.guild_id:
            raise Forbidden("the route is another server's")
        if (channel := target.ids.get("channel")) is not None:
            await self.check_channel(channel)
        if (app := target.ids.get("application")) is not None and app != await self.application_id():
            raise Forbidden("the route is another app's")

    async def _confine_reference(self, reference: Reference) -> None:
        if reference.kind == "guild" and str(reference.value) != self.config.guild_id:
            raise Invalid(reference.pointer, "is another server's id")
        if reference.kind == "channel" and reference.value is not None:
            await self.check_channel(str(reference.value), reference.pointer)

    @action("get-guild")
    async def get_guild(self, params: NoParams) -> dict[str, JsonValue]:
        """The server as Discord describes it: name, roles, emojis, the approximate number of members, and more."""
        query = {"with_counts": "true"}
        guild: dict[str, JsonValue] = await self.ask("GET", f"guilds/{self.config.guild_id}", query=query)
        return guild

    @action("register-guild-command")
    async def register_guild_command(self, params: RegisterCommandParams) -> CommandRegistered:
        """Add a slash command to the server, or replace the one of its name. Its uses are events, `slash_command`."""
        path = f"applications/{await self.application_id()}/guilds/{self.config.guild_id}/commands"
        command = await self.ask("POST", path, json=params.wire())
        return CommandRegistered(id=command["id"], name=command["name"])

    @action("reply-to-command")
    async def reply_to_command(self, params: ReplyParams) -> Replied:
        """Answer somebody who used a command, within 15 minutes; only they see it. Again: it replaces the answer."""
        gone = "there is no such command, or its 15 minutes are over"
        try:
            webhook = await self.credential(_credential(params.interaction_id))
        except Unauthorized:
            # Only this command's token is gone: the bot's own is as good as before.
            raise NotFound(gone) from None
        try:
            await self.edit_reply(webhook, params.text)
        except Refused as error:
            raise NotFound(gone) if error.status in (401, 404) else error from None
        return Replied()

    async def edit_reply(self, webhook: str, text: str) -> None:
        """Put `text` where a command's user waits for its answer."""
        body: dict[str, JsonValue] = {"content": text, "allowed_mentions": SILENT}
        await self.ask("PATCH", f"webhooks/{webhook}/messages/@original", json=body)

    # Interactions.

    @webhook(
        verify=ed25519(config("public_key") | setting("public_key")),
        dedupe=dedupe,
        reply=answer,
        shared=True,
        locate=locate,
        mask=("/token",),
    )
    async def hear(self, request: HookRequest) -> None:
        """A button's click becomes a vote, a command an event. Discord has had its answer by then."""
        interaction = read_interaction(request)
        person = interaction.person
        if person is None:
            return
        self.accounts.link(person.id, custom_data={"username": person.username, "global_name": person.global_name})
        self.keep_credential(_credential(interaction.id), Token(interaction.webhook, expires_in=TOKEN_SECONDS))
        if interaction.type == COMPONENT and interaction.button is not None:
            process_id, option = interaction.button
            self.emit(DiscordVote.click_signal(process_id, person.id, option, {"interaction": interaction.id}))
        elif interaction.type == COMMAND:
            await self._confirm(interaction)
            ours = person.bot and person.id == interaction.application_id
            initiator = Initiator(user_id=person.id, provider="discord", is_metagov_bot=ours)
            self.emit(command_event(interaction, person), initiator=initiator, key=f"interaction:{interaction.id}")

    @poll(every=timedelta(minutes=15))
    async def watch(self, cursor: JsonValue) -> AsyncIterator[Checkpoint]:
        """Notice that the bot was removed from the server, of which Discord tells no app: the instance is disabled.

        `cursor` is whether the bot has been seen there: it may be added after the plugin was enabled.
        """
        if self.config.bot_token is None and self.settings.bot_token is None:
            return
        try:
            await self.ask("GET", f"guilds/{self.config.guild_id}")
        except Refused as error:
            if error.code not in (UNKNOWN_GUILD, MISSING_ACCESS):
                raise
            if cursor is True:
                self.disable("the bot was removed from the server; add it again, then enable the plugin again")
            yield Checkpoint(False)
        else:
            yield Checkpoint(True)

    async def _confirm(self, interaction: Interaction) -> None:
        """Tell the command's user that it has come through, before any driver answers; without it, Discord "thinks".

        It is a courtesy: the event does not wait for a Discord that is away.
        """
        text = _RECEIVED.format(name=escape(interaction.data.name))
        for attempt in range(_TRIES):
            try:
                await self.edit_reply(interaction.webhook, text)
                return
            except Refused as error:
                # The deferred answer may still be on its way to Discord.
                if error.code == UNKNOWN_WEBHOOK and attempt + 1 < _TRIES:
                    await asyncio.sleep(_BETWEEN_TRIES)
                    continue
                self.log.warning("a command could not be confirmed", reason=error.reason)
                return
            except (Retry, httpx.TransportError) as error:
                self.log.warning("a command could not be confirmed", reason=type(error).__name__)
                return


def _credential(interaction_id: str) -> str:
    """The name under which an interaction's `<application id>/<token>` is kept."""
    return f"interaction:{interaction_id}"
