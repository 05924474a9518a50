"""Reading Discord's interactions: pure functions of the request's bytes, which may be anybody's.

Source: docs.discord.com/developers/interactions/receiving-and-responding
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from metagov_sdk import HookRequest, Rejected, Reply
from plugins.discord.models import DiscordUser, SlashCommand

PING, COMMAND, COMPONENT, AUTOCOMPLETE = 1, 2, 3, 4
PONG, DEFERRED_MESSAGE, DEFERRED_UPDATE, SUGGESTIONS = 1, 5, 6, 8
EPHEMERAL: Final = 64
"""The flag of a message that one person alone sees."""
TOKEN_SECONDS = 900.0
"""How long an interaction can be answered."""

SUBCOMMAND, SUBCOMMAND_GROUP, NUMBER = 1, 2, 10
_BUTTON = re.compile(r"mg:([A-Za-z0-9_-]{1,64}):([0-9]{1,3})")

_Id = Annotated[str, Field(pattern=r"^[0-9]{1,20}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class _User(_Part):
    id: _Id
    username: Annotated[str, Field(max_length=200)] | None = None
    global_name: Annotated[str, Field(max_length=200)] | None = None
    bot: bool = False


class _Member(_Part):
    user: _User | None = None


class _Option(_Part):
    name: Annotated[str, Field(max_length=100)]
    type: int
    value: str | int | float | bool | None = None
    options: tuple[_Option, ...] = ()


class _Data(_Part):
    id: str | int | None = None
    """A command's id; of a component its small number in the message."""
    name: Annotated[str, Field(max_length=100)] = ""
    options: tuple[_Option, ...] = ()
    target_id: str | None = None
    custom_id: Annotated[str, Field(max_length=200)] = ""


class Interaction(_Part):
    """Something a person did with a command or a component of the app."""

    id: _Id
    application_id: _Id
    type: int
    # It goes into a path: nothing in it may end one part of the path and begin another.
    token: Annotated[str, Field(pattern=r"^[A-Za-z0-9_=.~-]{10,1000}$", repr=False)]
    guild_id: _Id | None = None
    channel_id: _Id | None = None
    member: _Member | None = None
    user: _User | None = None
    data: _Data = _Data()
    locale: Annotated[str, Field(max_length=20)] | None = None

    @property
    def person(self) -> _User | None:
        """Who did it."""
        return self.member.user if self.member and self.member.user else self.user

    @property
    def webhook(self) -> str:
        """`<application id>/<token>`, below /webhooks: where it is answered. A secret."""
        return f"{self.application_id}/{self.token}"

    @property
    def button(self) -> tuple[str, int] | None:
        """The process and the option's position, if one of a vote's buttons was clicked."""
        found = _BUTTON.fullmatch(self.data.custom_id)
        return (found[1], int(found[2])) if found else None


def read_interaction(request: HookRequest) -> Interaction:
    """The interaction. Raises Rejected for what is none."""
    try:
        return Interaction.model_validate(request.json())
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
        raise Rejected(f"this is not one of Discord's interactions (at {place or 'its root'})") from None


def button_id(process_id: str, option: int) -> str:
    """A button's custom_id, 100 characters at most: it carries the vote and the option's position."""
    return f"{button_prefix(process_id)}{option}"


def button_prefix(process_id: str) -> str:
    """What the custom_ids of a vote's buttons begin with."""
    return f"mg:{process_id}:"


def locate(request: HookRequest) -> list[str]:
    """The server that the interaction comes from; none for a PING. Raises Rejected."""
    guild = request.json().get("guild_id")
    return [guild] if isinstance(guild, str) else []


def dedupe(request: HookRequest) -> str | None:
    """The interaction's id. Raises Rejected."""
    number = request.json().get("id")
    return f"interaction:{number}" if isinstance(number, str) and number else None


def answer(request: HookRequest) -> Reply | None:
    """What Discord is answered at once, whatever a worker makes of it later. Raises Rejected.

    A command shows "thinking…" to its user alone until it is answered; a click shows nothing.
    """
    kind = request.json().get("type")
    if kind == PING:
        return Reply.json({"type": PONG}, store=False)
    if kind == COMMAND:
        return Reply.json({"type": DEFERRED_MESSAGE, "data": {"flags": EPHEMERAL}})
    if kind == COMPONENT:
        return Reply.json({"type": DEFERRED_UPDATE})
    if kind == AUTOCOMPLETE:
        return Reply.json({"type": SUGGESTIONS, "data": {"choices": []}}, store=False)
    return None


def command_event(interaction: Interaction, person: _User) -> SlashCommand:
    """The event for drivers: without the token, options by name. Raises Rejected."""
    path, options = _fields(interaction.data.options)
    try:
        return SlashCommand(
            interaction_id=interaction.id,
            command=interaction.data.name,
            command_id=str(interaction.data.id) if interaction.data.id is not None else None,
            subcommand=path,
            options=options,
            target_id=interaction.data.target_id,
            guild_id=interaction.guild_id or "",
            channel_id=interaction.channel_id,
            user=DiscordUser(id=person.id, username=person.username, global_name=person.global_name),
            locale=interaction.locale,
        )
    except ValidationError:
        raise Rejected("the command holds something that cannot be kept") from None


def _fields(options: tuple[_Option, ...]) -> tuple[tuple[str, ...], dict[str, JsonValue]]:
    """The path of subcommands, and the values below it."""
    path: list[str] = []
    while len(options) == 1 and options[0].type in (SUBCOMMAND, SUBCOMMAND_GROUP):
        path.append(options[0].name)
        options = options[0].options
    values: dict[str, Any] = {option.name: _typed(option) for option in options}
    return tuple(path), values


def _typed(option: _Option) -> Any:
    """The value as its type has it: a number that happens to be whole is a number still."""
    if option.type == NUMBER and isinstance(option.value, int) and not isinstance(option.value, bool):
        return float(option.value)
    return option.value
