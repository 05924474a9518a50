"""Slash commands as drivers describe them, with types by name. Limits are Discord's.

Source: docs.discord.com/developers/interactions/application-commands
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, StrictBool, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, ValidationError

from metagov_sdk import Model
from plugins.discord.models import storable

OPTION_TYPES = {
    "subcommand": 1,
    "subcommand-group": 2,
    "string": 3,
    "integer": 4,
    "boolean": 5,
    "user": 6,
    "channel": 7,
    "role": 8,
    "mentionable": 9,
    "number": 10,
    "attachment": 11,
}
_WITH_CHOICES = ("string", "integer", "number")
OptionType = Literal[
    "subcommand",
    "subcommand-group",
    "string",
    "integer",
    "boolean",
    "user",
    "channel",
    "role",
    "mentionable",
    "number",
    "attachment",
]


def _lower_case(name: str) -> str:
    if name != name.lower():
        raise ValueError("should be in lower case")
    return name


Name = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[-_'\w]+$"), AfterValidator(_lower_case)]
Description = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(storable)]


class Choice(Model):
    """A value that can be picked."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    """What people read."""
    value: str | int | float
    """What the event's options then hold."""


class Option(Model):
    """One field of a command, or a subcommand with fields of its own."""

    name: Name
    """Its name: lower case, no spaces."""
    description: Description
    """What people read beside it."""
    type: OptionType = "string"
    """What can be filled in. A `user`, `role`, `channel`, `mentionable` or `attachment` is given to drivers by id."""
    required: StrictBool = False
    """Whether it has to be filled in; those that have to come first."""
    choices: Annotated[tuple[Choice, ...], Field(max_length=25)] = ()
    """The only values allowed, for string, integer and number."""
    min_value: float | None = None
    """The least integer or number."""
    max_value: float | None = None
    """The greatest integer or number."""
    min_length: Annotated[int, Field(ge=0, le=6000)] | None = None
    """The fewest characters of a string."""
    max_length: Annotated[int, Field(ge=1, le=6000)] | None = None
    """The most characters of a string."""
    options: Annotated[tuple[Option, ...], Field(max_length=25)] = ()
    """The fields of a subcommand, or the subcommands of a group."""

    @model_validator(mode="after")
    def _fits_its_type(self) -> Option:
        if self.choices and self.type not in _WITH_CHOICES:
            _refuse(self, "choices", f"a {self.type} takes no choices; string, integer and number do")
        if self.options and not self.type.startswith("subcommand"):
            _refuse(self, "options", "only a subcommand or a subcommand-group has options")
        if self.type == "subcommand-group" and any(each.type != "subcommand" for each in self.options):
            _refuse(self, "options", "a subcommand-group holds subcommands and nothing else")
        if self.type == "subcommand" and any(each.type.startswith("subcommand") for each in self.options):
            _refuse(self, "options", "a subcommand holds no subcommands")
        if (self.min_value is not None or self.max_value is not None) and self.type not in ("integer", "number"):
            _refuse(self, "min_value", "min_value and max_value are for integer and number")
        if (self.min_length is not None or self.max_length is not None) and self.type != "string":
            _refuse(self, "min_length", "min_length and max_length are for string")
        check_order(self, self.options)
        return self

    def wire(self) -> dict[str, JsonValue]:
        """As Discord takes it."""
        whole: dict[str, Any] = {
            "type": OPTION_TYPES[self.type],
            "name": self.name,
            "description": self.description,
        }
        if not self.type.startswith("subcommand"):
            whole["required"] = self.required
        if self.choices:
            whole["choices"] = [choice.model_dump() for choice in self.choices]
        if self.options:
            whole["options"] = [option.wire() for option in self.options]
        for name in ("min_value", "max_value", "min_length", "max_length"):
            if (value := getattr(self, name)) is not None:
                whole[name] = int(value) if self.type == "integer" else value
        return whole


class RegisterCommandParams(Model):
    """A slash command for the server; one of the same name is replaced."""

    name: Name
    """What people type after the slash: lower case, no spaces."""
    description: Description
    """What they read about it while they type."""
    options: Annotated[tuple[Option, ...], Field(max_length=25)] = ()
    """What they fill in."""

    @model_validator(mode="after")
    def _required_first(self) -> RegisterCommandParams:
        check_order(self, self.options)
        return self

    def wire(self) -> dict[str, JsonValue]:
        """As Discord takes it; type 1 is a slash command."""
        options: list[JsonValue] = [option.wire() for option in self.options]
        return {"type": 1, "name": self.name, "description": self.description, "options": options}


def check_order(owner: Model, options: tuple[Option, ...]) -> None:
    """Raises ValidationError, at the option that is in the wrong place or has a name twice."""
    seen: set[str] = set()
    optional = False
    for number, option in enumerate(options):
        if option.name in seen:
            _refuse(owner, "options", f"{option.name!r} is there twice", number, "name")
        if option.required and optional:
            _refuse(owner, "options", "those that are required come first", number, "required")
        seen.add(option.name)
        optional = optional or not option.required


def _refuse(owner: Model, field: str, reason: str, *below: int | str) -> None:
    error = PydanticCustomError("option", "{reason}", {"reason": reason})
    line = InitErrorDetails(type=error, loc=(field, *below), input=None)
    raise ValidationError.from_exception_data(type(owner).__name__, [line])
