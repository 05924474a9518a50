"""The values of the ballot plugin's action; those of its vote are the voting standard's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, WithJsonSchema

from metagov_sdk import Model
from metagov_sdk.ballot import Voter

# What fits depends on the vote, so read_choice judges it; the schema tells the shapes there are.
Choice = Annotated[
    JsonValue,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}},
                {"type": "object", "additionalProperties": {"type": "number"}},
                {"type": "null"},
            ]
        }
    ),
]


class CastParams(Model):
    """A vote."""

    process_id: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,64}$")]
    """The `ballot.vote` it is for."""
    voter: Voter
    """Who votes: any id the driver knows them by. Whoever votes again changes their vote."""
    choice: Choice = None
    """An option; a list of options (for `ranked`, best first); scores by option; or null, to abstain."""


class Cast(Model):
    """A vote that is stored and will be counted."""

    accepted: Literal[True] = True
    position: int
    """Its place among all that is sent to processes; of a voter's votes the one with the highest counts."""
