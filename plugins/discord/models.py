"""The plugin's config, settings and events, and the parameters and results of its actions."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, JsonValue, SecretStr

from metagov_sdk import Config, Event, Model, Settings

LONGEST_TEXT = 2000
"""Characters of a message. Source: docs.discord.com/developers/resources/message#create-message."""


def _digits(value: object) -> object:
    """Ids that clients send as JSON numbers; as text they survive languages whose numbers are doubles."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def storable(text: str) -> str:
    """Text that JSON and a database can hold. Raises ValueError."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("should be Unicode text without NUL")
    return text


Snowflake = Annotated[str, BeforeValidator(_digits), Field(pattern=r"^[1-9][0-9]{0,19}$")]
"""An id of Discord's. Source: docs.discord.com/developers/reference#snowflakes."""
Text = Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT), AfterValidator(storable)]
Address = Annotated[str, AfterValidator(lambda address: address.rstrip("/"))]
PublicKey = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]


class DiscordConfig(Config):
    """Which server belongs to the community; with an app of the community's own, also that app's token and key."""

    guild_id: Snowflake
    """The server's id: right-click its name with developer mode on, "Copy Server ID"."""
    bot_token: Annotated[SecretStr, Field(min_length=1, max_length=500)] | None = None
    """The token of the community's own bot; the deployment's bot is used when absent."""
    public_key: PublicKey | None = None
    """The public key of the community's own app (64 hex digits), which its interactions are verified with; the
    deployment's is used when absent."""


class DiscordSettings(Settings):
    """The deployment's Discord app."""

    api_url: Address = "https://discord.com/api/v10"
    """Where Discord's API is."""
    authorize_url: Address = "https://discord.com/oauth2/authorize"
    """Where people are sent to install the app or to sign in."""
    bot_token: SecretStr | None = None
    """The bot's token, for instances without their own."""
    public_key: PublicKey | None = None
    """The app's public key, as the developer portal shows it."""
    client_id: Snowflake | None = None
    """The app's client id (its application id)."""
    client_secret: SecretStr | None = None
    """The app's client secret, for OAuth."""


class DiscordUser(Model):
    """A person, as an interaction names them."""

    id: str
    username: str | None = None
    global_name: str | None = None


class SlashCommand(Event):
    """Somebody used a command of the app. Answer it with the action `reply-to-command`, within 15 minutes.

    Source: docs.discord.com/developers/interactions/application-commands
    """

    event_type: ClassVar[str] = "slash_command"

    interaction_id: str
    """What `reply-to-command` takes."""
    command: str
    """The command's name."""
    command_id: str | None = None
    subcommand: tuple[str, ...] = ()
    """The names of the subcommand group and the subcommand, if the command has such."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """What was filled in, by the option's name: text, a number, a truth value, or the id of a user, role or channel."""
    target_id: str | None = None
    """The user or message that a command of the context menu was used on."""
    guild_id: str
    channel_id: str | None = None
    user: DiscordUser
    locale: str | None = None


class AllowedMentions(Model):
    """Whom a message may notify. Source: docs.discord.com/developers/resources/message#allowed-mentions-object."""

    parse: tuple[Literal["roles", "users", "everyone"], ...] = ()
    """Kinds of mentions in the text that notify."""
    users: Annotated[tuple[Snowflake, ...], Field(max_length=100)] = ()
    """Users whose mention notifies."""
    roles: Annotated[tuple[Snowflake, ...], Field(max_length=100)] = ()
    """Roles whose mention notifies."""
    replied_user: bool = False
    """Whether the author of the message that is replied to is notified."""

    def wire(self) -> dict[str, JsonValue]:
        """As Discord takes it: a kind and a list of the same cannot both be there, not even an empty list."""
        named: dict[str, Any] = {"users": list(self.users), "roles": list(self.roles)}
        kept = {kind: ids for kind, ids in named.items() if ids}
        return {"parse": list(self.parse), "replied_user": self.replied_user, **kept}


class PostMessageParams(Model):
    """A message for a channel of the server."""

    text: Text
    """What it says, in Discord's markdown; at most 2000 characters."""
    channel: Snowflake
    """The channel's or thread's id."""
    allowed_mentions: AllowedMentions = AllowedMentions()
    """Whom it may notify; nobody by default, whatever the text mentions."""
    embeds: Annotated[tuple[dict[str, JsonValue], ...], Field(max_length=10)] = ()
    """Embeds, as Discord's API takes them."""
    reply_to: Snowflake | None = None
    """The id of a message of the same channel that this one replies to."""


class PostedMessage(Model):
    """A message that has been posted."""

    channel: str
    message_id: str
    url: str


class MethodParams(Model):
    """A call of Discord's REST API, within the instance's own server. All other fields are the call's own: the query
    of a GET, the JSON body of anything else.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    route: Annotated[str, Field(min_length=1, max_length=500)]
    """The path below /api/v10, such as `/guilds/<id>/members/search`; without a query."""
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    """The HTTP method."""
    body: list[JsonValue] | None = None
    """The JSON body of the few calls that take a list, such as the order of channels."""


class NoParams(Model):
    """Nothing."""


class ReplyParams(Model):
    """An answer to somebody's command."""

    interaction_id: Snowflake
    """The `interaction_id` of the `slash_command` event."""
    text: Text
    """What the person reads, and nobody else; it takes the place of an earlier answer."""


class Replied(Model):
    """The answer is shown."""

    shown: Literal[True] = True


class CommandRegistered(Model):
    """A command as Discord keeps it."""

    id: str
    name: str
