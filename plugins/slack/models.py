"""The values of the Slack plugin: config, settings, its actions' parameters, its events."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, JsonValue, SecretStr

from metagov_sdk import Config, Event, Model, OpenEvent, Settings

UserId = Annotated[str, Field(pattern=r"^[UW][A-Z0-9]{1,30}$")]
"""A person, as Slack names them."""


class SlackConfig(Config):
    """Which workspace belongs to the community; and an app of its own, where it does not use the deployment's."""

    team_id: Annotated[str, Field(pattern=r"^[TE][A-Z0-9]{1,30}$")] | None = None
    """The workspace's id, T…; for an app that is installed for a whole organization the organization's, E…."""
    bot_token: Annotated[SecretStr, Field(min_length=1)] | None = None
    """The app's bot token, xoxb-…; the one that the OAuth install gave when absent."""
    signing_secret: Annotated[SecretStr, Field(min_length=1)] | None = None
    """What signs the app's webhooks; the deployment's own when absent."""
    reads_per_minute: Annotated[float, Field(gt=0, le=1000)] = 50
    """How often a minute messages may be read. Slack allows commercial apps outside its Marketplace 1."""
    page_size: Annotated[int, Field(ge=1, le=999)] = 200
    """How many items are asked for at a time. Slack gives commercial apps outside its Marketplace 15 messages."""


class SlackSettings(Settings):
    """The deployment's Slack app."""

    api_url: str = "https://slack.com/api/"
    """Where Slack's Web API is."""
    authorize_url: str = "https://slack.com"
    """Where people are sent to install the app or to sign in: what comes before /oauth and /openid."""
    signing_secret: SecretStr | None = None
    """The app's signing secret."""
    client_id: str | None = None
    """The app's client id."""
    client_secret: SecretStr | None = None
    """The app's client secret."""

    @property
    def api_base(self) -> str:
        """The API's address, to which a method's name is added."""
        return self.api_url.rstrip("/") + "/"


class PostMessageParams(Model):
    """A message, to a channel or to people. Any other argument of Slack's chat.postMessage is passed on as it is."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

    channel: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """A channel's id."""
    users: Annotated[list[UserId], Field(min_length=1, max_length=8)] | None = None
    """Up to eight people's ids, instead of a channel: it goes to the conversation with exactly them."""
    text: Annotated[str, Field(max_length=40_000)] | None = None
    """What it says; with `blocks`, what notifications say."""


class MethodParams(Model):
    """A call of Slack's Web API. All but `method_name` are the method's own arguments."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

    method_name: Annotated[str, Field(max_length=100, pattern=r"^[a-z][A-Za-z0-9]*(\.[A-Za-z0-9]+)+$")]
    """The method, as in Slack's reference: `conversations.members`."""


class SlackAnswer(Model):
    """What Slack answered, as it is."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

    ok: Literal[True] = True


class SlackEvent(OpenEvent):
    """An event of Slack's Events API by Slack's own type (`message`, `reaction_added`); data is the event unchanged.

    Interactions that are no clicks on a vote come by their types too (`block_actions`, `view_submission`).
    Source: https://docs.slack.dev/reference/events
    """


class SlashCommand(Event):
    """Somebody used one of the app's slash commands."""

    event_type: ClassVar[str] = "slash_command"

    command: str
    """With its slash, as in `/vote`."""
    text: str
    """What was typed after it."""
    user_id: str
    user_name: str | None
    channel_id: str
    channel_name: str | None
    team_id: str
